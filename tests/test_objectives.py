"""The losses of section 3 and of the other ways of training, against the formulas written out number by number."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from training.feature_losses import SEPARATION_TARGETS, feature_losses, likeliest_mistake
from training.models import FSRLogits, FSRNet, Heads
from training.objectives import OBJECTIVES, Target, decorrelated
from training.recipes import RECIPES
from training.trainee import Trainee

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.5, 0.2, 0.1]])
CLEAN = torch.tensor([[3.0, 0.5, -1.0], [0.2, 1.0, 2.0], [0.1, 0.9, 0.3]])
LABELS = torch.tensor([0, 2, 1])
TARGET = Target(LABELS, LABELS)


def probabilities(logits):
    return [[math.exp(z) / sum(math.exp(other) for other in row) for z in row] for row in logits.tolist()]


def negative_log_probability(logits, classes):
    rows = probabilities(logits)
    return -sum(math.log(row[c]) for row, c in zip(rows, list(classes), strict=True)) / len(rows)


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


P, Q = probabilities(CLEAN), probabilities(LOGITS)


def outer(name, beta=None):
    objective = OBJECTIVES[name]
    return objective.outer(LOGITS, CLEAN, TARGET, objective.beta if beta is None else beta).item()


@pytest.mark.parametrize("name", ["natural", "at", "gaussian"])
def test_l_cls_is_cross_entropy(name):
    assert outer(name) == pytest.approx(negative_log_probability(LOGITS, LABELS))


def test_trades_is_clean_cross_entropy_and_six_divergences():
    kl = sum(divergence(p, q) for p, q in zip(P, Q, strict=True)) / 3
    assert outer("trades") == pytest.approx(negative_log_probability(CLEAN, LABELS) + 6 * kl)
    assert outer("trades", beta=4.0) == pytest.approx(negative_log_probability(CLEAN, LABELS) + 4 * kl)


def test_mart_boosts_cross_entropy_and_weighs_divergences_by_the_clean_mistake():
    total = 0.0
    for p, q, y in zip(P, Q, LABELS.tolist(), strict=True):
        boosted = -math.log(q[y]) - math.log(1.0001 - max(q[j] for j in range(3) if j != y))
        total += boosted + 5 * divergence(p, q) * (1.0000001 - p[y])
    assert outer("mart") == pytest.approx(total / 3)


def test_logit_pairing_adds_the_squared_distance_of_logits():
    both = (negative_log_probability(CLEAN, LABELS) + negative_log_probability(LOGITS, LABELS)) / 2
    distance = sum((a - b) ** 2 for a, b in zip(CLEAN.flatten().tolist(), LOGITS.flatten().tolist(), strict=True))
    assert outer("alp") == pytest.approx(both + 0.5 * distance / 3)


def test_s2o_pulls_towards_labels_smoothed_by_the_correlation_of_logits():
    expected = 0.9 * negative_log_probability(LOGITS, LABELS)
    for logits, q in ((CLEAN, P), (LOGITS, Q)):
        smoothed = decorrelated(logits).tolist()
        expected += 0.05 * sum(divergence(smoothed[y], row) for y, row in zip(LABELS.tolist(), q, strict=True)) / 3
    assert outer("s2o") == pytest.approx(expected)


def test_decorrelated_labels_favour_the_class_that_goes_least_with_ones_own():
    logits = torch.tensor([[1.0, 0.5, 0.0], [1.0, 0.25, 0.0]])
    together = [[2.0, 0.75, 0.0], [0.75, 0.3125, 0.0]]
    for own in (0, 1):
        apart = [0 if j == own else max(together[own]) - together[own][j] for j in range(3)]
        expected = [0.2 if j == own else 0.8 * apart[j] / sum(apart) for j in range(3)]
        assert decorrelated(logits)[own].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "expected"), [("at", "cross-entropy"), ("trades", "divergence"), ("mart", "cross-entropy")]
)
def test_the_attack_raises_what_the_objective_says(name, expected):
    losses = OBJECTIVES[name].inner(LOGITS, CLEAN, TARGET).tolist()
    if expected == "divergence":
        assert losses == pytest.approx([divergence(p, q) for p, q in zip(P, Q, strict=True)])
    else:
        assert losses == pytest.approx([-math.log(q[y]) for q, y in zip(Q, LABELS.tolist(), strict=True)])


def test_trades_and_mart_start_from_small_gaussian_noise():
    assert {name for name, objective in OBJECTIVES.items() if objective.start == "gaussian"} == {"trades", "mart"}


def test_losses_of_bfloat16_logits_are_taken_in_float32():
    rounded = LOGITS.bfloat16()
    for objective in OBJECTIVES.values():
        loss = objective.outer(rounded, CLEAN.bfloat16(), TARGET, objective.beta)
        expected = objective.outer(rounded.float(), CLEAN.bfloat16().float(), TARGET, objective.beta)
        torch.testing.assert_close(loss, expected)


def test_likeliest_mistake_is_the_top_class_if_wrong_else_the_runner_up():
    assert likeliest_mistake(LOGITS, LABELS).tolist() == [1, 1, 0]


EQ_7 = {
    "mispredicted": lambda p, y, z: -math.log(p[max((j for j in range(3) if j != y), key=lambda j: z[j])]),
    "uniform": lambda p, y, z: -sum(math.log(q) for q in p) / 3,
    "entropy_max": lambda p, y, z: sum(q * math.log(q) for q in p),
    "average": lambda p, y, z: -sum(math.log(p[j]) for j in range(3) if j != y) / 2,
}


@pytest.mark.parametrize("name", EQ_7)
def test_separation_targets_are_those_of_table_a5(name):
    nonrobust = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    rows = zip(probabilities(nonrobust), LABELS.tolist(), LOGITS.tolist(), strict=True)
    expected = sum(EQ_7[name](*row) for row in rows) / 3
    assert SEPARATION_TARGETS[name](nonrobust, LOGITS, LABELS).item() == pytest.approx(expected)


class Given(FSRNet):
    """A network that answers every image with the same heads."""

    def __init__(self, heads):
        super().__init__(torch.nn.Identity())
        self.given = heads

    def heads(self, images, labels=None):
        return self.given


def outcome(heads, **changes):
    trainee = Trainee(Given(heads), dataclasses.replace(RECIPES["paper"], **changes))
    return trainee(torch.zeros(0), torch.zeros(0), TARGET, OBJECTIVES["at"])


def test_the_loss_is_eq_5_averaged_over_the_modules():
    torch.manual_seed(0)
    modules = tuple(FSRLogits(*torch.randn(3, 3, 3)) for _ in range(2))
    found = outcome(Heads(LOGITS, modules), lambda_sep=0.5, lambda_rec=2.0)
    separation = sum(
        negative_log_probability(m.robust, LABELS.tolist()) + negative_log_probability(m.nonrobust, [1, 1, 0])
        for m in modules
    )
    recalibration = sum(negative_log_probability(m.recalibrated, LABELS.tolist()) for m in modules)
    assert found.terms["separation"].item() == pytest.approx(separation / 2)
    assert found.terms["recalibration"].item() == pytest.approx(recalibration / 2)
    expected = negative_log_probability(LOGITS, LABELS) + 0.5 * separation / 2 + 2.0 * recalibration / 2
    assert found.loss.item() == pytest.approx(expected)


def test_without_modules_the_loss_is_l_cls_alone():
    found = outcome(Heads(LOGITS, ()))
    assert found.loss.item() == pytest.approx(negative_log_probability(LOGITS, LABELS))
    assert found.terms.keys() == {"classification"}


def test_cas_and_cifs_add_twice_the_mean_cross_entropy_of_their_probes():
    found = outcome(Heads(LOGITS, (), (CLEAN, LOGITS)))
    clean, attacked = (negative_log_probability(logits, LABELS) for logits in (CLEAN, LOGITS))
    assert found.loss.item() == pytest.approx(attacked + 2 * (clean + attacked) / 2)


def test_soft_targets_take_the_place_of_labels_wherever_the_true_class_is_meant():
    soft = Target(LABELS, 0.9 * F.one_hot(LABELS, 3) + 0.1 / 3)
    losses = feature_losses(Heads(LOGITS, (FSRLogits(CLEAN, CLEAN, CLEAN),)), soft, "mispredicted")
    smoothed = F.cross_entropy(CLEAN, LABELS, label_smoothing=0.1)
    torch.testing.assert_close(losses["recalibration"], smoothed)
    torch.testing.assert_close(OBJECTIVES["at"].outer(CLEAN, None, soft, 0.0), smoothed)


def test_the_correlation_of_logits_is_exact_under_autocast():
    logits = torch.randn(64, 10, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = decorrelated(logits)
    torch.testing.assert_close(found, decorrelated(logits))
    torch.testing.assert_close(found.sum(dim=1), torch.ones(10))
