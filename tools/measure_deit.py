#!/usr/bin/env python3
"""Measures DeiT-Tiny: every figure of docs/numbers.md, by one command that goes on where it stopped.

    tools/measure_deit.py [headline] [ablations] [checks] [--build build/release] [--threads 2] [--only REGEX] [--dry-run]

headline: the rows of the results table, seeds 0, 1, 2. ablations: W4A4, seed 0 (clipping, reconstruction, strict
against compat, number of images with three seeds). Each row quantizes, then scores the artifact by the integer runtime on
the 650 images of imagenet/val; calibration images come from the first 200 of imagenet/train. checks: both ONNX exports in
float, paired differences between methods, quantize against onnxruntime, equal bytes. Finished rows lie in
docs/numbers/deit_tiny.json and are not measured again; afterwards docs/numbers.md is written from that file alone.
"""
import argparse
import hashlib
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
STORE = ROOT / "docs/numbers/deit_tiny.json"
PAGE = ROOT / "docs/numbers.md"
README = ROOT / "README.md"
POOL = "vision/imagenet/train[0:200]"


def row(name, scheme, method, seed=0, samples=32, simulate=False, **options):
    return {"name": name, "scheme": scheme, "method": method, "seed": seed, "samples": samples, "simulate": simulate,
            "options": options}


def headline():
    rows = []
    for seed in (0, 1, 2):
        rows += [row("repq_vit compat", "w4a4", "repq_vit", seed, simulate=True, compat="true"),
                 row("repq_vit strict", "w4a4", "repq_vit", seed), row("repq_vit strict", "w6a6", "repq_vit", seed)]
        rows += [row("repquant fast", s, "repquant", seed) for s in ("w4a4", "w6a6", "w3a3", "w4a8")]
    rows += [row("round_to_nearest", s, "round_to_nearest") for s in ("w8a8", "w6a6", "w4a4")]
    rows += [row("repq_vit strict", "w8a8", "repq_vit"), row("repquant fast", "w8a8", "repquant")]
    for seed in (0, 1, 2):
        rows += [row("repquant paper", s, "repquant", seed, tier="paper") for s in ("w4a4", "w6a6")]
        rows += [row("repquant accurate", s, "repquant", seed, 200, tier="accurate") for s in ("w4a4", "w3a3", "w3a4")]
    return rows


def ablations():
    rows = [row("clip " + c, "w4a4", "repquant", clip=c)
            for c in ("none", "percentile", "upper", "symmetric", "grid", "learned")]
    stages = {"none": (), "T0": ("ridge",), "T1": ("gptq",), "T0+T1": ("ridge", "gptq"),
              "T0+T1+T2": ("ridge", "gptq", "blocks")}
    for name, on in stages.items():
        rows.append(row("reconstruction " + name, "w4a4", "repquant", samples=128,
                        **{s: "on" if s in on else "off" for s in ("ridge", "gptq", "blocks")}))
    rows += [row("repq_vit strict", "w4a4", "repq_vit"),
             row("repq_vit compat", "w4a4", "repq_vit", simulate=True, compat="true")]
    rows += [row(f"fast, {n} images", "w4a4", "repquant", seed, n) for n in (8, 32, 128, 200) for seed in (0, 1, 2)]
    return rows


def key(r):
    options = " ".join(f"{k}={v}" for k, v in sorted(r["options"].items()))
    return f"{r['method']} {r['scheme']} seed={r['seed']} samples={r['samples']} simulate={r['simulate']} {options}".strip()


def without_paths(result):
    return {k: without_paths(v) if isinstance(v, dict) else v for k, v in result.items()
            if not isinstance(v, str) and k != "recipe"}


def run(command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"failed: {' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return without_paths(json.loads(done.stdout)["result"])


def measure(r, args, assets):
    model, val = assets / "vision/deit_tiny/deit_tiny.onnx", assets / "vision/imagenet/val"
    labels = assets / "vision/imagenet/val_labels.txt"
    sets = [f"--set={r['method']}.{k}={v}" for k, v in r["options"].items()]
    common = ["--json", "--threads", args.threads]
    score = ["--data", val, "--labels", labels, *common]
    if r["simulate"]:
        recipe = pathlib.Path(args.scratch) / "simulate.toml"
        recipe.write_text(f'version = 1\nscheme = "{r["scheme"]}"\n[data]\nsamples = {r["samples"]}\nseed = {r["seed"]}\n'
                          f'[[pass]]\nmethod = "{r["method"]}"\n'
                          + "".join(f"{k} = {v if v in ('true', 'false') else json.dumps(v)}\n"
                                    for k, v in r["options"].items()))
        return {"eval": run([args.bin / "repquant", "eval", model, "--simulate", recipe, "--calibration", assets / POOL,
                             "--baseline", model, *score])}
    out = pathlib.Path(args.scratch) / "row.rq.safetensors"
    made = run([args.bin / "repquant", "quantize", model, "-o", out, "--force", "--scheme", r["scheme"], "--method", r["method"],
                *sets, "--data", assets / POOL, "--samples", r["samples"], "--seed", r["seed"], "--resume", "never", *common])
    float_scores = run([args.bin / "repquant", "eval", out, "--baseline", model, *score])
    return {"quantize": {k: made[k] for k in ("bytes", "peak_memory_bytes", "seconds", "cpu_seconds")}, "eval": float_scores}


def eval_command(args, model, baseline, assets):
    return [args.bin / "repquant", "eval", model, *(["--baseline", baseline] if baseline else []), "--data",
            assets / "vision/imagenet/val", "--labels", assets / "vision/imagenet/val_labels.txt", "--json",
            "--threads", args.threads]


def quantize_command(args, assets, out, scheme, method, seed=0, threads=None):
    return [args.bin / "repquant", "quantize", assets / "vision/deit_tiny/deit_tiny.onnx", "-o", out, "--force", "--scheme",
            scheme, "--method", method, "--data", assets / POOL, "--seed", seed, "--resume", "never", "--json",
            "--threads", threads or args.threads]


def check_exports(args, assets):
    """Float scores of today's exporter's file and of the legacy exporter's."""
    subprocess.run([ROOT / ".venv/bin/python", ROOT / "tools/make_legacy_deit.py", args.scratch], check=True,
                   stdout=subprocess.DEVNULL)
    models = {"dynamo": assets / "vision/deit_tiny/deit_tiny.onnx",
              "legacy": pathlib.Path(args.scratch) / "deit_tiny_legacy.onnx"}
    return {name: run(eval_command(args, model, None, assets)) for name, model in models.items()}


def check_paired(args, assets):
    """repquant against strict repq_vit at W4A4, and both against round_to_nearest at W8A8, over the same images."""
    def made(scheme, method, seed):
        out = pathlib.Path(args.scratch) / f"{method}_{scheme}_{seed}.rq.safetensors"
        run(quantize_command(args, assets, out, scheme, method, seed))
        return out
    result = {}
    for seed in (0, 1, 2):
        result[f"repquant - repq_vit, w4a4, seed {seed}"] = run(eval_command(
            args, made("w4a4", "repquant", seed), made("w4a4", "repq_vit", seed), assets))
    for seed in (0, 1, 2):
        rounded = made("w8a8", "round_to_nearest", seed)
        for method in ("repq_vit", "repquant"):
            result[f"{method} - round_to_nearest, w8a8, seed {seed}"] = run(eval_command(
                args, made("w8a8", method, seed), rounded, assets))
    return result


def check_time(args, assets, rounds=3):
    """The whole quantize command with repq_vit against onnxruntime fp32 on 64 passes, one thread each, in turn."""
    out = pathlib.Path(args.scratch) / "timed.rq.safetensors"
    model = assets / "vision/deit_tiny/deit_tiny.onnx"
    passes = [ROOT / ".venv/bin/python", "-c", "import sys, time, numpy, onnxruntime as ort\n"
              "o = ort.SessionOptions(); o.intra_op_num_threads = 1\n"
              "s = ort.InferenceSession(sys.argv[1], o, providers=['CPUExecutionProvider'])\n"
              "x = {s.get_inputs()[0].name: numpy.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype('float32')}\n"
              "s.run(None, x); t = time.perf_counter()\n"
              "for _ in range(64): s.run(None, x)\n"
              "print(time.perf_counter() - t)", model]
    ours, theirs = [], []
    for _ in range(rounds):
        theirs.append(float(subprocess.run(list(map(str, passes)), check=True, capture_output=True, text=True).stdout))
        ours.append(run(quantize_command(args, assets, out, "w4a4", "repq_vit", threads=1))["seconds"])
    return {"quantize_seconds": ours, "onnxruntime_64_passes_seconds": theirs,
            "ratio": statistics.median(a / b for a, b in zip(ours, theirs))}


def check_bytes(args, assets):
    """SHA-256 of the artifact of the same command twice, and with 1 and 2 threads."""
    out = pathlib.Path(args.scratch) / "bytes.rq.safetensors"
    digests = {}
    for method in ("repq_vit", "repquant"):
        for name, threads in (("2 threads", 2), ("2 threads again", 2), ("1 thread", 1)):
            run(quantize_command(args, assets, out, "w4a4", method, threads=threads))
            digests[f"{method} w4a4, {name}"] = hashlib.sha256(out.read_bytes()).hexdigest()
    return digests


CHECKS = {"float scores of both exports": check_exports, "paired differences": check_paired, "time of quantize": check_time,
          "equal bytes": check_bytes}


def checks_page(stored):
    lines = []
    for name, scores in stored.get("float scores of both exports", {}).items():
        lines.append(f"- float, {name} exporter's file: top-1 {scores['top1']:.2f}, top-5 {scores['top5']:.2f}")
    for name, scores in stored.get("paired differences", {}).items():
        low, high = scores["difference_interval"]
        lines.append(f"- {name}: {scores['difference']:+.2f} points, 95 % interval [{low:+.2f}, {high:+.2f}]")
    if times := stored.get("time of quantize"):
        lines.append(f"- `quantize` with repq_vit W4A4, 32 images, one thread: {times['ratio']:.2f} times onnxruntime fp32 on 64 "
                     f"image passes (median of {len(times['quantize_seconds'])} rounds in turn)")
    digests = stored.get("equal bytes", {})
    for method in sorted({name.split()[0] for name in digests}):
        values = {digest for name, digest in digests.items() if name.startswith(method + " ")}
        lines.append(f"- {method} W4A4, twice with two threads and once with one: {'equal' if len(values) == 1 else 'DIFFERENT'} bytes")
    return lines


def load():
    return json.loads(STORE.read_text()) if STORE.exists() else {"rows": {}}


def save(data):
    STORE.parent.mkdir(parents=True, exist_ok=True)
    STORE.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")


def machine():
    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def figures(entry):
    scores = entry["eval"]
    made = entry.get("quantize", {})
    return (f"{scores['top1']:.2f}", f"{scores['top5']:.2f}",
            f"{scores['agreement']:.1f}" if "agreement" in scores else "", f"{scores['kl']:.3f}" if "kl" in scores else "",
            f"{made['cpu_seconds']:.0f}" if made else "", f"{made['peak_memory_bytes'] / 2**20:.0f}" if made else "",
            f"{made['bytes'] / 1e6:.2f}" if made else "simulated")


def table(rows, stored):
    lines = ["| row | scheme | images | seed | top-1 | top-5 | agreement | KL | CPU s | peak MiB | artifact MB |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]
    groups = {}
    for r in rows:
        entry = stored.get(key(r))
        if entry is None:
            continue
        lines.append(f"| {r['name']} | {r['scheme']} | {r['samples']} | {r['seed']} | " + " | ".join(figures(entry)) + " |")
        groups.setdefault((r["name"], r["scheme"]), []).append(entry["eval"]["top1"])
    means = [f"- {name} {scheme}: mean {statistics.mean(v):.2f} of {len(v)} seeds, standard deviation "
             f"{statistics.stdev(v):.2f}" for (name, scheme), v in groups.items() if len(v) > 1]
    return lines + ([""] + means if means else [])


def write_page(data):
    text = ["# Numbers", "",
            "DeiT-Tiny, the 650 validation images of the assets (float 80.46 top-1). Calibration images are drawn by seed from the",
            "first 200 of `imagenet/train`. Scored on the artifact by the integer runtime; \"simulated\" rows are fake-quantized float",
            f"(`eval --simulate`, the only way to score published levels). One image is 0.15 points. Machine: {data.get('machine', '')}.",
            "CPU s: processor time of all threads of `repquant quantize`, from start to finished artifact.", "",
            "Written by `tools/measure_deit.py headline ablations checks`. Other models: [models](models.md).", "", "## Headline", "", *table(headline(), data["rows"]), "",
            "## Ablations, W4A4", "", *table(ablations(), data["rows"]), "",
            "## Checks", "", *checks_page(data.get("checks", {})), ""]
    PAGE.write_text("\n".join(text))


RESULTS = [  # of the README: row, scheme, command
    ("round_to_nearest", "w8a8", "--preset round_to_nearest_w8a8"), ("round_to_nearest", "w4a4", "--preset round_to_nearest_w4a4"),
    ("repq_vit strict", "w6a6", "--preset repq_vit_w6a6"), ("repq_vit strict", "w4a4", "--preset repq_vit_w4a4"),
    ("repquant fast", "w8a8", "--preset repquant_w8a8"), ("repquant fast", "w6a6", "--preset repquant_w6a6"),
    ("repquant fast", "w4a8", "--preset repquant_w4a8"), ("repquant fast", "w4a4", "--preset repquant_w4a4"),
    ("repquant fast", "w3a3", "--preset repquant_w3a3"), ("repquant paper", "w4a4", "--scheme w4a4 --method repquant --set repquant.tier=paper"),
    ("repquant accurate", "w4a4", "--preset repquant_accurate_w4a4"),
    ("repquant accurate", "w3a4", "--scheme w3a4 --method repquant --set repquant.tier=accurate --samples 200"),
    ("repquant accurate", "w3a3", "--preset repquant_accurate_w3a3")]


def results_table(stored):
    lines = ["| method | scheme | `repquant quantize deit_tiny.onnx -o out.rq.safetensors --data train[0:200]` ... | top-1 % | MB | CPU s |",
             "|---|---|---|---|---|---|"]
    for name, scheme, command in RESULTS:
        entries = [stored[key(r)] for r in headline() if (r["name"], r["scheme"]) == (name, scheme) and key(r) in stored]
        if not entries:
            continue
        scores = [entry["eval"]["top1"] for entry in entries]
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        made = [entry["quantize"] for entry in entries]
        lines.append(f"| {name} | {scheme.upper()} | `{command}` | {statistics.mean(scores):.2f}{spread} | "
                     f"{made[0]['bytes'] / 1e6:.2f} | {statistics.mean(m['cpu_seconds'] for m in made):.0f} |")
    return "\n".join(lines)


def write_readme(data):
    """The table between the README's markers."""
    text = README.read_text()
    before, rest = text.split("<!-- results -->\n")
    README.write_text(f"{before}<!-- results -->\n{results_table(data['rows'])}\n<!-- /results -->" + rest.split("<!-- /results -->")[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["headline"], choices=["headline", "ablations", "checks", "page"])
    parser.add_argument("--build", default=ROOT / "build/release", type=pathlib.Path)
    parser.add_argument("--threads", default="2")
    parser.add_argument("--only", default=".", help="regular expression over the rows' keys")
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    args.bin = args.build / "bin"
    assets = pathlib.Path(os.environ.get("REPQUANT_ASSETS") or ROOT / "../shared/assets").resolve()
    rows = [r for w in args.what for r in {"headline": headline, "ablations": ablations, "checks": list, "page": list}[w]()]
    data = load()
    data["machine"] = machine()
    with tempfile.TemporaryDirectory() as args.scratch:
        for r in rows:
            k = key(r)
            if k in data["rows"] or not re.search(args.only, k):
                continue
            print(k, end="", flush=True)
            if args.dry_run:
                print()
                continue
            started = time.time()
            data["rows"][k] = measure(r, args, assets)
            save(data)
            print(f": top-1 {data['rows'][k]['eval']['top1']:.2f} ({time.time() - started:.0f} s)", flush=True)
        for name, check in CHECKS.items() if "checks" in args.what else []:
            if name in data.setdefault("checks", {}) or not re.search(args.only, name):
                continue
            print(name, flush=True)
            if not args.dry_run:
                data["checks"][name] = check(args, assets)
                save(data)
    save(data)
    write_page(data)
    write_readme(data)


if __name__ == "__main__":
    main()
