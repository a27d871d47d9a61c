"""What the table of verdicts makes of figures, and of networks whose gradients vanish."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_up_runs import measured, run_with_weights

from training.checkpoint import ModelConfig
from training.evaluation.changes import CHANGES
from training.evaluation.command import Arguments as Evaluation
from training.evaluation.command import report as evaluate
from training.evaluation.missing import Subject
from training.evaluation.obfuscation import RULES
from training.evaluation.obfuscation import judged as judged_by_flags
from training.evaluation.obfuscation_command import Arguments, beside_twin, report
from training.evaluation.protocol import Budget
from training.evaluation.results import open_flags, save_result, weights_sha256
from training.evaluation.suite import ADAPTIVE, definition_of, is_possible, queries_of
from training.source import DataError

OURS = Subject(data_name="cifar10")
MANY = 1_000_000
"""Images by which differences of a tenth of a point are told."""
ROOT = Path(__file__).parent.parent
EPSILON = 8 / 255
HONEST = {
    "clean": 0.80,
    "fgsm": 0.55,
    "pgd20": 0.50,
    "pgd100": 0.49,
    "pgd1000": 0.489,
    "cw": 0.48,
    "autoattack": 0.45,
    "relaxed_mask": 0.49,
    "very_relaxed_mask": 0.50,
    "detached_mask": 0.50,
    "mask_alone": 0.70,
    "all_heads": 0.49,
    "all_heads_margin": 0.48,
    "feature_matching": 0.52,
    "pgd20_transfer": 0.65,
    "ti_fgsm": 0.70,
    "di_fgsm": 0.68,
    "hop_skip_jump": 0.60,
    "random_noise": 0.77,
}
SWEEP = {("pgd20", 16): 0.25, ("pgd20", 32): 0.06, ("pgd20", 64): 0.01, ("pgd100", 255): 0.0}

DEFINITIONS = {
    "pgd1000": "cross-entropy, 1000 steps of epsilon/10, 5 random starts",
    "hop_skip_jump": "HopSkipJump, labels only, 10000 queries",
    "random_noise": "the first of 10000 random corners that breaks the image",
}

HOW = "measure with python -m training.evaluation RUN --attacks"
THERE = f"measure with python -m training.evaluation RUN --images {MANY} --attacks"
"""On the images that the rest was measured on."""


def results(changed, definitions=DEFINITIONS):
    figures = HONEST | {name: share for name, share in changed.items() if isinstance(name, str)}
    swept = SWEEP | {name: share for name, share in changed.items() if not isinstance(name, str)}
    return [
        *(at(attack, share, definition=definitions.get(attack, "")) for attack, share in figures.items()),
        *(at(attack, share, epsilon=bound / 255) for (attack, bound), share in swept.items()),
    ]


def at(attack, share, **others):
    return measured(attack, share=share, n=MANY, **others)


def judged(rule, found, subject):
    """By figures alone: which images were right is not known."""
    return judged_by_flags(rule, found, subject, lambda result: None)


def verdicts(found):
    return {rule.number: judged(rule, found, OURS).status for rule in RULES}


def test_figures_of_an_honest_network_pass_every_rule():
    assert verdicts(results({})) == dict.fromkeys(["2", "3", "4", "6", "7", "8", "11", "12"], "pass") | {
        "5": "figure",
        "20": "not run",
    }


@pytest.mark.parametrize(
    ("number", "changed"),
    [
        ("2", {"pgd20": 0.56}),  # FGSM finds more than PGD
        ("3", {"pgd1000": 0.48}),  # more steps still help
        ("4", {("pgd20", 32): 0.30}),  # a wider ball leaves more right
        ("4", {("pgd100", 255): 0.05}),  # right about images that may be anything
        ("6", {"cw": 0.51}),  # far above AutoAttack
        ("7", {"very_relaxed_mask": 0.44}),  # a smoother mask finds more
        ("8", {"all_heads_margin": 0.44}),
        ("11", {"di_fgsm": 0.45}),  # another network's gradients find more than its own
        ("12", {"random_noise": 0.40}),  # guesses find more than gradients
    ],
)
def test_what_reveals_obfuscated_gradients_fails(number, changed):
    assert verdicts(results(changed))[number] == "fail"


@pytest.mark.parametrize(
    ("number", "attack", "definition", "missing"),
    [
        ("3", "pgd1000", "cross-entropy, 1000 steps of epsilon/10, random start", "pgd1000 of 5 random starts"),
        ("3", "pgd1000", "cross-entropy, 1000 steps of epsilon/10, 4 random starts", "pgd1000 of 5 random starts"),
        ("3", "pgd1000", "cross-entropy, 1000 steps of epsilon/10, no random start", "pgd1000 of 5 random starts"),
        ("12", "hop_skip_jump", "HopSkipJump, labels only, 1 queries", "hop_skip_jump of 10,000 queries"),
        ("12", "random_noise", "the first of 9999 random corners", "random_noise of 10,000 queries"),
    ],
)
def test_an_attack_weaker_than_the_test_says_is_no_evidence(number, attack, definition, missing):
    rule = next(rule for rule in RULES if rule.number == number)
    verdict = judged(rule, results({}, DEFINITIONS | {attack: definition}), OURS)
    command = f"{THERE} {attack}{' --restarts 5' if number == '3' else ''}"
    assert (verdict.status, verdict.found) == ("not run", f"missing on the same images: {missing} or more; {command}")


def test_the_usual_queries_are_those_that_the_test_asks_for():
    for name in ("hop_skip_jump", "random_noise"):
        assert definition_of(name, Budget(queries_of(name)), 10).startswith(DEFINITIONS[name])
    assert definition_of("pgd1000", Budget(restarts=5), 10) == DEFINITIONS["pgd1000"]


def test_what_is_missing_with_more_starts_is_asked_for_by_itself():
    rule = next(rule for rule in RULES if rule.number == "3")
    assert judged(rule, [], OURS).found.endswith(f"{HOW} pgd100, and with --attacks pgd1000 --restarts 5")


def test_figures_of_other_images_are_not_put_together():
    elsewhere = [at(name, share, data_sha256="of others") for name, share in HONEST.items() if name != "cw"]
    rule = next(rule for rule in RULES if rule.number == "6")
    verdict = judged(rule, [*elsewhere, measured("cw", share=0.4)], OURS)
    assert (verdict.status, verdict.found) == ("not run", f"missing on the same images: cw; {THERE} cw")
    assert judged(rule, [], OURS).found == f"missing on the same images: cw, autoattack; {HOW} cw autoattack"


def test_figures_of_training_images_are_no_evidence():
    trained_on = {"data": "cifar10, split train", "data_sha256": "of the training images"}
    seen = [at(name, 1 - share, **trained_on) for name, share in HONEST.items()]
    rule = next(rule for rule in RULES if rule.number == "6")
    verdict = judged(rule, [*seen, *results({})], OURS)
    assert (verdict.status, verdict.found) == (
        "pass",
        "cw 48.00%, autoattack 45.00%; n = 1,000,000, cifar10, split test",
    )
    assert judged(rule, seen, OURS).status == "not run"


def test_a_twin_is_compared_on_test_images_alone(tmp_path):
    run, twin = (run_with_weights(tmp_path / name, model={"fsr": name == "run"}) for name in ("run", "twin"))
    digest = weights_sha256(run, "best")
    for of in (run, twin):
        for split in ("train", "test"):
            found = measured("cw", n=4, data=f"cifar10, split {split}", data_sha256=split, weights_sha256=digest)
            save_result(of, found)
            open_flags(of, found).write(slice(0, 4), np.array([True, True, False, False]), 1.0)
    (verdict,) = beside_twin(Arguments(run, twin=twin))
    assert (verdict.status, verdict.found) == (
        "figure",
        "cw: +0.00 points, McNemar p 1; n = 4, cifar10, split test",
    )


def test_a_twin_of_which_nothing_was_measured_leaves_the_other_verdicts(tmp_path):
    run, twin = (run_with_weights(tmp_path / name, model={"fsr": name == "run"}) for name in ("run", "twin"))
    found = measured("cw", n=4, weights_sha256=weights_sha256(run, "best"))
    save_result(run, found)
    (verdict,) = beside_twin(Arguments(run, twin=twin))
    assert (verdict.number, verdict.status) == ("14", "not run")
    assert "no attack measured alike" in verdict.found
    save_result(twin, found)  # whose flags are not kept
    (verdict,) = beside_twin(Arguments(run, twin=twin))
    assert verdict.status == "not run"
    assert "was not kept" in verdict.found


def test_what_measures_a_sweep_is_named_bound_by_bound():
    rule = next(rule for rule in RULES if rule.number == "4")
    found = judged(rule, [at("clean", 0.8, epsilon=0.0), at("pgd20", 0.5)], OURS).found
    assert found.endswith(
        f"{THERE} pgd20 --epsilon 0.0627451, and with --attacks pgd20 --epsilon 0.1254902, and with --attacks pgd20 "
        "--epsilon 0.2509804, and with --attacks pgd100 --epsilon 1"
    )
    assert judged(rule, [], OURS).found.startswith("missing on the same images: clean, pgd20, ")
    assert f"{HOW} pgd20, and with --attacks pgd20 --epsilon 0.0627451, " in judged(rule, [], OURS).found
    typed = [measured(attack, epsilon=float(f"{bound / 255:.7g}")) for attack, bound in SWEEP]
    assert judged(rule, [measured("clean", epsilon=0.0), measured("pgd20"), *typed], OURS).status != "not run"


def test_what_is_missing_at_another_bound_is_asked_for_at_that_bound():
    bound = 16 / 255
    rules = {rule.number: rule for rule in RULES}
    assert judged(rules["6"], [], Subject(bound)).found.endswith(f"{HOW} cw autoattack --epsilon 0.0627451")
    sweep = {(attack, level): 0.5 - level / 600 for attack, level in SWEEP} | {("pgd100", 255): 0.0}
    found = [at(attack, share, epsilon=level / 255) for (attack, level), share in sweep.items()]
    assert judged(rules["4"], [at("clean", 0.8, epsilon=0.0), *found], Subject(bound)).status == "pass"


def test_what_is_missing_is_asked_for_of_the_same_weights_and_images():
    rule = next(rule for rule in RULES if rule.number == "6")
    few = measured("autoattack", n=100, data="my images, split test", data_sha256="of mine")
    last = Subject(weights="last", data_name="cifar10")
    assert judged(rule, [few, measured("clean")], last).found.endswith(
        "RUN --weights last --data 'my images' --images 100 --attacks cw"
    )
    assert judged(rule, [], last).found.endswith("RUN --weights last --attacks cw autoattack")
    worse = next(rule for rule in RULES if rule.number == "20")
    assert judged(worse, [measured("clean")], last).found.endswith("corruptions RUN --weights last --images 1000")
    transfers = next(rule for rule in RULES if rule.number == "11")
    assert judged(transfers, [], OURS).found.endswith("di_fgsm --source ANOTHER_RUN")


def network(**others):
    return ModelConfig(num_classes=10, **others)


@pytest.mark.parametrize("number", ["7", "8"])
def test_attacks_on_fsr_do_not_apply_without_it(number):
    rule = next(rule for rule in RULES if rule.number == number)
    plain = Subject(impossible=ADAPTIVE)
    verdict = judged(rule, results({}), plain)
    assert verdict.status == "not run"
    assert verdict.found.startswith(f"does not apply: the network has nothing that {rule.needs[1]}, ")


def test_attacks_that_a_mask_leaves_impossible_are_not_asked_for():
    rule = next(rule for rule in RULES if rule.number == "7")
    impossible = [name for name in ADAPTIVE if not is_possible(name, network(mask="binary"))]
    assert impossible == ["mask_alone"]
    found = [one for one in results({}) if one.attack != "mask_alone"]
    verdict = judged(rule, found, Subject(impossible=impossible))
    assert verdict.status == "pass"
    assert verdict.found.endswith("; mask_alone cannot be tried on this network")
    assert "mask_alone" not in judged(rule, [], Subject(impossible=impossible)).found
    assert judged(rule, results({"relaxed_mask": 0.4}), Subject(impossible=impossible)).status == "fail"


@pytest.mark.parametrize("rival", ["cas", "cifs"])
def test_the_probes_of_rivals_are_attacked_like_heads_of_fsr(rival):
    rules = {rule.number: rule for rule in RULES}
    impossible = [name for name in ADAPTIVE if not is_possible(name, network(fsr=False, rival=rival))]
    subject = Subject(impossible=impossible, rival=rival)
    assert judged(rules["8"], [], subject).found.endswith(f"{HOW} autoattack all_heads all_heads_margin")
    assert judged(rules["8"], results({"all_heads": 0.4}), subject).status == "fail"
    masks = judged(rules["7"], results({}), subject)
    assert masks.status == "not run"
    assert masks.found.endswith(f"are for FSR; here the masks and features of {rival} are not attacked")


def test_of_several_measurements_the_strongest_counts():
    rule = next(rule for rule in RULES if rule.number == "6")
    weak = at("cw", 0.6, definition="without random start")
    assert "cw 48.00%" in judged(rule, [*results({}), weak], OURS).found


def test_the_table_has_every_test_in_order(checkpoint, tmp_path):
    checkpoint = shutil.copytree(checkpoint, tmp_path / "run")  # evaluations are kept in the run folder
    evaluate(Evaluation(checkpoint, attacks=("cw",)))
    lines = list(report(Arguments(checkpoint, images=6)))[4:]
    numbers = [int(line.split("|")[1]) for line in lines]
    assert numbers == [*range(2, 18), 20, 21]
    assert "missing on the same images: autoattack" in lines[numbers.index(6)]
    assert "| not run | missing on the same images: gaussian_noise_1, " in lines[numbers.index(20)]
    assert (
        "and 31 more; measure with python -m training.evaluation corruptions RUN --images 24"
        in lines[numbers.index(20)]
    )
    assert "| not run | --version names the exported version; measure it with python -m export.up" in lines[-1]
    assert re.search(r"% - .*%\) of images, .*% of mask scores beyond \+-1; n = 6", lines[numbers.index(9)])
    with pytest.raises(DataError, match="images is 0; expected 1 to 24"):
        list(report(Arguments(checkpoint, images=0)))


def test_corruptions_are_summed_up_as_means_over_severities():
    figures = {"clean": 0.8} | {name: 0.7 for name in CHANGES if name != "rotation_grid"}
    figures |= {f"contrast_{severity}": severity / 10 for severity in range(1, 6)}
    figures |= {"rotation_random": 0.65, "rotation_worst10": 0.4}
    found = [measured(name, share=share, epsilon=0.0) for name, share in figures.items()]
    rule = next(rule for rule in RULES if rule.number == "20")
    verdict = judged(rule, found, OURS)
    assert verdict.status == "figure"
    for words in (
        "clean 80.00%, mean of corruptions 64.29%, gaussian_noise 70.00%, ",
        "contrast 30.00%, ",
        "rotation_random 65.00%, rotation_worst10 40.00%; n = 1,000, cifar10, split test",
    ):
        assert words in verdict.found
    assert judged(rule, found[:-1], OURS).status == "not run"
