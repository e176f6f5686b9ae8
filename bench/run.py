#!/usr/bin/env python3
"""Speed of real models against onnxruntime, by `repquant bench`: scenarios into docs/numbers/bench.json and docs/bench.md.

    bench/run.py [--build build/release] [--rounds 21] [--threads 1] [--only REGEX] [--dry-run] [--page]
    bench/run.py --short      the demo model, few rounds, nothing written: what `make bench` runs

Scenarios "... start" time whole processes of repquant-run, from start to the answer for one array, in turn with
`repquant-run --version` (process start alone).

Artifacts are made by the program's own `quantize` and kept under ${XDG_CACHE_HOME:-~/.cache}/repquant/bench/artifacts.
Assets: REPQUANT_ASSETS (default ../shared/assets beside the checkout). A scenario measured again replaces its row, with its
machine; --page writes the page from the file alone. Other work on the machine spoils the figures.
"""
import argparse
import array
import hashlib
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
STORE = ROOT / "docs/numbers/bench.json"
PAGE = ROOT / "docs/bench.md"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "repquant/bench/artifacts"
ASSETS = pathlib.Path(os.environ.get("REPQUANT_ASSETS") or ROOT / "../shared/assets")

# name, model and data below ASSETS (@/: a file of tools/prepare_assets.py, kept beside the artifacts), recipe; the first
# artifact of a model is also a contender of the others.
MODELS = {
    "deit_tiny": {"title": "DeiT-Tiny", "model": "vision/deit_tiny/deit_tiny.onnx", "data": "vision/imagenet/train[0:200]",
                  "schemes": ["w8a8", "w4a4"], "options": ["--method", "repquant", "--set", "repquant.tier=fast"]},
    "resnet20": {"title": "ResNet-20", "model": "vision/resnet_cifar10/resnet20.onnx", "data": "@/cifar10_1.npz",
                 "schemes": ["w8a8", "w4a4"], "preset": "cnn", "preprocess": ["--preprocess", "cifar10"]},
    "mobilenet": {"title": "MobileNet v1 0.25", "model": "vision/mobilenet_v1_025/mobilenet.onnx",
                  "data": "vision/imagenet/train[0:200]", "schemes": ["w8a8"], "preset": "cnn",
                  "preprocess": ["--preprocess", "mobilenet"]},
    "imdn_x2": {"title": "IMDN x2, a tile of 64", "model": "super_resolution/imdn_x2/imdn_x2.onnx", "data": "@/sr_calibration.npz",
                "schemes": ["w8a8"], "preset": "cnn"},
    "ngswin_x2": {"title": "NGswin x2, a tile of 64", "model": "super_resolution/ngswin_x2/ngswin_x2.onnx",
                  "data": "@/sr_calibration.npz", "schemes": ["w8a8"], "options": ["--method", "repquant"], "batches": [1]},
    "kwt1": {"title": "KWT-1", "model": "audio/kwt1/kwt1.onnx", "data": "@/kwt1_calibration.npz", "schemes": ["w8a8"],
             "options": ["--method", "repquant"]},
    "ocr": {"title": "PP-OCRv4 recogniser", "model": "ocr/ch_PP-OCRv4_rec_infer.onnx", "data": "@/ocr_calibration.npz",
            "schemes": ["w8a8"], "options": ["--method", "repquant"]},
}
BATCHES = (1, 8)


def scenarios():
    """Each model against onnxruntime; DeiT-Tiny also against its lower rows, and two threads against one."""
    rows = [{"name": f"{model} {scheme} batch {batch}", "model": model, "scheme": scheme, "batch": batch}
            for model, setup in MODELS.items() for batch in setup.get("batches", BATCHES) for scheme in setup["schemes"]]
    for scheme in MODELS["deit_tiny"]["schemes"]:
        one = {"model": "deit_tiny", "scheme": scheme, "batch": 1}
        rows += [{**one, "name": f"deit_tiny {scheme} lower rows", "against": "isa:avxvnni,isa:avx2"},
                 {**one, "name": f"deit_tiny {scheme} two threads", "against": "threads:1", "threads": 2}]
    return rows


STARTS = ("deit_tiny w8a8 start", "deit_tiny w4a4 start")


def source(setup):
    """The calibration data; prepared files are made once."""
    if not setup["data"].startswith("@/"):
        return ASSETS / setup["data"]
    folder = CACHE.parent / "data"
    if not (folder / setup["data"][2:]).is_file():
        subprocess.run([os.environ.get("REPQUANT_PYTHON") or ROOT / ".venv/bin/python", ROOT / "tools/prepare_assets.py", folder],
                       check=True, stdout=sys.stderr)
    return folder / setup["data"][2:]


def ask(program, *words):
    """The result of a program run with --json; what it says on the way goes to our standard error."""
    done = subprocess.run([str(program), *map(str, words), "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:   # what failed stands on standard error already
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def artifact(program, model, scheme):
    """Made once a program and recipe."""
    setup = MODELS[model]
    recipe = ["--preset", f"{setup['preset']}_{scheme}"] if "preset" in setup else ["--scheme", scheme, *setup["options"]]
    words = [*recipe, *setup.get("preprocess", []), "--samples", 32]
    key = hashlib.sha256(json.dumps([[str(w) for w in words], setup["data"]]).encode())
    key.update(program.resolve().read_bytes())
    out = CACHE / key.hexdigest()[:16] / f"{model}_{scheme}.rq.safetensors"
    if not out.is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        ask(program, "quantize", ASSETS / setup["model"], "-o", out, "--data", source(setup), *words)
    return out


def measure(args, scenario):
    setup = MODELS[scenario["model"]]
    against = scenario.get("against", "onnxruntime")
    if "against" not in scenario and scenario["scheme"] != setup["schemes"][0]:
        against += f",artifact:{artifact(args.program, scenario['model'], setup['schemes'][0])}"
    document = ask(args.program, "bench", artifact(args.program, scenario["model"], scenario["scheme"]), "--against", against,
                   "--float", ASSETS / setup["model"], "--data", source(setup), *setup.get("preprocess", []),
                   "--batch", scenario["batch"], "--rounds", args.rounds, "--threads", scenario.get("threads", args.threads))
    return {"day": time.strftime("%Y-%m-%d"), **without_paths(document["result"], setup["schemes"][0])}


def process_ms(*words):
    started = time.perf_counter()
    subprocess.run([str(w) for w in words], stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - started) * 1e3


def measure_start(args, name):
    model, scheme, _ = name.split()
    program = args.program.with_name("repquant-run")
    file = artifact(args.program, model, scheme)
    samples = {"process": [], "start": []}
    with tempfile.TemporaryDirectory() as folder:
        item = pathlib.Path(folder) / "item.npy"
        count = 3 * 224 * 224
        header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 224, 224), }"
        header = header.ljust(117) + "\n"   # 10 + 118 bytes: a multiple of 64
        item.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
                         + array.array("f", ((i * 37 % 255) / 127.0 - 1 for i in range(count))).tobytes())
        for _ in range(args.rounds + 1):   # the first reads the files into memory
            samples["process"].append(process_ms(program, "--version"))
            samples["start"].append(process_ms(program, "run", file, "--input", item, "--threads", args.threads))
    doctor = ask(args.program, "doctor")
    kept = {k: sorted(round(ms, 3) for ms in v[1:]) for k, v in samples.items()}
    return {"day": time.strftime("%Y-%m-%d"), "rounds": args.rounds, "threads": args.threads,
            "cpu": doctor["machine"]["cpu"], "isa": doctor["machine"]["isa"], "milliseconds": kept}


def start_lines(store):
    lines = ["## Start of repquant-run", "",
             "Whole processes: `repquant-run run ARTIFACT --input item.npy`, from start to the printed answer, in turn with",
             "`repquant-run --version`. Median (10 .. 90 %) in milliseconds.", "",
             "| artifact | first answer | process alone | machine |", "|---|---:|---:|---|"]
    for name in STARTS:
        row = store[name]
        cells = []
        for kind in ("start", "process"):
            ms = row["milliseconds"][kind]
            cells.append(f"{statistics.median(ms):.1f} ({ms[len(ms) // 10]:.1f} .. {ms[len(ms) * 9 // 10]:.1f})")
        lines.append(f"| {name.removesuffix(' start')} | {' | '.join(cells)} | {row['cpu']}, {row['isa']}, {row['threads']} "
                     f"thread{'s' * (row['threads'] != 1)}, {row['rounds']} runs |")
    return lines + [""]


def without_paths(result, first):
    """Names and figures: paths are of this machine, and steps are in `repquant bench --json`."""
    kept = {key: value for key, value in result.items() if key not in ("artifact", "probes")}
    rename = {name: f"repquant_{first}" for name in result["contenders"] if name.startswith("artifact:")}
    for table in ("contenders", "ratios", "ratio_spread"):
        kept[table] = {rename.get(name, name): value for name, value in result[table].items()}
    for times in kept["contenders"].values():
        times["samples"] = [round(ms, 4) for ms in times["samples"]]
    kept["profile"] = {key: value for key, value in result["profile"].items() if key != "steps"}
    return kept


def milliseconds(row):
    return f"{row['median_ms']:.2f} ({row['p10_ms']:.2f} .. {row['p90_ms']:.2f})"


def page(store):
    lines = ["# Speed", "",
             "Written by `bench/run.py` from [numbers/bench.json](numbers/bench.json), which has every sample. Milliseconds a call,",
             "median of the rounds and (10 .. 90 %); ratio: median over the rounds of contender / repquant, measured in",
             "alternating windows of one run, so 2 means that repquant takes half the time. From float input to float output on",
             "every side. onnxruntime_int8 is the fastest of four static QDQ models that onnxruntime's own quantizer makes from",
             "the same images (min-max or percentile ranges, all nodes or linears only). SQNR: of the answers, against float.", ""]
    if not store:
        lines.append("Nothing is measured yet.")
    if all(name in store for name in STARTS):
        lines += start_lines(store)
    for name, row in store.items():
        if name in STARTS:
            continue
        machine = row["machine"]
        versions = ", ".join(f"{k} {v}" for k, v in row["versions"].items() if k != "python")
        lines += [f"## {name}", "",
                  f"{machine['cpu']}, {machine['isa']}, {machine['threads']} thread{'s' * (machine['threads'] != 1)}, "
                  f"{row['rounds']} rounds, {row['day']}, {versions}.", "",
                  "| contender | ms | ratio | 10 .. 90 % | SQNR dB |", "|---|---:|---:|---:|---:|"]
        for contender, times in sorted(row["contenders"].items(), key=lambda item: (item[0] != "repquant", item[0])):
            ratio = row["ratios"].get(contender)
            spread = row["ratio_spread"].get(contender)
            label = f"{contender} ({times['variant']})" if "variant" in times else contender
            cells = [label, milliseconds(times), f"{ratio:.2f}" if ratio else "",
                     f"{spread[0]:.2f} .. {spread[1]:.2f}" if spread else "",
                     f"{times['sqnr_db']:.1f}" if times.get("sqnr_db") is not None else ""]
            lines.append(f"| {' | '.join(cells)} |")
        profile = row["profile"]
        lines += ["", f"repquant's time: products {profile['gemm_ms']:.2f} ms, attention {profile['attention_ms']:.2f} ms, the rest "
                  f"{profile['other_ms']:.2f} ms. Register peak {machine['register_peak_gops']:.0f} Gop/s"
                  + (f" ({machine['register_peak_gain']:.2f} times that of one thread)" if machine["threads"] > 1 else "") + ", memory "
                  f"{machine['read_gb_per_s']:.1f} GB/s, clock {machine['clock_ghz']:.2f} GHz.", ""]
    return "\n".join(lines).rstrip() + "\n"


def short(args):
    """The demo model against onnxruntime and our float interpreter; nothing is kept."""
    python = ROOT / ".venv/bin/python"
    has = subprocess.run([os.environ.get("REPQUANT_PYTHON") or (python if python.exists() else "python3"), "-c",
                          "import onnx, onnxruntime"], capture_output=True).returncode == 0
    if not has:
        print("bench: onnxruntime is not installed: against float alone", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        model, data = ROOT / "models/demo_vit.onnx", pathlib.Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")
        source = ["--data", data] if data.is_file() else []
        out = pathlib.Path(folder) / "demo.rq.safetensors"
        scheme = ["--preset", "repquant_w4a4"] if source else ["--method", "round_to_nearest", "--scheme", "w8a8"]
        ask(args.program, "quantize", model, "-o", out, *source, *scheme, "--samples", 32, "-q")
        done = subprocess.run([str(args.program), "bench", str(out), "--against", "onnxruntime,float" if has else "float",
                               "--rounds", str(args.rounds or 5), "--threads", str(args.threads)])
    sys.exit(done.returncode)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="scenarios whose name matches")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--out", type=pathlib.Path, help="folder of bench.json and bench.md instead of docs")
    args = parser.parse_args()
    args.program = args.build / "bin/repquant"
    if args.short:
        short(args)
    args.rounds = args.rounds or 21
    store_path, page_path = (args.out / "bench.json", args.out / "bench.md") if args.out else (STORE, PAGE)
    store = json.loads(store_path.read_text()) if store_path.is_file() else {}
    for scenario in scenarios() if not args.page else []:
        if not re.search(args.only, scenario["name"]):
            continue
        if args.dry_run:
            print(scenario["name"])
            continue
        if not (ASSETS / MODELS[scenario["model"]]["model"]).is_file():
            print(f"assets missing: {scenario['name']}: {MODELS[scenario['model']]['model']}", file=sys.stderr)
            continue
        print(f"bench: {scenario['name']}", file=sys.stderr)
        store[scenario["name"]] = measure(args, scenario)
        store_path.parent.mkdir(parents=True, exist_ok=True)
        store_path.write_text(json.dumps(store, indent=1) + "\n")
    for name in STARTS if not args.page else []:
        if not re.search(args.only, name):
            continue
        print(name if args.dry_run else f"bench: {name}", file=sys.stdout if args.dry_run else sys.stderr)
        if not args.dry_run and (ASSETS / MODELS[name.split()[0]]["model"]).is_file():
            store[name] = measure_start(args, name)
    if not args.dry_run:
        store_path.parent.mkdir(parents=True, exist_ok=True)
        store_path.write_text(json.dumps(store, indent=1) + "\n")
        page_path.write_text(page(store))
        for name, row in store.items():
            if name in STARTS:
                continue
            print(f"{name:<28}" + "  ".join(f"{k} {v:.2f}" for k, v in row["ratios"].items()))


if __name__ == "__main__":
    main()
