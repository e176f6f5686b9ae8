#!/usr/bin/env python3
"""int8 models by onnxruntime's own quantizer, and which of them is the fastest here.

quantize.py MODEL CALIBRATION.npy INPUT.npy --cache DIR --threads N makes static QDQ models, u8 activations and s8 weights
per channel: ranges {min-max, percentile} x {all nodes, linears only}. They lie under DIR by the digest of model,
calibration data and settings, and are made once. Prints {"progress": text} lines, then one {"variants": [...], "fastest":
name}; times are of INPUT.npy, variants in turn, the best of each.
"""
import argparse
import hashlib
import importlib
import inspect
import json
import os
import pathlib
import shutil
import tempfile
import time

from protocol import feeds_of, need, open_replies, open_session

REVISION = 1   # of what this file makes of its inputs
LINEARS = ["MatMul", "Gemm", "Conv"]
VARIANTS = [(method, nodes) for method in ("minmax", "percentile") for nodes in ("all", "linear")]
TIMED_SECONDS = 1.0   # a variant


class Reader:
    """The calibration items one by one; onnxruntime asks for ranges of them, to hold one item's tensors at a time."""

    def __init__(self, name, items):
        self.name, self.items = name, items
        self.set_range(0, len(items))

    def __len__(self):
        return len(self.items)

    def set_range(self, start_index, end_index):
        self.left = iter(self.items[start_index:end_index])

    def get_next(self):
        item = next(self.left, None)
        return None if item is None else {self.name: item[None]}


def digest_of(onnx, model, calibration, settings):
    sha = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    files = {pathlib.Path(model)}
    for tensor in onnx.load(model, load_external_data=False).graph.initializer:
        files |= {pathlib.Path(model).parent / e.value for e in tensor.external_data if e.key == "location"}
    for file in sorted(files) + [pathlib.Path(calibration)]:
        sha.update(file.read_bytes())
    return sha.hexdigest()


def remove_left_overs(cache):
    """Folders of runs that were killed."""
    for folder in cache.glob(".making_*"):
        try:
            os.kill(int(folder.name.split("_")[1]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (PermissionError, ValueError, IndexError):
            pass   # somebody else's


def prepare(model, folder):
    """Shapes inferred and the graph optimised, as onnxruntime's guide asks for before quantization."""
    pre_process = importlib.import_module("onnxruntime.quantization.shape_inference").quant_pre_process
    prepared = folder / "prepared.onnx"
    try:
        pre_process(str(model), str(prepared))
    except Exception:   # symbolic shape inference knows fewer ops than the rest
        pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    return prepared


def quantize(prepared, name, calibration, method, nodes, out):
    quantization = importlib.import_module("onnxruntime.quantization")
    methods = {"minmax": quantization.CalibrationMethod.MinMax, "percentile": quantization.CalibrationMethod.Percentile}
    reader = type("Items", (Reader, quantization.CalibrationDataReader), {})(name, calibration)
    more = {}
    if "calibration_cache_path" in inspect.signature(quantization.quantize_static).parameters and nodes == "linear":
        ranges = out.parent / f"{method}_ranges.json"   # of all nodes: those of the linears are among them
        more = {"calibration_cache_path": ranges} if ranges.is_file() else {}
    elif "calibration_cache_path" in inspect.signature(quantization.quantize_static).parameters:
        more = {"calibration_cache_path": out.parent / f"{method}_ranges.json"}
    quantization.quantize_static(
        str(prepared), str(out), reader, quant_format=quantization.QuantFormat.QDQ, per_channel=True,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=LINEARS if nodes == "linear" else None, calibrate_method=methods[method],
        extra_options={"CalibStridedMinMax": 1}, **more)


def make(reply, args, numpy, onnx, onnxruntime):
    """Name -> path, where possible; a variant that onnxruntime fails to make is reported and left out."""
    settings = {"revision": REVISION, "onnxruntime": onnxruntime.__version__, "activations": "u8", "weights": "s8 per channel"}
    paths, made, errors = {}, [], {}
    digests = {v: digest_of(onnx, args.model, args.calibration, {**settings, "method": v[0], "nodes": v[1]}) for v in VARIANTS}
    args.cache.mkdir(parents=True, exist_ok=True)
    remove_left_overs(args.cache)
    with tempfile.TemporaryDirectory(prefix=f".making_{os.getpid()}_", dir=args.cache) as temporary:
        folder, prepared = pathlib.Path(temporary), None
        for variant in VARIANTS:
            name, path = "_".join(variant), args.cache / digests[variant] / "model.onnx"
            paths[name] = path
            if path.is_file():
                continue
            try:
                prepared = prepared or prepare(args.model, folder)
                reply({"progress": f"onnxruntime int8: making {name}"})
                calibration = numpy.load(args.calibration)
                input_name = open_session(onnxruntime, args.model, 1).get_inputs()[0].name
                new = folder / f"{name}.onnx"
                quantize(prepared, input_name, calibration, *variant, new)
                ready = folder / f"{name}.ready"
                ready.mkdir()
                shutil.move(new, ready / "model.onnx")
                (ready / "settings.json").write_text(json.dumps(
                    {**settings, "method": variant[0], "nodes": variant[1], "items": len(calibration)}, indent=1) + "\n")
                made.append(name)
                try:
                    os.rename(ready, path.parent)
                except OSError:   # another run was faster
                    if not path.is_file():
                        raise
            except Exception as error:
                errors[name] = f"{type(error).__name__}: {error}"
                reply({"progress": f"onnxruntime int8: {name} could not be made: {errors[name]}"})
                del paths[name]
    return paths, made, errors


def times(paths, batch, onnxruntime, threads):
    sessions = {name: open_session(onnxruntime, path, threads) for name, path in paths.items()}
    feeds = {name: feeds_of(session, batch) for name, session in sessions.items()}
    best, spent = dict.fromkeys(sessions, float("inf")), 0.0
    while spent < TIMED_SECONDS * len(sessions) or spent == 0.0:
        for name, session in sessions.items():
            for timed in (False, True):
                begin = time.perf_counter()
                for feed in feeds[name]:
                    session.run(None, feed)
                took = time.perf_counter() - begin
                spent += took
                if timed:
                    best[name] = min(best[name], took)
    return best


def main():
    reply = open_replies()
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("calibration")
    parser.add_argument("input")
    parser.add_argument("--cache", type=pathlib.Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    numpy, onnx, onnxruntime = need(reply, "numpy", "onnx", "onnxruntime")
    paths, made, errors = make(reply, args, numpy, onnx, onnxruntime)
    if not paths:
        raise SystemExit("onnxruntime made no int8 model: " + next(iter(errors.values())))
    best = times(paths, numpy.ascontiguousarray(numpy.load(args.input)), onnxruntime, args.threads)
    fastest = min(best, key=best.get)
    reply({"variants": [{"name": n, "path": str(p), "best_ms": best[n] * 1e3, "cached": n not in made}
                        for n, p in paths.items()],
           "failed": errors, "fastest": fastest, "path": str(paths[fastest])})


if __name__ == "__main__":
    main()
