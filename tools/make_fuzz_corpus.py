#!/usr/bin/env python3
"""Writes the seeds of the ONNX fuzz target: tools/make_fuzz_corpus.py [fuzz/corpus/onnx]. Needs the package onnx.

Small whole models, one for each way an importer is entered: attention as two exporters write it, LayerNorm decomposed,
convolution with BatchNorm, quantized ops, If, a model-local function, old opsets, every element type as raw and typed data.
"""
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(0)


def weight(name, *shape):
    return numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), name)


def ints(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def model(nodes, weights, in_shape, out_shape, opset=18, functions=(), ir=8):
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, in_shape)],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, out_shape)], weights)
    imports = [helper.make_opsetid("", opset)] + [helper.make_opsetid(f.domain, 1) for f in functions]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=ir)


def attention(opset):
    node = helper.make_node
    nodes = [node("MatMul", ["x", "w"], ["qkv0"]), node("Add", ["qkv0", "b"], ["qkv"]),
             node("Reshape", ["qkv", "split"], ["r"]), node("Transpose", ["r"], ["t"], perm=[2, 0, 3, 1, 4]),
             node("Gather", ["t", "i0"], ["q"], axis=0), node("Gather", ["t", "i1"], ["k"], axis=0),
             node("Gather", ["t", "i2"], ["v"], axis=0), node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
             node("MatMul", ["q", "kt"], ["s"]), node("Mul", ["s", "scale"], ["ss"]), node("Softmax", ["ss"], ["p"], axis=-1),
             node("MatMul", ["p", "v"], ["o"]), node("Transpose", ["o"], ["ot"], perm=[0, 2, 1, 3]),
             node("Reshape", ["ot", "join"], ["y"])]
    weights = [weight("w", 8, 24), weight("b", 24), ints("split", 0, 0, 3, 2, 4), ints("join", 0, 0, 8),
               numpy_helper.from_array(np.array(0.5, np.float32), "scale")]
    weights += [numpy_helper.from_array(np.array(i, np.int64), f"i{i}") for i in range(3)]
    return model(nodes, weights, ["batch", 5, 8], ["batch", 5, 8], opset)


def layer_norm():
    node = helper.make_node
    nodes = [node("ReduceMean", ["x"], ["m"], axes=[-1]), node("Sub", ["x", "m"], ["d"]), node("Pow", ["d", "two"], ["p"]),
             node("ReduceMean", ["p"], ["v"], axes=[-1]), node("Add", ["v", "e"], ["ve"]), node("Sqrt", ["ve"], ["sd"]),
             node("Div", ["d", "sd"], ["n"]), node("Mul", ["n", "g"], ["ng"]), node("Add", ["ng", "b"], ["y"])]
    constants = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in (("two", 2), ("e", 1e-5))]
    return model(nodes, constants + [weight("g", 8), weight("b", 8)], ["batch", 4, 8], ["batch", 4, 8], 13)


def convolution():
    node = helper.make_node
    nodes = [node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
             node("BatchNormalization", ["c", "g", "b", "mean", "var"], ["n"]), node("Relu", ["n"], ["r"]),
             node("GlobalAveragePool", ["r"], ["a"]), node("Flatten", ["a"], ["f"]),
             node("Gemm", ["f", "fw", "fb"], ["y"], transB=1)]
    weights = [weight("w", 4, 3, 3, 3), weight("g", 4), weight("b", 4), weight("mean", 4),
               numpy_helper.from_array(np.ones(4, np.float32), "var"), weight("fw", 2, 4), weight("fb", 2)]
    return model(nodes, weights, ["batch", 3, 8, 8], ["batch", 2], 9, ir=4)


def quantized():
    node = helper.make_node
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    weights = [numpy_helper.from_array(np.array(0.1, np.float32), "s"), numpy_helper.from_array(np.array(3, np.uint8), "z")]
    return model(nodes, weights, ["n", 4], ["n", 4], 13)


def branch():
    def side(op, name):
        return helper.make_graph([helper.make_node(op, ["x"], [name])], name,
                                 [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=side("Relu", "then"), else_branch=side("Neg", "else"))]
    return model(nodes, [numpy_helper.from_array(np.array(True), "c")], [2], [2], 16)


def function():
    body = helper.make_function("local", "scaled", ["a"], ["b"],
                                [helper.make_node("Constant", [], ["k"], value_float=2.0),
                                 helper.make_node("Mul", ["a", "k"], ["b"])], [helper.make_opsetid("", 18)])
    return model([helper.make_node("scaled", ["x"], ["y"], domain="local")], [], [2], [2], 18, [body])


def shapes():
    node = helper.make_node
    nodes = [node("Shape", ["x"], ["s"]), node("Slice", ["s", "zero", "one", "zero"], ["n"]),
             node("Concat", ["n", "minus"], ["t"], axis=0), node("Reshape", ["x", "t"], ["r"]),
             node("Resize", ["x", "", "scales"], ["big"], mode="linear"), node("Shape", ["big"], ["bs"]),
             node("Expand", ["r", "one"], ["y"])]
    return model(nodes, [ints("zero", 0), ints("one", 1), ints("minus", -1),
                         numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")],
                 ["batch", 1, 4, 4], ["batch", 16], 18)


def element_types():
    weights, nodes, last = [], [], "x"
    for name in ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8", "INT16", "UINT16", "INT32", "INT64", "BOOL",
                 "FLOAT8E4M3FN", "INT4"):
        kind = getattr(TensorProto, name)
        values = [1, 0, 1, 1]
        weights.append(helper.make_tensor(f"typed_{name}", kind, [4], values))
        nodes.append(helper.make_node("Cast", [f"typed_{name}"], [f"cast_{name}"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Add", [last, f"cast_{name}"], [f"sum_{name}"]))
        last = f"sum_{name}"
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    return model(nodes, weights, [4], [4], 21, ir=10)


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "fuzz/corpus/onnx")
    folder.mkdir(parents=True, exist_ok=True)
    models = {"attention_13": attention(13), "attention_20": attention(20), "layer_norm": layer_norm(),
              "convolution": convolution(), "quantized": quantized(), "if": branch(), "function": function(), "shapes": shapes(),
              "element_types": element_types()}
    for name, proto in models.items():
        onnx.checker.check_model(proto)
        (folder / f"{name}.onnx").write_bytes(proto.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
