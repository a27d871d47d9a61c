"""Does a network hide from attacks instead of withstanding them? Tests that judge figures, as rules.

After Athalye et al. (ICML 2018, arXiv 1802.00420) and Carlini et al. (2019, arXiv 1902.06705): a stronger attack finds
no less, gradients find no less than guesses, and no gradient is zero.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import mean
from typing import Literal, NamedTuple

from training.evaluation.bounds import Bound, Found, LoadFlags, Outcome, outcome_of
from training.evaluation.changes import USUAL_KINDS, mean_over_severities, names_of
from training.evaluation.corruptions import CORRUPTIONS
from training.evaluation.missing import Subject, attack_command, options_for
from training.evaluation.protocol import GRADIENT_ATTACKS, at_bound, with_bound
from training.evaluation.results import Result
from training.evaluation.suite import ADAPTIVE, CheckpointAttack, queries_of, tries_of

Status = Outcome | Literal["figure", "not run"]

SLACK = 0.002
"""By which a stronger attack may leave more images right: seeds differ."""
CONVERGED = 0.003
UNBOUNDED = 0.01
LARGEST_GAP = 0.05
"""Of C&W over AutoAttack: more means that something other than strength stops gradients."""
NO_BETTER = 0.005
"""By which an attack that knows FSR may beat AutoAttack, which does not."""
RESTARTS = 5
"""Random starts of the attack with ten times the steps."""
MANY = 6
"""Missing figures that are named."""


class Verdict(NamedTuple):
    number: str
    test: str
    status: Status
    found: str


def in_words(accuracies: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {accuracy:.2%}" for name, accuracy in accuracies.items())


def corruption_means(accuracies: Mapping[str, float]) -> str:
    """Clean accuracy, the mean of each corruption over its severities and of all corruptions, rotations."""
    means = {kind: mean_over_severities(accuracies, kind) for kind in USUAL_KINDS}
    of_all = mean(means[kind] for kind in CORRUPTIONS)
    return in_words({"clean": accuracies["clean"], "mean of corruptions": of_all} | means)


@dataclass(frozen=True)
class Rule:
    """A test of figures that were measured before, on the same images."""

    number: str
    test: str
    needs: tuple[str, ...]
    bounds: Callable[[Found], Sequence[Bound]] | None
    """What it asks of them. None: the figure is reported, and nothing is asked of it."""
    command: str | None = None
    """That measures what it needs, but for its options; None: the one that runs the attacks that are missing."""
    say: Callable[[Mapping[str, float]], str] = in_words
    """Accuracies of what it needs, by name -> the figures in words."""
    tries: Mapping[str, int] = field(default_factory=dict)
    """Random starts or queries below which an attack is no evidence."""

    def accepts(self, result: Result) -> bool:
        """Whether the attack was as strong as the test says."""
        return tries_of(result.definition) >= self.tries.get(result.attack, 1)


SWEEP = ("clean", "pgd20", "pgd20@16/255", "pgd20@32/255", "pgd20@64/255", "pgd100@255/255")


def ordered(*attacks: str) -> Sequence[Bound]:
    """Each attack leaves no more images right than the one before it."""
    return [Bound(stronger, weaker, SLACK) for weaker, stronger in pairwise(attacks)]


def falling(found: Found) -> Sequence[Bound]:
    """A wider ball leaves no more images right than a narrower one, and none at all almost none."""
    names = {found[name].epsilon: name for name in SWEEP}
    return [*ordered(*(names[epsilon] for epsilon in sorted(names))), Bound(SWEEP[-1], None, UNBOUNDED)]


def no_better(found: Found) -> Sequence[Bound]:
    """None of the attacks beats AutoAttack."""
    return [Bound("autoattack", name, NO_BETTER) for name in found if name != "autoattack"]


def weaker(found: Found) -> Sequence[Bound]:
    """Attacks that know less leave no fewer images right than PGD-100, which sees all."""
    return [Bound("pgd100", name, SLACK) for name in found if name != "pgd100"]


MASKS = ("relaxed_mask", "very_relaxed_mask", "detached_mask", "mask_alone")
HEADS = ("all_heads", "all_heads_margin", "feature_matching")
TRANSFERS = ("pgd20_transfer", "ti_fgsm", "di_fgsm")
GUESSES: tuple[CheckpointAttack, ...] = ("hop_skip_jump", "random_noise")

RULES: Sequence[Rule] = (
    Rule(
        "2",
        "stronger attacks leave fewer images right",
        ("fgsm", "pgd20", "pgd100", "autoattack"),
        lambda found: ordered("fgsm", "pgd20", "pgd100", "autoattack"),
    ),
    Rule(
        "3",
        f"ten times the steps of PGD-100, from {RESTARTS} random starts, change accuracy by at most 0.3 points",
        ("pgd100", "pgd1000"),
        lambda found: [Bound("pgd100", "pgd1000", CONVERGED), Bound("pgd1000", "pgd100", CONVERGED)],
        tries={"pgd1000": RESTARTS},
    ),
    Rule(
        "4",
        "accuracy falls with epsilon, and to at most 1 % without a bound",
        SWEEP,
        falling,
    ),
    Rule("5", "AutoAttack", ("autoattack",), None),
    Rule(
        "6",
        "C&W leaves at most 5 points more than AutoAttack",
        ("cw", "autoattack"),
        lambda found: [Bound("cw", "autoattack", LARGEST_GAP)],
    ),
    Rule(
        "7",
        "other gradients of the masks beat AutoAttack by at most half a point",
        ("autoattack", *MASKS),
        no_better,
    ),
    Rule(
        "8",
        "attacks on all heads or on features beat AutoAttack by at most half a point",
        ("autoattack", *HEADS),
        no_better,
    ),
    Rule("11", "attacks by transfer are weaker than white-box ones", ("pgd100", *TRANSFERS), weaker),
    Rule(
        "12",
        "labels alone and random noise are weaker than white-box",
        ("pgd100", *GUESSES),
        weaker,
        tries={name: queries_of(name) for name in GUESSES},
    ),
    Rule(
        "20",
        "common corruptions, mean over severities, and rotations",
        ("clean", *(name for kind in USUAL_KINDS for name in names_of(kind))),
        None,
        "python -m training.evaluation corruptions RUN",
        corruption_means,
    ),
)


def judged(rule: Rule, results: Sequence[Result], subject: Subject, load_flags: LoadFlags) -> Verdict:
    """The rule on the most test images that all it needs was measured on; `not run` and what is missing without any.

    Attacks that the network cannot have are left out.
    """
    left_out = [name for name in rule.needs if name in subject.impossible]
    needs = [name for name in rule.needs if name not in subject.impossible]
    if left_out and not set(needs) & set(ADAPTIVE):
        return Verdict(rule.number, rule.test, "not run", _nothing_to_attack(left_out, subject))
    groups: dict[str, dict[str, Result]] = {}
    for result in (one for one in results if one.is_on_test_images and rule.accepts(one)):
        group, bound = groups.setdefault(result.data_sha256, {}), result.epsilon
        for name in {at_bound(result.attack, bound, subject.epsilon), with_bound(result.attack, bound)}:
            if name not in group or result.accuracy < group[name].accuracy:  # of several measurements, the strongest
                group[name] = result
    nearest = max(groups.values(), key=lambda group: (sum(name in group for name in needs), _any(group).n), default={})
    missing = [name for name in needs if name not in nearest]
    if missing:
        why = f"missing on the same images: {_missing(rule, missing, subject, _any(nearest) if nearest else None)}"
        return Verdict(rule.number, rule.test, "not run", why)
    found = {name: nearest[name] for name in needs}
    of = _any(found)
    figures = rule.say({name: one.accuracy for name, one in found.items()})
    inapplicable = f"; {', '.join(left_out)} cannot be tried on this network" if left_out else ""
    said = f"{figures}; n = {of.n:,}, {of.data}{inapplicable}"
    if rule.bounds is None:
        return Verdict(rule.number, rule.test, "figure", said)
    asked = [bound.judged(found, load_flags) for bound in rule.bounds(found)]
    broken = "".join(f"; {one}" for one in asked if one.outcome != "pass")
    return Verdict(rule.number, rule.test, outcome_of(asked), said + broken)


def _nothing_to_attack(left_out: Sequence[str], subject: Subject) -> str:
    if subject.rival:
        return f"{', '.join(left_out)} are for FSR; here the masks and features of {subject.rival} are not attacked"
    return f"does not apply: the network has nothing that {', '.join(left_out)} could attack"


def _any(group: Found) -> Result:
    """All are on the same images."""
    return next(iter(group.values()))


def _missing(rule: Rule, names: Sequence[str], subject: Subject, like: Result | None) -> str:
    """In words, and the command that measures it on the images of `like`."""
    some = ", ".join(_with_tries(name, rule) for name in names[:MANY])
    more = f" and {len(names) - MANY} more" if len(names) > MANY else ""
    options = options_for(subject, like)
    attacks = attack_command(names, rule.tries, subject.epsilon, options)
    return f"{some}{more}; measure with {f'{rule.command}{options}' if rule.command else attacks}"


def _with_tries(name: str, rule: Rule) -> str:
    if name not in rule.tries:
        return name
    return f"{name} of {rule.tries[name]:,} {'random starts' if name in GRADIENT_ATTACKS else 'queries'} or more"
