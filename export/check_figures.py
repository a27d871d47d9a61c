"""What checks find and miss: false alarms, images attacked along gradients, and attacks by queries. No torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import product

import numpy as np
from tqdm import tqdm

from export.labelled_images import LabelledImages
from export.searches import SEARCHES, Search, SearchName
from export.verification import by_gradient
from fsr_serve.artifact import ATTACK_FILE, MODEL_FILE, CheckFigure, ModelVersion
from fsr_serve.checks.calibration import Calibration
from fsr_serve.checks.probe import AttackGraph
from fsr_serve.checks.signals import Observer, Signal
from fsr_serve.session import Device, Floats, OnnxModel
from training.evaluation.protocol import GRADIENT_ATTACKS, Budget, GradientAttackName, definition_of
from training.evaluation.statistics import area_under_roc, wilson

BATCH = 50
RATES = (0.01, 0.05)
"""Of false alarms, that figures are given for."""

Signals = Mapping[Signal, Floats]


@dataclass(frozen=True)
class Setting:
    """How a version is attacked."""

    version: ModelVersion
    epsilon: float
    queries: int
    seed: int
    device: Device
    threads: int | None
    runtime: str
    """In the words of the manifest."""


@dataclass(frozen=True)
class Attacked:
    """Signals of images under an attack (n,), whether they were right without it, and whether they are wrong now."""

    name: GradientAttackName
    signals: Signals
    was_right: np.ndarray
    is_wrong: np.ndarray


@dataclass(frozen=True)
class Measured:
    """Signals of clean images, and what came of the attacks on some of them."""

    clean: Signals
    attacked: Sequence[Attacked]
    searches: Mapping[SearchName, Sequence[Search]]


def signals_on(observer: Observer, images: Floats, what: str) -> dict[Signal, Floats]:
    """Signals (n,) of images (n, 3, h, w), with a progress bar called `what`."""
    found = []
    with tqdm(total=len(images), desc=what, unit="img", leave=False) as bar:
        for first in range(0, len(images), BATCH):
            found.append(observer.observe(images[first : first + BATCH]).signals)
            bar.update(len(images[first : first + BATCH]))
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def attacked(name: GradientAttackName, setting: Setting, observer: Observer, data: LabelledImages) -> Attacked:
    """The protocol's attack on each of the images, from its random starts."""
    version = setting.version
    graph = AttackGraph(version.path / ATTACK_FILE, device=setting.device, threads=setting.threads)
    session = OnnxModel(version.path / MODEL_FILE, device=setting.device, threads=setting.threads)
    adversarial, was_right, is_wrong = [], [], []
    with tqdm(total=len(data.labels), desc=name, unit="img", leave=False) as bar:
        for first in range(0, len(data.labels), BATCH):
            images, labels = data.images[first : first + BATCH], data.labels[first : first + BATCH]
            found = by_gradient(graph, GRADIENT_ATTACKS[name], setting.epsilon, setting.seed, images, labels, first)
            was_right.append(session.logits(images).argmax(axis=1) == labels)
            is_wrong.append(session.logits(found).argmax(axis=1) != labels)
            adversarial.append(found)
            bar.update(len(labels))
    signals = signals_on(observer, np.concatenate(adversarial), f"{name}, checked")
    return Attacked(name, signals, np.concatenate(was_right), np.concatenate(is_wrong))


def figures_of(
    calibration: Calibration, measured: Measured, setting: Setting, data_name: str, data_sha256: str
) -> Iterator[CheckFigure]:
    """For each check and rate of false alarms: clean images first, then each attack that turned any image."""
    common = {
        "calibrated_on": calibration.n,
        "data": data_name,
        "data_sha256": data_sha256,
        "seed": setting.seed,
        "runtime": setting.runtime,
        "measured": date.today().isoformat(),
    }
    for check, rate in product(calibration.checks, RATES):
        clean = calibration.p_values(check, measured.clean)
        own = common | {"check": check, "false_alarm_rate": rate}
        as_they_are = {"attack": "clean", "definition": "images as they are", "epsilon": 0.0}
        yield CheckFigure.model_validate(own | as_they_are | _share(clean <= rate))
        own["epsilon"] = setting.epsilon
        if check == "history":
            for name, searches in measured.searches.items():
                if searches:
                    yield CheckFigure.model_validate(own | _by_queries(name, searches, rate, setting))
            continue
        for attack in measured.attacked:
            p_values, turned = calibration.p_values(check, attack.signals), attack.was_right & attack.is_wrong
            if turned.any():
                by_attack = {
                    "attack": attack.name,
                    "definition": definition_of(attack.name, Budget()),
                    "auroc": area_under_roc(-p_values[turned], -clean),
                    "accepted_and_wrong": float((attack.is_wrong & (p_values > rate)).mean()),
                    "attacked": len(p_values),
                }
                yield CheckFigure.model_validate(own | by_attack | _share(p_values[turned] <= rate))


def _by_queries(name: SearchName, searches: Sequence[Search], rate: float, setting: Setting) -> dict[str, object]:
    noticed = [search.noticed_at(rate) for search in searches]
    queries = [number for number in noticed if number is not None]
    return {
        "attack": name,
        "definition": SEARCHES[name].format(queries=setting.queries),
        "accepted_and_wrong": float(np.mean([search.is_wrong and not search.noticed_at(rate) for search in searches])),
        "attacked": len(searches),
        "queries": float(np.median(queries)) if queries else None,
    } | _share(np.array([number is not None for number in noticed]))


def _share(is_suspicious: np.ndarray) -> dict[str, object]:
    """Of the images (n,), with the interval."""
    share, low, high = wilson(int(is_suspicious.sum()), len(is_suspicious))
    return {"suspicious": share, "low": low, "high": high, "n": len(is_suspicious)}
