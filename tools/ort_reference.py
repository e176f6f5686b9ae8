#!/usr/bin/env python3
"""Runs a model in onnxruntime and stores inputs and outputs for tests: tools/ort_reference.py MODEL OUT NAME=SPEC...

SPEC is FILE.safetensors:TENSOR, float:2x3x8x8 (uniform in [-1, 1), fixed seed) or int:BOUND:1x64 (0 .. BOUND - 1). OUT is
a safetensors file with in.0, in.1, ... in the order of the model's inputs and out.0, ... in that of its outputs. Exits
with status 77 and one line that begins "assets missing:" when a Python package is absent.
"""
import os
import pathlib
import sys


def make(spec, seed, numpy, load_file):
    if spec.startswith("float:"):
        shape = [int(n) for n in spec.split(":")[1].split("x")]
        return numpy.random.default_rng(seed).uniform(-1, 1, shape).astype(numpy.float32)
    if spec.startswith("int:"):
        _, bound, shape = spec.split(":")
        return numpy.random.default_rng(seed).integers(0, int(bound), [int(n) for n in shape.split("x")])
    path, tensor = spec.rsplit(":", 1)
    return load_file(path)[tensor]


def main():
    model, out, *inputs = sys.argv[1:]
    try:
        import numpy
        import onnxruntime
        from safetensors.numpy import load_file, save_file
    except ImportError as error:
        print(f"assets missing: Python package {error.name}")
        sys.exit(77)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    specs = dict(item.split("=", 1) for item in inputs)
    feed = {}
    for index, value in enumerate(session.get_inputs()):
        feed[value.name] = make(specs[value.name], index, numpy, load_file)
    tensors = {f"in.{i}": array for i, array in enumerate(feed.values())}
    for index, array in enumerate(session.run(None, feed)):
        tensors[f"out.{index}"] = array
    temporary = pathlib.Path(out).with_suffix(f".{os.getpid()}.tmp")
    save_file({name: numpy.ascontiguousarray(array) for name, array in tensors.items()}, temporary)
    os.replace(temporary, out)


if __name__ == "__main__":
    main()
