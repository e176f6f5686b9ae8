#!/usr/bin/env python3
"""Quantizes models of the assets and asks whether their artifacts answer with the same bits everywhere.

    tools/check_bits.py [--build build/release] [--data PREPARED] [--artifacts FOLDER] [--only REGEX]

DeiT-Tiny, the demo transformer and ResNet-20: every instruction set of the machine, 1, 2 and 3 threads, batches of 1, 3 and 8.
The other models: every instruction set, 1 and 2 threads, batch 1. Each after `verify` held every step against the simulator.
Prints a row an artifact with the sha256 of its answers, which two machines can compare; exit code 1 when one differs.
Artifacts are kept in FOLDER and not made again; PREPARED is what tools/prepare_assets.py wrote (default: made anew).
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

from measure_models import ASSETS, MODELS, ROOT

IMAGENET = f"{ASSETS}/vision/imagenet"
FULL = {
    "deit_tiny": {"model": f"{ASSETS}/vision/deit_tiny/deit_tiny.onnx", "calibrate": [f"{IMAGENET}/train[0:200]"],
                  "samples": 32, "recipes": {scheme: ["--preset", f"repquant_{scheme}"] for scheme in ("w8a8", "w4a8", "w4a4")}},
    "demo_vit": {"model": str(ROOT / "models/demo_vit.onnx"), "calibrate": [f"{ASSETS}/vision/mnist/t10k-images-idx3-ubyte.gz[0:1000]"],
                 "samples": 32, "recipes": {scheme: ["--preset", f"repquant_{scheme}"] for scheme in ("w8a8", "w4a4")}},
    "resnet20": MODELS["resnet20"],
}


def data_only(words):
    """The data, without what scores it."""
    return words[:1]


def check(name, scheme, setup, args):
    """(row, whether it holds)"""
    fill = lambda words: [w.replace("@", str(args.data)) for w in words]
    artifact = args.artifacts / f"{name}_{scheme}.rq.safetensors"
    preprocess = fill(setup.get("preprocess", []))
    if not artifact.is_file():
        made = subprocess.run([args.program, "quantize", ASSETS / setup["model"], "-o", artifact, "--resume", "never", "-q",
                               *setup["recipes"][scheme], "--data", *data_only(fill(setup["calibrate"])), *preprocess,
                               "--samples", str(setup["samples"])], capture_output=True, text=True)
        if made.returncode != 0:
            return f"{name} {scheme}: not quantized: {made.stderr.strip()[-200:]}", made.returncode == 4  # not supported is an answer
    form = "full" if name in FULL else "short"
    done = subprocess.run([args.build / "bin/repquant-run", "verify", artifact, "--data", *data_only(fill(setup["calibrate"])),
                           "--samples", "1", "--matrix", form, "--json", "-q"], capture_output=True, text=True)
    document = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    matrix = document.get("result", {}).get("matrix")
    if matrix is None or done.returncode != 0:
        return f"{name} {scheme}: {document.get('error', {}).get('message') or done.stderr[-200:]}", False
    return (f"| {name} | {scheme.upper()} | {matrix['combinations']} | {matrix['items']} | "
            f"{document['result']['comparisons']} | `{matrix['digest'][:16]}` |"), True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--artifacts", type=pathlib.Path)
    parser.add_argument("--only", default="", help="rows whose name matches, for example 'mobilenet w8a8'")
    args = parser.parse_args()
    args.program = args.build / "bin/repquant"
    rows = [(name, scheme, setup) for name, setup in {**FULL, **{k: v for k, v in MODELS.items() if k not in FULL}}.items()
            for scheme in setup["recipes"] if re.search(args.only, f"{name} {scheme}")]
    print("| model | scheme | combinations | items | steps held against the simulator | sha256 of the answers |\n|---|---|---:|---:|---:|---|")
    good = True
    with tempfile.TemporaryDirectory() as scratch:
        if args.data is None:
            args.data = pathlib.Path(scratch) / "data"
            subprocess.run([ROOT / ".venv/bin/python", ROOT / "tools/prepare_assets.py", args.data], check=True)
        args.artifacts = args.artifacts or pathlib.Path(scratch)
        args.artifacts.mkdir(parents=True, exist_ok=True)
        for name, scheme, setup in rows:
            row, held = check(name, scheme, setup, args)
            good &= held
            print(row, flush=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
