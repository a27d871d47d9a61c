"""What each table of the paper asks: methods as predicates on runs, and measures.

The names of tables, data sets, backbones, methods and measures are those of paper_tables.csv.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from training.checkpoint import ModelConfig, RunConfig
from training.evaluation.protocol import EPSILON
from training.feature_losses import SeparationTarget
from training.models import BACKBONES
from training.objectives import ObjectiveName

IsMethod = Callable[[RunConfig], bool]


@dataclass(frozen=True)
class Measure:
    """A column: `heading` is the paper's, `attack` the name in evaluation.json, None for what runs do not hold."""

    name: str
    heading: str
    attack: str | None = None
    unit: str = "%"
    decimals: int = 2
    epsilon: float = EPSILON
    """Of the attack."""


@dataclass(frozen=True)
class Row:
    """A method on a backbone and a data set; `is_method` says of a run whether it is trained that way."""

    data_set: str
    backbone: str
    method: str
    is_method: IsMethod
    answered_by: tuple[str, ...] = ("network",)
    """Whose answers are measured: the value of `Result.answered_by`."""


@dataclass(frozen=True)
class Table:
    """A table of the paper, the figures in the text of a section, or what a plot shows."""

    number: str
    title: str
    rows: tuple[Row, ...]
    measures: tuple[Measure, ...]
    kind: Literal["Table", "Section", "Figure"] = "Table"

    @property
    def short(self) -> str:
        """What it is asked for by."""
        return self.number.removesuffix(" (text)")

    @property
    def name(self) -> str:
        return f"{self.kind} {self.short}"


def is_trained(
    config: RunConfig,
    *,
    objective: ObjectiveName = "at",
    fsr: bool = False,
    rival: str | None = None,
    mask: str = "gumbel",
    recalibration: bool = True,
    after: tuple[str, ...] | None = None,
    target: SeparationTarget = "mispredicted",
    tau: float = 0.1,
    lambda_sep: float | None = None,
    lambda_rec: float | None = None,
) -> bool:
    """Whether the run has this objective and this module, however long and wide it is.

    What has a name of its own is another method: AWP, FAT, CAT, extra data. Without FSR the arguments of FSR are not
    looked at; `after` None is the paper's place, a lambda of None 1, or 0 where there is nothing for it to weigh.
    """
    recipe, model = config.recipe, config.model
    if recipe.objective != objective or model.fsr != fsr or model.rival != rival or has_more(config):
        return False
    if not fsr:
        return True
    weights = (
        float(mask != "none") if lambda_sep is None else lambda_sep,
        float(recalibration) if lambda_rec is None else lambda_rec,
    )
    return (
        (model.mask, model.recalibration, model.tau) == (mask, recalibration, tau)
        and places(model) == (after or (BACKBONES[model.name].fsr_after,))
        and (recipe.lambda_sep, recipe.lambda_rec) == weights
        and recipe.separation_target == target
    )


def has_more(config: RunConfig) -> bool:
    """Whether the run has something that makes it another method than the paper's."""
    recipe = config.recipe
    return recipe.extra_fraction > 0 or any(
        value is not None for value in (recipe.awp, recipe.friendly, recipe.curriculum)
    )


def places(model: ModelConfig) -> tuple[str, ...]:
    """The submodules that FSR stands behind."""
    return tuple(model.after or (BACKBONES[model.name].fsr_after,))


AT = partial(is_trained)
AT_FSR = partial(is_trained, fsr=True)
WITHOUT_SEPARATION = partial(is_trained, fsr=True, mask="none")
METHODS: Mapping[str, IsMethod] = {
    "AT": AT,
    "AT+FSR": AT_FSR,
    "TRADES": partial(is_trained, objective="trades"),
    "TRADES+FSR": partial(is_trained, objective="trades", fsr=True),
    "MART": partial(is_trained, objective="mart"),
    "MART+FSR": partial(is_trained, objective="mart", fsr=True),
}
RIVAL_METHODS: Mapping[str, IsMethod] = {
    "AT": AT,
    "AT+FD": partial(is_trained, rival="fd"),
    "AT+CAS": partial(is_trained, rival="cas"),
    "AT+CIFS": partial(is_trained, rival="cifs"),
    "AT+FSR": AT_FSR,
}
FEATURES = {
    "robust_feature": ("f+ passed on",),
    "nonrobust_feature": ("f- passed on",),
    "recalibrated_feature": ("recalibrated f- passed on",),
    "output_feature": ("network", "f~ passed on"),
}

NATURAL = Measure("natural", "no attack", "clean")
SINGLE = (
    Measure("fgsm", "FGSM", "fgsm"),
    Measure("pgd20", "PGD-20", "pgd20"),
    Measure("pgd100", "PGD-100", "pgd100"),
    Measure("cw", "C&W", "cw"),
)
ENSEMBLE = Measure("ensemble", "Ensemble", "ensemble")
AUTOATTACK = Measure("autoattack", "AutoAttack", "autoattack")
WHITE_BOX = (*SINGLE, ENSEMBLE)
BLACK_BOX = (
    Measure("ti_fgsm", "TI-FGSM", "ti_fgsm"),
    Measure("di_fgsm", "DI-FGSM", "di_fgsm"),
    Measure("nattack", "NAttack", "nattack"),
    AUTOATTACK,
)
SIZE = (
    Measure("params_millions", "parameters", unit="million"),
    Measure("flops_giga", "one image", unit="GFLOP", decimals=4),
)
TIME = (
    Measure("train_epoch_seconds", "training epoch", unit="s", decimals=0),
    Measure("pgd20_evaluation_seconds", "PGD-20 on 10,000 images", unit="s", decimals=0),
)


def _rows(data_set: str, backbone: str, methods: Mapping[str, IsMethod]) -> tuple[Row, ...]:
    return tuple(Row(data_set, backbone, method, is_method) for method, is_method in methods.items())


def _on_cifar10(methods: Mapping[str, IsMethod]) -> tuple[Row, ...]:
    return _rows("cifar10", "resnet18", methods)


def _sizes(backbone: str) -> tuple[Row, ...]:
    return _rows("cifar10", backbone, {"vanilla": lambda config: False, "FSR": lambda config: False})


def _after(*layers: str) -> IsMethod:
    return partial(is_trained, fsr=True, after=layers)


TABLES: Mapping[str, Table] = {
    table.short: table
    for table in (
        Table(
            "1",
            "White-box attacks, ResNet-18",
            _on_cifar10(METHODS) + _rows("svhn", "resnet18", METHODS),
            (NATURAL, *WHITE_BOX),
        ),
        Table(
            "2",
            "White-box attacks, VGG16",
            _rows("cifar10", "vgg16", METHODS) + _rows("svhn", "vgg16", METHODS),
            (NATURAL, *WHITE_BOX),
        ),
        Table("3", "Black-box attacks and AutoAttack", _on_cifar10(METHODS), BLACK_BOX),
        Table("4", "FSR and its rivals", _on_cifar10(RIVAL_METHODS), (NATURAL, *WHITE_BOX, AUTOATTACK)),
        Table(
            "5",
            "Robustness of the feature maps of AT+FSR, part a; the command features makes part b",
            tuple(Row("cifar10", "resnet18", name, AT_FSR, answered) for name, answered in FEATURES.items()),
            (ENSEMBLE, AUTOATTACK),
        ),
        Table(
            "6",
            "Without separation, without recalibration",
            _on_cifar10(
                {
                    "AT": AT,
                    "AT+FSR": AT_FSR,
                    "AT+FSR without separation": WITHOUT_SEPARATION,
                    "AT+FSR without recalibration": partial(is_trained, fsr=True, recalibration=False),
                }
            ),
            (*WHITE_BOX, AUTOATTACK),
        ),
        Table("7", "Size", _sizes("vgg16") + _sizes("resnet18"), SIZE),
        Table(
            "4.4 (text)", "Time of training and of attack", _on_cifar10({"AT": AT, "AT+FSR": AT_FSR}), TIME, "Section"
        ),
        Table("A1", "White-box attacks, CIFAR-100", _rows("cifar100", "resnet18", METHODS), (NATURAL, *WHITE_BOX)),
        Table(
            "A2",
            "White-box attacks, Tiny ImageNet",
            _rows("tiny-imagenet", "resnet18", METHODS),
            (NATURAL, *WHITE_BOX),
        ),
        Table(
            "A3",
            "White-box attacks, WideResNet-34-10",
            _rows("cifar10", "wide_resnet34_10", METHODS),
            (NATURAL, *WHITE_BOX),
        ),
        Table(
            "A4",
            "Position of FSR",
            _on_cifar10(
                {f"AT+FSR after block{index}": _after(f"layer{index}") for index in range(1, 5)}
                | {"AT+FSR after block3 and block4": _after("layer3", "layer4")}
            ),
            (NATURAL, *WHITE_BOX),
        ),
        Table(
            "A5",
            "What the non-robust feature is to tell",
            _on_cifar10(
                {"AT": AT}
                | {
                    f"AT+FSR separation target {target}": partial(is_trained, fsr=True, target=target)
                    for target in ("uniform", "entropy_max", "average", "mispredicted")
                }
            ),
            (NATURAL, *WHITE_BOX),
        ),
        Table(
            "A6",
            "Binary or Gumbel mask",
            _on_cifar10(
                {f"AT+FSR {mask} mask": partial(is_trained, fsr=True, mask=mask) for mask in ("binary", "gumbel")}
            ),
            (*WHITE_BOX, AUTOATTACK),
        ),
        Table(
            "A7",
            "Other ways to separate",
            _on_cifar10(
                {f"AT+FSR {mask}": partial(is_trained, fsr=True, mask=mask) for mask in ("greedy", "random")}
                | {"AT+FSR without separation": WITHOUT_SEPARATION, "AT+FSR": AT_FSR}
            ),
            WHITE_BOX,
        ),
    )
}
