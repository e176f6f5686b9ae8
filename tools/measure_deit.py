#!/usr/bin/env python3
"""Measures DeiT-Tiny: every figure of docs/numbers.md, by one command that goes on where it stopped.

    tools/measure_deit.py [headline] [ablations] [--build build/release] [--threads 2] [--only REGEX] [--dry-run]

headline: the rows of the results table, seeds 0, 1, 2. ablations: W4A4, seed 0 (clipping, reconstruction, strict
against compat, number of images with three seeds). Each row quantizes, then scores the artifact with repquant-run on
the 650 images of imagenet/val; calibration images come from the first 200 of imagenet/train. Finished rows lie in
docs/numbers/deit_tiny.json and are not measured again; afterwards docs/numbers.md is written from that file alone.
"""
import argparse
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
        rows += [row("repquant paper", s, "repquant", seed, 128, tier="paper") for s in ("w4a4", "w6a6")]
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
    return {"quantize": {k: made[k] for k in ("bytes", "peak_memory_bytes", "seconds")}, "eval": float_scores}


def load():
    return json.loads(STORE.read_text()) if STORE.exists() else {"rows": {}}


def save(data):
    """Files are named without their folders: where they lay says nothing to others."""
    for entry in data["rows"].values():
        for scores in (entry["eval"], entry["eval"].get("baseline", {})):
            if "model" in scores:
                scores["model"] = pathlib.PurePath(scores["model"]).name
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
            f"{made['seconds']:.0f}" if made else "", f"{made['peak_memory_bytes'] / 2**20:.0f}" if made else "",
            f"{made['bytes'] / 1e6:.2f}" if made else "simulated")


def table(rows, stored):
    lines = ["| row | scheme | images | seed | top-1 | top-5 | agreement | KL | s | peak MiB | artifact MB |",
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
            "Seconds are wall time of `repquant quantize` with two threads on a shared machine.", "",
            "Written by `tools/measure_deit.py headline ablations`.", "", "## Headline", "", *table(headline(), data["rows"]), "",
            "## Ablations, W4A4", "", *table(ablations(), data["rows"]), ""]
    PAGE.write_text("\n".join(text))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["headline"], choices=["headline", "ablations", "page"])
    parser.add_argument("--build", default=ROOT / "build/release", type=pathlib.Path)
    parser.add_argument("--threads", default="2")
    parser.add_argument("--only", default=".", help="regular expression over the rows' keys")
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    args.bin = args.build / "bin"
    assets = pathlib.Path(os.environ.get("REPQUANT_ASSETS") or ROOT / "../shared/assets").resolve()
    rows = [r for w in args.what for r in {"headline": headline, "ablations": ablations, "page": list}[w]()]
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
    save(data)
    write_page(data)


if __name__ == "__main__":
    main()
