"""The attacks of an evaluation by name: each runs, within epsilon, and says what it is."""

import shutil
from dataclasses import replace

import pytest
import torch

from training.attacks.adaptive import all_heads
from training.checkpoint import RunFolder
from training.data import load_images, to_floats
from training.evaluation.command import Arguments, report
from training.evaluation.protocol import Budget, RandomStarts
from training.evaluation.results import load_results
from training.evaluation.suite import ASCENTS, SEARCHES, TRANSFERS, attack_named, definition_of, least_queries_of
from training.source import DataError

EPSILON = 0.1
NAMES = [*ASCENTS, *SEARCHES]


@pytest.fixture
def run(checkpoint, tmp_path):
    """A copy, because evaluations are kept in the run folder."""
    return shutil.copytree(checkpoint, tmp_path / "run")


@pytest.fixture(scope="module")
def network(checkpoint):
    return RunFolder(checkpoint).load_model("best").requires_grad_(False)


@pytest.fixture(scope="module")
def data(tiny_data):
    return load_images(str(tiny_data), "test").spread(4)


def takes_long(name):
    return name == "autoattack" or (name in ASCENTS and ASCENTS[name].path.steps > 30)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if takes_long(name) else []) for name in NAMES]
)
def test_every_attack_stays_within_epsilon_and_is_repeated_by_its_seed(network, data, name):
    images = to_floats(data.pixels)

    def attacked():
        budget = Budget(queries=320)
        attack = attack_named(name, epsilon=EPSILON, seed=1, image_shape=(16, 16), budget=budget, source=network)
        return attack(network, images, data.labels)

    adversarial = attacked()
    assert (adversarial - images).abs().max() <= EPSILON + 1e-6
    assert 0 <= adversarial.min() <= adversarial.max() <= 1
    torch.testing.assert_close(attacked(), adversarial)


def test_an_attack_by_name_is_the_attack_itself(network, data):
    images, starts = to_floats(data.pixels), RandomStarts(2, image_values=3 * 16 * 16, first=20)
    start = torch.from_numpy(starts.next(tuple(images.shape), EPSILON))
    by_name = attack_named("all_heads", epsilon=EPSILON, seed=2, image_shape=(16, 16), first=20)
    itself = all_heads(network, images, data.labels, epsilon=EPSILON, step_size=EPSILON / 10, steps=100, start=start)
    torch.testing.assert_close(by_name(network, images, data.labels), itself)


def test_starts_do_not_depend_on_what_became_of_the_images_before(network, data):
    images = to_floats(data.pixels)
    labels = network(images).argmax(dim=1)
    labels[:2] = (labels[:2] + 1) % 3  # wrong from the first start on, so that no other is tried
    budget = Budget(restarts=3)
    whole, parts = (
        attack_named("pgd10", epsilon=0.01, seed=1, image_shape=(16, 16), budget=budget) for _ in ("whole", "parts")
    )
    expected = whole(network, images, labels)
    found = [parts(network, *part) for part in zip(images.split(2), labels.split(2), strict=True)]
    torch.testing.assert_close(torch.cat(found), expected)


@pytest.mark.parametrize("name", ["square", "nattack", "random_noise"])
def test_the_least_queries_are_those_of_the_first_step(network, data, name):
    images = to_floats(data.pixels)
    labels = network(images).argmax(dim=1)

    def attacked(queries):
        attack = attack_named(name, epsilon=1e-3, seed=1, image_shape=(16, 16), budget=Budget(queries=queries))
        return attack(network, images, labels)

    least = least_queries_of(name)
    torch.testing.assert_close(attacked(least - 1), images, atol=1e-6, rtol=0)
    assert (attacked(least) - images).abs().amax(dim=(1, 2, 3)).min() > 1e-5


def test_transfer_attacks_see_their_source_alone(network, data):
    def unseen(images):
        raise AssertionError("the network under attack was asked")

    for name in TRANSFERS:
        attack = attack_named(name, epsilon=EPSILON, seed=0, image_shape=(16, 16), source=network)
        assert attack(unseen, to_floats(data.pixels), data.labels).shape == data.pixels.shape
        with pytest.raises(ValueError, match=f"{name} was given no source"):
            attack_named(name, epsilon=EPSILON, seed=0, image_shape=(16, 16))


def test_definitions_tell_attacks_and_budgets_apart():
    texts = {definition_of(name, Budget(queries=queries), 10) for name in NAMES for queries in (10, 20)}
    with_queries = [name for name in SEARCHES if SEARCHES[name].queries]
    same = ["pgd20_transfer"]  # told apart by what it is crafted on
    assert len(texts) == len(NAMES) + len(with_queries) - len(same)
    five_starts = "margin loss, confidence 50, 30 steps of epsilon/10, 5 random starts"
    assert definition_of("cw", Budget(restarts=5), 10) == five_starts


@pytest.mark.parametrize("name", ["fgsm", "pgd10", "square", "random_noise", "ti_fgsm"])
def test_what_does_not_name_their_number_does_not_depend_on_the_images_beside_it(network, data, name):
    images, budget = to_floats(data.pixels), Budget(queries=20)

    def attacked(part, first):
        of = {"epsilon": EPSILON, "seed": 1, "image_shape": (16, 16), "budget": budget, "source": network}
        return attack_named(name, first=first, **of)(network, images[part], data.labels[part])

    alone = [attacked(slice(index, index + 1), index) for index in range(len(images))]
    torch.testing.assert_close(torch.cat(alone), attacked(slice(None), 0))


def test_what_depends_on_the_images_beside_it_names_their_number():
    names = ("feature_matching", "hop_skip_jump", "nattack", "di_fgsm", "autoattack")
    for name in NAMES:
        texts = {definition_of(name, Budget(), 10, batch) for batch in (10, 20)}
        assert len(texts) == (2 if name in names else 1), name
    assert "among 250 images: 100 steps" in definition_of("feature_matching", Budget(), 10)
    assert definition_of("hop_skip_jump", Budget(), 10).endswith("starts among 25 images")


def test_another_batch_does_not_take_flags_of_what_depends_on_it(run):
    for batch in (3, 6):
        report(Arguments(run, attacks=("hop_skip_jump", "fgsm"), queries=120, images=6, batch=batch))
    found = sorted(result.definition for result in load_results(run))
    assert [text for text in found if text.startswith("HopSkipJump")] == [
        f"HopSkipJump, labels only, 120 queries, starts among {batch} images" for batch in (3, 6)
    ]
    assert len(found) == 4


@pytest.mark.parametrize(
    ("num_classes", "version"),
    [
        (2, "not standard, 2 classes allow no more than apgd-ce, fab-t, square"),
        (3, "not standard, 3 classes allow no more than apgd-ce, apgd-dlr, fab-t, square"),
        (4, "standard but for its targets, 3 classes instead of 9"),
        (10, "standard"),
        (200, "standard"),
    ],
)
def test_autoattack_on_few_classes_says_what_it_lacks(num_classes, version):
    assert definition_of("autoattack", Budget(), num_classes) == f"AutoAttack, {version}, 25 images at a time"


def test_reports_of_transfers_name_their_source(run):
    text = report(Arguments(run, attacks=("ti_fgsm",), source=run, images=6))
    assert (
        "TI-FGSM, 7x7 kernel, 10 steps of epsilon/4, no random start, crafted on resnet18 with FSR, objective" in text
    )
    with pytest.raises(DataError, match="ti_fgsm need --source"):
        report(Arguments(run, attacks=("ti_fgsm",)))


def test_attacks_on_fsr_need_fsr(checkpoint, tmp_path):
    folder = RunFolder(tmp_path / "plain")
    config = RunFolder(checkpoint).config()
    plain = replace(config, model=replace(config.model, fsr=False))
    folder.create(plain)
    folder.save_weights("best", plain.model.build().state_dict())
    with pytest.raises(
        DataError, match=r"relaxed_mask, all_heads attack the masks and heads of FSR, which .*plain has"
    ):
        report(Arguments(folder.path, attacks=("fgsm", "relaxed_mask", "all_heads")))
