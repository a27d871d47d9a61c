"""What a deployed model shows of an image beside its label, as numbers that are higher the more suspicious it is.

Names are those of the calibration. Images are float32 (n, 3, h, w) in [0, 1], signals float32 (n,).
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np

from fsr_serve.artifact import ATTACK_FILE, EVIDENCE_FILE, IMAGES, LOGITS, MODEL_FILE, ModelVersion, evidence_of
from fsr_serve.checks.probe import AttackGraph, pgd
from fsr_serve.ranking import lead
from fsr_serve.session import Device, Floats, start_onnxruntime

Signal = Literal["lead", "role_reversal", "disagreement", "probe", "similar"]

NEEDS: dict[Signal, str] = {
    "lead": MODEL_FILE,
    "role_reversal": EVIDENCE_FILE,
    "disagreement": EVIDENCE_FILE,
    "probe": ATTACK_FILE,
}
"""The graph that a signal is read from; `similar`, the number of images in a group of the history, needs none."""

PROBE_EPSILON, PROBE_STEP, PROBE_STEPS = 0.0055, 0.001, 10
"""Chen et al., Stratified adversarial robustness with rejection, ICML 2023: their values for CIFAR-10."""


class Heads(NamedTuple):
    """Of the last FSR module: logits (n, classes) of its parts of the features, and the mask's mass (n,)."""

    robust: Floats
    nonrobust: Floats
    recalibrated: Floats
    mask_mass: Floats


class Observed(NamedTuple):
    logits: Floats
    heads: Heads | None
    signals: dict[Signal, Floats]


def signals_of(version: ModelVersion) -> tuple[Signal, ...]:
    """The signals of single images that the version's graphs give."""
    tensors = version.manifest.tensors
    has_heads = EVIDENCE_FILE in tensors and evidence_of(0)[0] in tensors[EVIDENCE_FILE].outputs
    there = {MODEL_FILE: True, EVIDENCE_FILE: has_heads, ATTACK_FILE: ATTACK_FILE in tensors}
    return tuple(signal for signal, file in NEEDS.items() if there[file])


class Observer:
    """The graphs of a version that some signals need, in onnxruntime. Raises as `start_onnxruntime` does.

    Not for two threads at once.
    """

    def __init__(
        self, version: ModelVersion, signals: Iterable[Signal], *, device: Device, threads: int | None
    ) -> None:
        files = {NEEDS[signal] for signal in signals if signal in NEEDS}
        self._outputs: list[str] = [LOGITS]
        if EVIDENCE_FILE in files:
            outputs = version.manifest.tensors[EVIDENCE_FILE].outputs
            self._modules = sum(name.startswith("robust_logits_") for name in outputs)
            self._outputs += [name for index in range(self._modules) for name in evidence_of(index)[:4]]
        graph = EVIDENCE_FILE if EVIDENCE_FILE in files else MODEL_FILE
        self._session = start_onnxruntime(version.path / graph, device=device, threads=threads)
        has_probe = ATTACK_FILE in files
        self._attack = AttackGraph(version.path / ATTACK_FILE, device=device, threads=threads) if has_probe else None

    def observe(self, images: Floats) -> Observed:
        logits, *evidence = self._run(images, self._outputs)
        modules = [Heads(*evidence[first : first + 4]) for first in range(0, len(evidence), 4)]
        answers = logits.argmax(axis=1)
        signals: dict[Signal, Floats] = {"lead": -lead(logits, answers)}
        if modules:
            signals["role_reversal"] = np.mean([role_reversal(heads, answers) for heads in modules], axis=0)
            signals["disagreement"] = np.mean([disagreement(logits, heads) for heads in modules], axis=0)
        if self._attack is not None:
            signals["probe"] = -lead(self._after_probe(images, answers), answers)
        return Observed(logits, modules[-1] if modules else None, signals)

    def _after_probe(self, images: Floats, answers: np.ndarray) -> Floats:
        """Logits after a small attack on the answer, from the image itself."""
        assert self._attack is not None
        attacked = pgd(self._attack, images, answers, epsilon=PROBE_EPSILON, step_size=PROBE_STEP, steps=PROBE_STEPS)
        return self._run(attacked, [LOGITS])[0]

    def _run(self, images: Floats, outputs: list[str]) -> list[Floats]:
        return [np.asarray(found, np.float32) for found in self._session.run(outputs, {IMAGES: images})]


def role_reversal(heads: Heads, answers: np.ndarray) -> Floats:
    """How much more the head says the answer of f- than of f+, in log probability.

    L_sep (Eq. 3 of the paper) trains f- towards the likeliest mistake and f+ towards the label.
    """
    rows = np.arange(len(answers))
    nonrobust, robust = (log_softmax(part)[rows, answers] for part in (heads.nonrobust, heads.robust))
    return np.asarray(nonrobust - robust)


def disagreement(logits: Floats, heads: Heads) -> Floats:
    """Jensen-Shannon divergence in nats of the network's answer and the head's on f+ and on recalibrated f-."""
    logs = np.stack([log_softmax(part) for part in (logits, heads.robust, heads.recalibrated)])
    parts = np.exp(logs)
    mean = parts.mean(axis=0)
    of_mean = -(mean * np.log(np.maximum(mean, np.finfo(np.float32).tiny))).sum(axis=1)
    return np.asarray(of_mean + (parts * logs).sum(axis=2).mean(axis=0))


def log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
