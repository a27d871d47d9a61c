"""Loss and input gradient of a network as one graph of plain ONNX operators.

Autograd is traced into a graph (`make_fx`), and the backward operators that ONNX lacks are written with those it has.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from export.errors import GraphError
from training.attacks import cross_entropy, margin

aten = torch.ops.aten

Sizes = Sequence[int]


def attack_network(model: nn.Module, image_shape: tuple[int, int], num_classes: int) -> fx.GraphModule:
    """images, labels (n,), loss_weights (2,) -> logits (n, classes), loss (n,), gradient of the summed loss.

    loss = loss_weights[0] * cross-entropy + loss_weights[1] * margin, both as the torch attacks have them.
    `model` is in eval mode. Raises GraphError naming an operator whose gradient cannot be written in ONNX.
    """

    def attack(images: Tensor, labels: Tensor, loss_weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images = images.requires_grad_()
        logits = model(images)
        loss = loss_weights[0] * cross_entropy(logits, labels) + loss_weights[1] * margin(logits, labels)
        (gradient,) = torch.autograd.grad(loss.sum(), images)
        return logits.detach(), loss.detach(), gradient

    trace = make_fx(
        attack,
        decomposition_table={**core_aten_decompositions(), **GRADIENTS},
        tracing_mode="symbolic",
        _allow_non_fake_inputs=True,  # the weights are real tensors
    )
    try:
        traced: fx.GraphModule = trace(*example_inputs(image_shape, num_classes))
    except GraphError:
        raise
    except Exception as error:  # the network's own code may fail in any way
        raise GraphError(f"the input gradient of this network cannot be traced: {error}") from error
    for node in traced.graph.nodes:
        if node.op == "call_function" and "backward" in str(node.target):
            raise GraphError(
                f"operator {node.target} has no ONNX form, so the attack graph cannot be made. Replace the layer it "
                "comes from, or export without an attack graph: --no-attack-graph"
            )
    return traced.eval()


def example_inputs(image_shape: tuple[int, int], num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two images, because tracing takes a batch of one for a constant."""
    return torch.rand(2, 3, *image_shape), torch.tensor([0, num_classes - 1]), torch.tensor([1.0, 0.0])


def _convolution(
    gradient: Tensor,
    inputs: Tensor,
    weight: Tensor,
    bias_sizes: Sizes | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,
    output_padding: Sizes,
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor, None, None]:
    """Gradient of a convolution with respect to its inputs: the transposed convolution.

    At stride 1 it is a convolution with the mirrored kernel, which onnxruntime runs faster on CPUs; it mirrors
    the weights once, when it loads the graph.
    """
    _only_inputs(output_mask, "aten.convolution_backward")
    if transposed:
        zero = [0] * len(stride)
        convolved = aten.convolution(gradient, weight, None, stride, padding, dilation, False, zero, groups)
        return convolved, None, None
    kernel = weight.shape[2:]
    if groups == 1 and all(step == 1 for step in (*stride, *dilation)) and len(kernel) == 2:
        mirrored = weight.flip(2, 3).transpose(0, 1)
        around = [size - 1 - pad for size, pad in zip(kernel, padding, strict=True)]
        if min(around) >= 0:
            return aten.convolution(gradient, mirrored, None, stride, around, dilation, False, [0, 0], 1), None, None
    reached = [
        (out - 1) * step - 2 * pad + spread * (size - 1) + 1
        for out, step, pad, spread, size in zip(gradient.shape[2:], stride, padding, dilation, kernel, strict=True)
    ]
    rest = [size - got for size, got in zip(inputs.shape[2:], reached, strict=True)]
    return aten.convolution(gradient, weight, None, stride, padding, dilation, True, rest, groups), None, None


def _max_pool(
    gradient: Tensor,
    inputs: Tensor,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """Each gradient goes back to the place that its maximum came from."""
    n, channels, height, width = inputs.shape
    zeros = gradient.new_zeros((n, channels, height * width))
    return zeros.scatter_add(2, indices.flatten(2), gradient.flatten(2)).reshape(n, channels, height, width)


def _average_pool(
    gradient: Tensor,
    inputs: Tensor,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Each gradient is spread evenly over its window: a transposed convolution with equal weights."""
    if ceil_mode or divisor_override is not None or (any(padding) and not count_include_pad):
        raise GraphError(
            "operator aten.avg_pool2d_backward has an ONNX form only without ceil_mode, divisor_override and "
            "count_include_pad=False. Change the pooling, or export without an attack graph: --no-attack-graph"
        )
    (height, width), step, channels = kernel_size, stride or kernel_size, inputs.shape[1]
    weight = gradient.new_full((channels, 1, height, width), 1 / (height * width))
    spread, _, _ = _convolution(
        gradient, inputs, weight, None, step, padding, [1, 1], False, [0, 0], channels, [True, False, False]
    )
    return spread


def _adaptive_average_pool(gradient: Tensor, inputs: Tensor) -> Tensor:
    """As plain average pooling, where the windows divide the image evenly."""
    windows = [size // out for size, out in zip(inputs.shape[2:], gradient.shape[2:], strict=True)]
    if any(
        out * window != size for out, window, size in zip(gradient.shape[2:], windows, inputs.shape[2:], strict=True)
    ):
        raise GraphError(
            f"operator aten._adaptive_avg_pool2d_backward: {tuple(inputs.shape[2:])} does not divide evenly into "
            f"{tuple(gradient.shape[2:])}. Change the pooling, or export without an attack graph: --no-attack-graph"
        )
    return _average_pool(gradient, inputs, windows, windows, [0, 0], False, True, None)


def _only_inputs(output_mask: Sequence[bool], operator: str) -> None:
    if list(output_mask) != [True, False, False]:
        raise GraphError(f"{operator} asks for gradients of weights; expected a network whose parameters are frozen")


GRADIENTS: dict[Any, Callable] = {
    aten.convolution_backward.default: _convolution,
    aten.max_pool2d_with_indices_backward.default: _max_pool,
    aten.avg_pool2d_backward.default: _average_pool,
    aten._adaptive_avg_pool2d_backward.default: _adaptive_average_pool,
}
"""Backward operators that neither ONNX nor torch's own decompositions know."""
