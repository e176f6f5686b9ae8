#!/usr/bin/env python3
"""Plants ten defects in kernels, folds and quantizers, one at a time; each must break a test.

    tools/mutate.py                  in a copy of the tree below build/mutate (slow: it is built once, then once a defect)
    tools/mutate.py --here BUILD     in this very checkout, with its build folder BUILD; sources are put back
    tools/mutate.py --check          only: does every defect still find its line
    tools/mutate.py --only 3,7       these rows

Prints one row a defect and exits with 1 if one survived, or did not find its line.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent

# file, text, what it becomes, test program. White space in the text stands for any.
MUTATIONS = [
    ("core/format/uniform.h", "round_half_even(-lo / static_cast<double>", "round_half_even(lo / static_cast<double>", "core"),
    ("core/format/uniform.h", "return fused_multiply_add(static_cast<float>(t), s, b)",
     "return static_cast<float>(t) * s + b", "core"),
    ("core/format/log.h", "code += x < t ? 1 : 0", "code += x <= t ? 1 : 0", "core"),
    ("runtime/kernels/gemm_i8/portable.h", "* static_cast<uint32_t>(args.za)", "* static_cast<uint32_t>(args.za + 1)",
     "runtime"),
    ("runtime/kernels/attention_i8/portable.h", "static_cast<int16_t>(from[i] - zero)",
     "static_cast<int16_t>(from[i] - zero + 1)", "runtime"),
    ("runtime/kernels/norm/portable.h", "return (x[i] * rstd) * gain[i] + beta[i];",
     "return x[i] * (rstd * gain[i]) + beta[i];", "runtime"),
    ("reparameterize/fold.cpp", "at::mv(w, lower)", "at::mv(folded, lower)", "methods"),
    ("reparameterize/fold.cpp", "(bias.reshape({-1}) - lower) / r - s * zero", "(bias.reshape({-1}) - lower) / r + s * zero",
     "methods"),
    ("quantize/kernels.cpp", "out[i] = lower[c] + s[c] * rne(clamp((x[i] - lower[c]) * inv[c], 0.0f, top))",
     "out[i] = lower[c] + s[c] * rne(clamp((x[i] - lower[c]) * inv[c], 0.0f, top - 1.0f))", "quantize"),
    ("quantize/kernels.cpp", "out[base + i] = levels[codes[i]] - shift", "out[base + i] = levels[codes[i]] + shift", "quantize"),
]


def pattern(text):
    pieces = re.findall(r"\w+|[^\w\s]", text)
    return re.compile(r"\s*".join(re.escape(piece) for piece in pieces))


def mutate(path, old, new):
    """The original text, or None when the line is not there exactly once."""
    text = path.read_text()
    if len(pattern(old).findall(text)) != 1:
        return None
    path.write_text(pattern(old).sub(lambda _: new, text))
    return text


def build(folder, target, log):
    return subprocess.run(["cmake", "--build", folder, "--target", target], stdout=log, stderr=log).returncode == 0


def first_failure(folder, target, log):
    """The name of a test that fails, or None; a crash or a hang counts, too."""
    program = folder / "bin" / target
    try:
        result = subprocess.run([program, "--gtest_fail_fast", "--gtest_brief=1"], capture_output=True, text=True, timeout=900)
    except subprocess.TimeoutExpired:
        return "(timeout)"
    log.write(result.stdout + result.stderr)
    if result.returncode == 0:
        return None
    failed = re.findall(r"\[  FAILED  \] ([\w./]+)", result.stdout)
    return failed[0] if failed else f"(exit code {result.returncode})"


def scratch_copy():
    """A copy of the sources with its own build folder."""
    scratch = ROOT / "build" / "mutate"
    source = scratch / "source"
    files = subprocess.run(["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"], check=True,
                           capture_output=True, text=True).stdout.splitlines()
    files = {name for name in files if (ROOT / name).is_file()}
    for path in source.rglob("*"):
        if path.is_file() and str(path.relative_to(source)) not in files:
            path.unlink()
    for name in sorted(files):
        # An equal file keeps its time: what was built from it stays, what was built from a defect is built anew.
        if (source / name).is_file() and (source / name).read_bytes() == (ROOT / name).read_bytes():
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    subprocess.run(["cmake", "-S", source, "-B", scratch / "build", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
                    f"-DREPQUANT_VENV={ROOT / '.venv'}"], check=True, stdout=subprocess.DEVNULL)
    return source, scratch / "build"


def try_one(source, folder, row, log):
    """(verdict, detail): caught, survived, or what stood in the way."""
    file, old, new, module = row
    path = source / "repquant" / file
    original = mutate(path, old, new)
    if original is None:
        return "not found", "the line is not there exactly once"
    try:
        if not build(folder, f"{module}_test", log):
            return "not built", "see the log"
        failure = first_failure(folder, f"{module}_test", log)
    finally:
        path.write_text(original)
    return ("caught", failure) if failure else ("SURVIVED", f"{module}_test passes")


def check():
    lost = [row for row in MUTATIONS if len(pattern(row[1]).findall((ROOT / "repquant" / row[0]).read_text())) != 1]
    for file, old, _, _ in lost:
        print(f"repquant/{file}: not there exactly once: {old}")
    return 1 if lost else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--here", type=pathlib.Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--only", default=",".join(str(i + 1) for i in range(len(MUTATIONS))))
    options = parser.parse_args()
    if options.check:
        sys.exit(check())
    os.environ.setdefault("CCACHE_SLOPPINESS", "pch_defines,time_macros,include_file_mtime,include_file_ctime")
    source, folder = (ROOT, options.here.resolve()) if options.here else scratch_copy()
    rows = [(int(i), MUTATIONS[int(i) - 1]) for i in options.only.split(",")]
    bad = 0
    with open(folder / "mutate.log", "w") as log:
        for target in sorted({f"{row[3]}_test" for _, row in rows}):
            if not build(folder, target, log) or first_failure(folder, target, log):
                sys.exit(f"mutate: {target} does not pass before any mutation; see {log.name}")
        for index, row in rows:
            started = time.monotonic()
            verdict, detail = try_one(source, folder, row, log)
            bad += verdict != "caught"
            print(f"{index:>2}  {verdict:<9}  {row[0]:<42}  {detail}  ({time.monotonic() - started:.0f} s)", flush=True)
        for target in sorted({f"{row[3]}_test" for _, row in rows}) if options.here else []:
            build(folder, target, log)
    print(f"{len(rows) - bad} of {len(rows)} caught")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
