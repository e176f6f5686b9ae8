#!/usr/bin/env python3
"""From float to 4 bits on one model, by the programs of build/release: what `make demo` runs.

Environment: MODEL and DATA (a folder of images; sub-folders train and val, where there are both, calibrate and score) take
the user's own, LABELS the label file of the scored images, PREPROCESS a preset of --preprocess; DEMO=full scores all
10,000 images of the built-in demo; DEMO_BUILD names another build.
"""
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("DEMO_BUILD") or ROOT / "build" / "release")
FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
PRESETS = ["round_to_nearest_w4a4", "repq_vit_w4a4", "repquant_w4a4", "repquant_w3a3", "repquant_w8a8"]
COLUMNS = "{:<26}{:>8}{:>18}{:>12}{:>10}{:>11}{:>9}"


def ask(program, *arguments):
    """Runs a program with --json; its progress goes to our standard error."""
    command = [str(BUILD / "bin" / program), *map(str, arguments), "--json"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if answer.returncode != 0:   # what failed stands on standard error already
        sys.exit(answer.returncode)
    return json.loads(answer.stdout)["result"]


def built_in(out):
    """Model, calibration, evaluation and common options of the demo on Fashion-MNIST."""
    if not FASHION.is_dir():
        sys.exit(f"demo: {FASHION} is missing (Debian package dataset-fashion-mnist)")
    names = json.loads((ROOT / "models" / "demo_vit.json").read_text())["classes"]
    (out / "classes.txt").write_text("".join(name + "\n" for name in names))
    images = 10000 if os.environ.get("DEMO") == "full" else 2000
    return {"model": ROOT / "models" / "demo_vit.onnx", "calibrate": FASHION / "train-images-idx3-ubyte.gz",
            "score": f"{FASHION / 't10k-images-idx3-ubyte.gz'}[0:{images}]", "overlap": [], "labels": None,
            "common": ["--preprocess", "fashion_mnist"], "names": ["--class-names", out / "classes.txt"],
            "title": f"Vision transformer on Fashion-MNIST, {images} test images"}


def option(name, value):
    return [name, value] if value else []


def users_own():
    model, data = pathlib.Path(os.environ["MODEL"]), pathlib.Path(os.environ["DATA"])
    setup = {"model": model, "calibrate": data, "score": str(data), "overlap": ["--force-overlap"], "names": [],
             "common": option("--preprocess", os.environ.get("PREPROCESS")), "labels": os.environ.get("LABELS"),
             "title": f"{model.name} on {data.name}"}
    if (data / "train").is_dir() and (data / "val").is_dir():
        setup.update(calibrate=data / "train", score=str(data / "val"), overlap=[])
    else:
        print("demo: calibration images are among the scored ones; sub-folders train and val would part them",
              file=sys.stderr)
    return setup


def row_of(name, scheme, scores, size, seconds):
    row = {"name": name, "scheme": scheme, "bytes": size, "seconds": seconds}
    for key in ("top1", "top5", "count", "top1_interval", "agreement", "kl", "difference", "difference_interval"):
        if key in scores:
            row[key] = scores[key]
    return row


def line_of(row):
    def cell(key, form, scale=1):
        return form.format(row[key] * scale) if row.get(key) is not None else "-"
    interval = "[{:.2f}, {:.2f}]".format(*row["top1_interval"]) if "top1_interval" in row else "-"
    return COLUMNS.format(row["name"], cell("top1", "{:.2f}"), interval, cell("agreement", "{:.2f}"), cell("kl", "{:.4f}"),
                          cell("bytes", "{:.2f}", 1e-6), cell("seconds", "{:.1f}"))


def quantize(setup, preset, out):
    artifact = out / f"{preset}.rq.safetensors"
    done = ask("repquant", "quantize", setup["model"], "-o", artifact, "--preset", preset, "--force", "--resume", "never",
               "--data", setup["calibrate"], "--eval-data", setup["score"], *option("--eval-labels", setup["labels"]),
               *setup["overlap"], *setup["common"], *setup["names"])
    record = json.loads(pathlib.Path(done["run_record"]).read_text())
    return artifact, done, {**record, "title": preset}


def compare_with_baseline(setup, artifacts):
    """RepQuant against round to nearest at the same bits, image by image."""
    result = ask("repquant-run", "eval", artifacts["repquant_w4a4"], "--baseline", artifacts["round_to_nearest_w4a4"],
                 "--data", setup["score"], *option("--labels", setup["labels"]))
    if "difference" in result:
        low, high = result["difference_interval"]
        print(f"\nrepquant_w4a4 - round_to_nearest_w4a4: {result['difference']:+.2f} points of top-1, "
              f"95 % interval [{low:+.2f}, {high:+.2f}], paired over {result['count']} images")


def main():
    started = time.monotonic()
    if bool(os.environ.get("MODEL")) != bool(os.environ.get("DATA")):
        sys.exit("demo: MODEL and DATA go together: make demo MODEL=model.onnx DATA=folder [LABELS=file]")
    out = ROOT / "runs" / "demo"
    out.mkdir(parents=True, exist_ok=True)
    setup = users_own() if os.environ.get("MODEL") else built_in(out)
    rows, runs, artifacts = [], [], {}
    print(setup["title"] + "\n")
    head = COLUMNS.format("", "top-1 %", "95 % interval", "agreement", "KL", "MB", "s")
    print(head + "\n" + "-" * len(head), flush=True)
    for preset in PRESETS:
        artifacts[preset], done, run = quantize(setup, preset, out)
        scores = done["metrics"]
        if not rows:
            rows.append(row_of("float", "float", scores["before"], done["model_bytes"], None))
            print(line_of(rows[0]), flush=True)
        rows.append(row_of(preset, run["recipe"]["scheme"], {**scores["after"], **scores["difference"]}, done["bytes"],
                           done["seconds"]))
        runs.append(run)
        print(line_of(rows[-1]), flush=True)
    compare_with_baseline(setup, artifacts)
    record = out / "demo.run.json"
    record.write_text(json.dumps({"schema": "repquant/1", "title": setup["title"], "rows": rows, "measurements": [],
                                  "runs": runs}, indent=1))
    report = out / "report.html"
    ask("repquant", "report", record, "--format", "html", "-o", report)
    print(f"report: {os.path.relpath(report)}   ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    main()
