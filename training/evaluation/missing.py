"""The command that measures what a verdict lacks, on the images that the rest was measured on."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from training.checkpoint import Weights
from training.evaluation.protocol import EPSILON, GRADIENT_ATTACKS, is_bounded_by
from training.evaluation.results import Result
from training.evaluation.suite import TRANSFERS


@dataclass(frozen=True)
class Subject:
    """Whose figures are judged."""

    epsilon: float = EPSILON
    """Of attacks that name none."""
    weights: Weights = "best"
    data_name: str = ""
    """Of the data that commands take unless told otherwise."""
    impossible: Collection[str] = ()
    """Attacks on what the network has not."""
    rival: str | None = None
    """The module that it has instead of FSR."""


def options_for(subject: Subject, like: Result | None) -> str:
    """What leads a command to the weights, and to the images of the result `like`."""
    options = "" if subject.weights == "best" else f" --weights {subject.weights}"
    if like is None:
        return options
    data = "" if like.data_name == subject.data_name else f" --data {shlex.quote(like.data_name)}"
    return f"{options}{data} --images {like.n}"


def attack_command(missing: Sequence[str], tries: Mapping[str, int], epsilon: float, options: str) -> str:
    """What runs the attacks, each bound and number of starts by itself, with the same `options`.

    Queries need none of their own: what a rule asks for is what is usual.
    """
    alike: dict[tuple[str, int], list[str]] = {}
    for name in missing:
        if name == "clean":  # is always measured
            continue
        attack, _, bound = name.partition("@")
        starts = tries.get(attack, 1) if attack in GRADIENT_ATTACKS else 1
        alike.setdefault((bound, starts), []).append(attack)
    parts = []
    for (bound, starts), attacks in alike.items():
        asked = float(bound.removesuffix("/255")) / 255 if bound else epsilon
        within = "" if is_bounded_by(EPSILON, asked) else f" --epsilon {asked:.7g}"
        begun = "" if starts == 1 else f" --restarts {starts}"
        source = " --source ANOTHER_RUN" if set(attacks) & set(TRANSFERS) else ""
        parts.append(f"--attacks {' '.join(attacks)}{within}{begun}{source}")
    return f"python -m training.evaluation RUN{options} {', and with '.join(parts)}"
