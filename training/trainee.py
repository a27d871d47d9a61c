"""A network and the loss it minimises, as one module: what DistributedDataParallel has to see as one forward pass."""

from typing import NamedTuple

from torch import Tensor, nn

from training.feature_losses import feature_losses
from training.models import FSRNet
from training.objectives import Objective, Target
from training.recipes import Recipe


class Outcome(NamedTuple):
    """Of one forward pass: the scalar to minimise, the terms it is made of by name, and the logits (n, classes)."""

    loss: Tensor
    terms: dict[str, Tensor]
    logits: Tensor


class Trainee(nn.Module):
    """L_cls of the objective + lambda_sep L_sep + lambda_rec L_rec (Eq. 5), or + lambda_probe L_probe with a rival.

    The feature losses are taken on the images that the objective trains on, attacked ones as a rule.
    """

    def __init__(self, model: FSRNet, recipe: Recipe) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe

    def forward(self, images: Tensor, crafted: Tensor, target: Target, objective: Objective) -> Outcome:
        """Of clean images and the ones crafted from them, both (n, 3, h, w)."""
        recipe = self.recipe
        clean = self.model.heads(images, target.labels).logits if objective.needs_clean else None
        heads = self.model.heads(crafted, target.labels)
        beta = objective.beta if recipe.beta is None else recipe.beta
        weights = {
            "separation": recipe.lambda_sep,
            "recalibration": recipe.lambda_rec,
            "probe": recipe.lambda_probe,
        }
        classification = objective.outer(heads.logits, clean, target, beta)
        terms = feature_losses(heads, target, recipe.separation_target)
        loss = classification
        for name, term in terms.items():
            loss = loss + weights[name] * term
        return Outcome(loss, {"classification": classification, **terms}, heads.logits)
