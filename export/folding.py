"""Batch norms into the convolutions before them, so that every graph of a version has the same weights."""

import copy

from torch import fx, nn
from torch.nn.utils import fuse_conv_bn_eval as fused


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose batch norms are folded into the convolutions before them, where there is one.

    The modules keep their names and classes. A network that torch.fx cannot follow keeps its batch norms;
    onnxruntime folds them when it loads the graph.
    """
    folded = copy.deepcopy(model).eval()
    try:
        graph = fx.symbolic_trace(folded).graph
    except Exception:  # code that depends on values fails in whatever way it likes
        return folded
    modules = dict(folded.named_modules())
    calls = [node for node in graph.nodes if node.op == "call_module"]
    targets = [node.target for node in calls]
    for node in calls:
        before, norm = node.args[0], modules[node.target]
        if not (isinstance(norm, nn.BatchNorm2d) and isinstance(before, fx.Node) and before.op == "call_module"):
            continue
        convolution = modules[str(before.target)]
        is_alone = len(before.users) == 1 and targets.count(before.target) == targets.count(node.target) == 1
        if isinstance(convolution, nn.Conv2d) and is_alone and norm.running_mean is not None:
            folded.set_submodule(str(before.target), fused(convolution, norm))
            folded.set_submodule(str(node.target), nn.Identity().eval())
    return folded
