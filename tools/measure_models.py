#!/usr/bin/env python3
"""Measures every model of the assets beside DeiT-Tiny: docs/numbers/models.json, and docs/models.md from it.

    tools/measure_models.py [--build build/release] [--threads 2] [--only REGEX] [--again] [--page] [--dry-run]

Each row quantizes with a shipped recipe or method, then scores the artifact by the integer runtime next to the float model
on data that did not calibrate (tools/prepare_assets.py makes the files). A model the program refuses leaves its message as
the row. Finished rows are not measured again, but with --again; --page writes the page from the file alone.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
STORE = ROOT / "docs/numbers/models.json"
PAGE = ROOT / "docs/models.md"
ASSETS = pathlib.Path(os.environ.get("REPQUANT_ASSETS") or ROOT / "../shared/assets")

CNN = {"w8a8": ["--preset", "cnn_w8a8"], "w4a8": ["--preset", "cnn_w4a8"], "w4a4": ["--preset", "cnn_w4a4"]}
# A network whose every layer is skipped by another path is one block, which trains for long.
CNN_SKIPS = {scheme: [*CNN[scheme], "--set", "repquant.blocks=off"] for scheme in ("w4a8", "w4a4")}
FAST = {scheme: ["--preset", f"repquant_{scheme}"] for scheme in ("w8a8", "w4a8", "w4a4")}


def imagenet(split):
    return [f"{ASSETS}/vision/imagenet/{split}"]


# title; model below the assets; calibration and scoring data (@ is the folder of prepared files); schemes
MODELS = {
    "resnet20": {"title": "ResNet-20, CIFAR-10", "model": "vision/resnet_cifar10/resnet20.onnx", "calibrate": ["@/cifar10_1.npz"],
                 "preprocess": ["--preprocess", "cifar10"], "score": ["@/cifar10_0.npz"], "samples": 64, "recipes": CNN},
    "mobilenet": {"title": "MobileNet v1 0.25, ImageNet", "model": "vision/mobilenet_v1_025/mobilenet.onnx",
                  "calibrate": [f"{ASSETS}/vision/imagenet/train[0:200]"], "preprocess": ["--preprocess", "mobilenet"],
                  "score": [*imagenet("val"), "--labels", f"{ASSETS}/vision/imagenet/val_labels.txt", "--label-offset", "1"],
                  "samples": 64, "recipes": CNN},
    "imdn_x2": {"title": "IMDN x2, Set5", "model": "super_resolution/imdn_x2/imdn_x2.onnx", "calibrate": ["@/sr_calibration.npz"],
                "score": ["@/set5/low", "--pairs", "@/set5/high", "--tile", "64:8"], "samples": 32, "recipes": {**CNN, **CNN_SKIPS}},
    "ngswin_x2": {"title": "NGswin x2, Set5", "model": "super_resolution/ngswin_x2/ngswin_x2.onnx",
                  "calibrate": ["@/sr_calibration.npz"], "score": ["@/set5/low", "--pairs", "@/set5/high", "--tile", "64:8"],
                  "samples": 4, "recipes": FAST},
    "ddpm": {"title": "DDPM U-Net, MNIST", "model": "diffusion/ddpm_mnist/unet.onnx", "calibrate": ["@/ddpm_calibration.npz"],
             "score": ["@/ddpm_eval.npz"], "samples": 64, "recipes": CNN},
    "dit": {"title": "DiT, MNIST", "model": "diffusion/dit_mnist/dit.onnx", "calibrate": ["@/dit_calibration.npz"],
            "score": ["@/dit_eval.npz"], "samples": 64, "recipes": FAST},
    "kwt1": {"title": "KWT-1, speech commands", "model": "audio/kwt1/kwt1.onnx", "calibrate": ["@/kwt1_calibration.npz"],
             "score": ["@/kwt1_eval.npz"], "samples": 48, "recipes": FAST},
    "ocr": {"title": "PP-OCRv4 recogniser", "model": "ocr/ch_PP-OCRv4_rec_infer.onnx", "calibrate": ["@/ocr_calibration.npz"],
            "score": ["@/ocr_eval.npz"], "samples": 32, "recipes": FAST},
}


def run(command):
    """(result, message): one of them is None."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    document = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    if done.returncode != 0:
        return None, document.get("error", {}).get("message") or done.stderr[-300:]
    return document["result"], None


def plain(result):
    """Figures alone: names and paths are of this machine."""
    return {k: plain(v) if isinstance(v, dict) else v for k, v in result.items()
            if not isinstance(v, (str, list)) or k.endswith("interval")}


def measure(name, scheme, args):
    setup = MODELS[name]
    words = lambda part: [w.replace("@", str(args.data)) for w in setup.get(part, [])]
    model, out = ASSETS / setup["model"], args.scratch / f"{name}_{scheme}.rq.safetensors"
    common = ["--json", "-q", "--threads", args.threads]
    made, refused = run([args.program, "quantize", model, "-o", out, "--force", "--resume", "never", *setup["recipes"][scheme],
                         "--data", *words("calibrate"), *words("preprocess"), "--samples", setup["samples"], *common])
    if refused:
        return {"refused": refused}
    scores, refused = run([args.program, "eval", out, "--baseline", model, "--data", *words("score"), *common])
    if refused:
        return {"refused": refused}
    return {"recipe": " ".join(setup["recipes"][scheme]), "samples": setup["samples"],
            "quantize": {k: made[k] for k in ("bytes", "model_bytes", "cpu_seconds")}, "eval": plain(scores)}


METRICS = [("top1", "top-1 %", 2), ("psnr", "PSNR-Y dB", 3), ("mse", "noise MSE", 5)]


def cells(row):
    scores = row["eval"]
    metric = next(((title, f"{scores['baseline'][key]:.{digits}f}", f"{scores[key]:.{digits}f}")
                   for key, title, digits in METRICS if key in scores), ("", "", ""))
    optional = lambda key, digits: f"{scores[key]:.{digits}f}" if key in scores else ""
    return [*metric, optional("agreement", 2), optional("snr", 2), str(scores["count"]), f"{row['quantize']['model_bytes'] / 1e6:.2f}",
            f"{row['quantize']['bytes'] / 1e6:.2f}", f"{row['quantize']['cpu_seconds']:.0f}"]


def page(store):
    lines = ["# Models", "",
             "Every model of the assets but DeiT-Tiny ([its page](numbers.md)). Artifacts are scored by the integer runtime on data that",
             "did not calibrate. Agreement: the same class as float, per cent of items or positions; SNR: of the outputs against",
             "float, dB; one metric a model, float and artifact side by side. Super-resolution in tiles of 64 with 8 pixels of margin,",
             "both sides. Written by `tools/measure_models.py` from [numbers/models.json](numbers/models.json).", "",
             "| model | scheme | recipe | metric | float | artifact | agreement | SNR | items | model MB | artifact MB | CPU s |",
             "|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
    refused = []
    for name, setup in MODELS.items():
        for scheme in setup["recipes"]:
            row = store.get(f"{name} {scheme}")
            if row is None:
                continue
            if "refused" in row:
                refused.append(f"- {setup['title']}, {scheme.upper()}: {row['refused']}")
                continue
            recipe = row["recipe"].replace("--preset ", "")
            lines.append(f"| {setup['title']} | {scheme.upper()} | `{recipe}` | " + " | ".join(cells(row)) + " |")
    if refused:
        lines += ["", "Not there yet, with what the program says:", "", *refused]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--data", type=pathlib.Path, help="prepared files (default: made anew)")
    parser.add_argument("--only", default="", help="rows whose name matches, for example 'mobilenet w8a8'")
    for flag in ("--again", "--page", "--dry-run"):
        parser.add_argument(flag, action="store_true")
    args = parser.parse_args()
    args.program = args.build / "bin/repquant"
    store = json.loads(STORE.read_text()) if STORE.is_file() else {}
    rows = [(name, scheme) for name, setup in MODELS.items() for scheme in setup["recipes"]
            if re.search(args.only, f"{name} {scheme}") and (args.again or "eval" not in store.get(f"{name} {scheme}", {}))]
    with tempfile.TemporaryDirectory() as scratch:
        args.scratch = pathlib.Path(scratch)
        if rows and not args.data and not args.page and not args.dry_run:
            args.data = args.scratch / "data"
            subprocess.run([ROOT / ".venv/bin/python", ROOT / "tools/prepare_assets.py", args.data], check=True)
        for name, scheme in rows if not args.page else []:
            if args.dry_run:
                print(name, scheme)
                continue
            store[f"{name} {scheme}"] = measure(name, scheme, args)
            print(name, scheme, json.dumps(store[f"{name} {scheme}"].get("eval") or store[f"{name} {scheme}"]), flush=True)
            STORE.parent.mkdir(parents=True, exist_ok=True)
            STORE.write_text(json.dumps(store, indent=1, sort_keys=True) + "\n")
    if not args.dry_run:
        PAGE.write_text(page(store))


if __name__ == "__main__":
    main()
