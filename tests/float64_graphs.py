"""ONNX graphs in float64, by the reference implementation of ONNX: what they compute but for rounding."""

import numpy as np
import torch
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch.nn import functional as F


def evaluator(model):
    """Of the model, which is changed: every float becomes a double."""
    return ReferenceEvaluator(in_float64(model), new_ops=[Conv, ConvTranspose, MaxPool])


def in_float64(model):
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
            elif attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float64)))
    del graph.value_info[:]
    return model


class Conv(OpRun):
    """Torch's: the reference implementation's would take minutes."""

    def _run(self, x, w, b=None, auto_pad=None, dilations=None, group=None, kernel_shape=None, pads=None, strides=None):
        assert pads[:2] == pads[2:]
        x, w, b = (given if given is None else torch.from_numpy(given.copy()) for given in (x, w, b))
        return (F.conv2d(x, w, b, strides, pads[:2], dilations, group).numpy(),)


class ConvTranspose(OpRun):
    def _run(self, x, w, b=None, *, dilations, group, output_padding=(0, 0), pads, strides, **unused):
        assert pads[:2] == pads[2:]
        x, w = torch.from_numpy(x.copy()), torch.from_numpy(w.copy())
        return (F.conv_transpose2d(x, w, b, strides, pads[:2], output_padding, group, dilations).numpy(),)


class MaxPool(OpRun):
    """Torch's: with windows of one pixel, the reference implementation's indices begin anew in every channel."""

    def _run(self, x, kernel_shape, strides, pads, dilations, ceil_mode, **unused):
        padding = pads or [0, 0, 0, 0]
        assert padding[:2] == padding[2:]
        images = torch.from_numpy(x.copy())
        pooled, found = F.max_pool2d(
            images, kernel_shape, strides, padding[:2], dilations or 1, bool(ceil_mode), return_indices=True
        )
        first = torch.arange(len(x) * x.shape[1]).view(len(x), -1, 1, 1) * images[0, 0].numel()
        return (pooled.numpy(), (found + first).numpy())
