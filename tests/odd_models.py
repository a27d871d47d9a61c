"""Models in ONNX that do what no network does, for tests of what goes wrong."""

import numpy as np
import onnx
from conftest import SIDE
from onnx import TensorProto, helper, numpy_helper


def always(path, answer, matrices=0):
    """A model that calls every image CLASSES[answer], after so many products of 1024x1024 matrices."""
    random = np.random.default_rng(0)
    heavy = random.standard_normal((1024, 1024)).astype(np.float32)
    nodes = [helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0)]
    nodes.append(helper.make_node("Mul", ["mean", "zero"], ["nothing"]))
    nodes.append(helper.make_node("ReduceSum", ["nothing"], ["sum"]))
    last = "heavy"
    for index in range(matrices):
        nodes.append(helper.make_node("MatMul", [last, "heavy"], [f"product{index}"]))
        nodes.append(helper.make_node("Tanh", [f"product{index}"], [f"bounded{index}"]))
        last = f"bounded{index}"
    nodes.append(helper.make_node("ReduceMean", [last], ["number"], keepdims=0))
    nodes.append(helper.make_node("Mul", ["number", "sum"], ["naught"]))
    nodes.append(helper.make_node("Unsqueeze", ["nothing", "one"], ["column"]))
    nodes.append(helper.make_node("Add", ["column", "naught"], ["zeros"]))
    nodes.append(helper.make_node("Add", ["zeros", "answer"], ["logits"]))
    logits = np.zeros((1, 3), np.float32)
    logits[0, answer] = 5
    constants = {
        "zero": np.float32(0),
        "one": np.array([1], np.int64),
        "answer": logits,
        "heavy": heavy,
    }
    save(nodes, constants, path)


def hanging(path):
    """A model that adds up for years what it finds in a white image, and calls all others CLASSES[0]."""
    make = helper.make_node
    nodes = [
        make("ReduceMax", ["images"], ["brightest"], keepdims=0),
        make("ReduceMin", ["images"], ["darkest"], keepdims=0),
        make("Equal", ["darkest", "white"], ["is_white"]),
        make("Cast", ["is_white"], ["one_or_none"], to=TensorProto.INT64),
        make("Mul", ["one_or_none", "years"], ["rounds"]),
        make("Loop", ["rounds", "", "brightest"], ["sum"], body=adding()),
        make("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
        make("Unsqueeze", ["mean", "one"], ["column"]),
        make("Mul", ["column", "sum"], ["scaled"]),
        make("Mul", ["scaled", "zero"], ["nothing"]),
        make("Add", ["nothing", "answer"], ["logits"]),
    ]
    constants = {
        "white": np.float32(1),
        "zero": np.float32(0),
        "one": np.array([1], np.int64),
        "years": np.int64(10**17),
        "answer": np.array([[5, 0, 0]], np.float32),
    }
    save(nodes, constants, path)


def adding():
    """The body of a loop."""
    scalar = helper.make_tensor_value_info
    return helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Add", ["before", "before"], ["after"]),
        ],
        "adding",
        [
            scalar("round", TensorProto.INT64, []),
            scalar("go_on", TensorProto.BOOL, []),
            scalar("before", TensorProto.FLOAT, []),
        ],
        [scalar("goes_on", TensorProto.BOOL, []), scalar("after", TensorProto.FLOAT, [])],
    )


def save(nodes, constants, path):
    """A graph of images of SIDE pixels and three classes."""
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
