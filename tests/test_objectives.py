"""The losses of section 3 against the formulas written out."""

import pytest
import torch

from training.models import FSRLogits, Heads
from training.objectives import adversarial_training, likeliest_mistake

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.5, 0.2, 0.1]])
LABELS = torch.tensor([0, 2, 1])


def negative_log_probability(logits, classes):
    return -torch.stack([(row.exp() / row.exp().sum())[c].log() for row, c in zip(logits, classes, strict=True)]).mean()


def test_likeliest_mistake_is_the_top_class_if_wrong_else_the_runner_up():
    assert likeliest_mistake(LOGITS, LABELS).tolist() == [1, 1, 0]


def test_adversarial_training_is_eq_5_averaged_over_the_modules():
    torch.manual_seed(0)
    modules = tuple(FSRLogits(*torch.randn(3, 3, 3)) for _ in range(2))
    losses = adversarial_training(Heads(LOGITS, modules), LABELS, lambda_sep=0.5, lambda_rec=2.0)
    separation = sum(
        negative_log_probability(m.robust, LABELS) + negative_log_probability(m.nonrobust, [1, 1, 0]) for m in modules
    )
    recalibration = sum(negative_log_probability(m.recalibrated, LABELS) for m in modules)
    torch.testing.assert_close(losses.separation, separation / 2)
    torch.testing.assert_close(losses.recalibration, recalibration / 2)
    expected = negative_log_probability(LOGITS, LABELS) + 0.5 * separation / 2 + 2.0 * recalibration / 2
    torch.testing.assert_close(losses.total, expected)


def test_without_fsr_the_loss_is_cross_entropy():
    losses = adversarial_training(Heads(LOGITS, ()), LABELS, lambda_sep=1.0, lambda_rec=1.0)
    assert losses.total.item() == pytest.approx(negative_log_probability(LOGITS, LABELS).item())
    assert losses.separation == losses.recalibration == 0
