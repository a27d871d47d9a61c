"""What the checks compute: signals against scipy, p-values against their promise, the history against pictures."""

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import entropy

from fsr_serve.checks.calibration import CHECKS, Calibration
from fsr_serve.checks.history import QueryHistory, reach_of, thumbnails
from fsr_serve.checks.signals import Heads, disagreement, role_reversal
from fsr_serve.errors import ArtifactError
from fsr_serve.ranking import lead


@pytest.fixture
def random():
    return np.random.default_rng(0)


def of_normal(random, *shape):
    return random.normal(0, 3, shape).astype(np.float32)


def test_the_lead_is_the_answer_before_the_next(random):
    logits = of_normal(random, 20, 5)
    ordered = np.sort(logits, axis=1)
    np.testing.assert_allclose(lead(logits, logits.argmax(axis=1)), ordered[:, -1] - ordered[:, -2])
    assert (lead(logits, logits.argmin(axis=1)) < 0).all()


def test_roles_are_reversed_where_the_nonrobust_features_speak_for_the_answer(random):
    robust, nonrobust, other = (of_normal(random, 20, 5) for _ in range(3))
    answers = random.integers(5, size=20)
    expected = (log_softmax(nonrobust, axis=1) - log_softmax(robust, axis=1))[np.arange(20), answers]
    found = role_reversal(Heads(robust, nonrobust, other, np.zeros(20)), answers)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_disagreement_is_the_jensen_shannon_divergence_of_the_three(random):
    parts = [of_normal(random, 20, 5) for _ in range(3)]
    shares = [np.exp(log_softmax(part.astype(np.float64), axis=1)) for part in parts]
    expected = entropy(np.mean(shares, axis=0), axis=1) - np.mean([entropy(part, axis=1) for part in shares], axis=0)
    heads = Heads(parts[1], of_normal(random, 20, 5), parts[2], np.zeros(20))
    np.testing.assert_allclose(disagreement(parts[0], heads), expected, atol=1e-6)
    same = Heads(parts[0], parts[1], parts[0], np.zeros(20))
    np.testing.assert_allclose(disagreement(parts[0], same), 0, atol=1e-6)


def signals_like(random, n, shift=0.0):
    return {name: random.normal(shift, 1, n).astype(np.float32) for needs in CHECKS.values() for name in needs}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_of_images_like_the_clean_ones_at_most_alpha_are_suspicious_at_alpha(random, check, alpha):
    p_values = np.concatenate(
        [Calibration(signals_like(random, 199), 0.1).p_values(check, signals_like(random, 50)) for _ in range(200)]
    )
    # five standard deviations of 200 calibrations
    assert (p_values <= alpha).mean() <= alpha + 5 * (alpha / 50 + alpha / 199) ** 0.5 / 200**0.5
    assert p_values.min() >= 1 / 200
    assert p_values.max() <= 1


def test_the_p_value_counts_the_clean_images_that_look_as_suspicious():
    calibration = Calibration({"lead": np.array([1, 2, 2, 3], np.float32)}, 0.1)
    found = calibration.p_values("confidence", {"lead": np.array([0, 1, 2, 3, 4], np.float32)})
    assert found.tolist() == [1, 1, 0.8, 0.4, 0.2]
    assert calibration.checks == ("confidence",)


def test_a_calibration_is_read_as_it_was_written(random, tmp_path):
    written = Calibration(signals_like(random, 100), 0.07)
    (tmp_path / "checks.npz").write_bytes(written.as_bytes())
    read = Calibration.read(tmp_path / "checks.npz")
    images = signals_like(random, 10, shift=1)
    assert read.reach == pytest.approx(0.07)
    assert read.checks == tuple(CHECKS)
    for check in CHECKS:
        np.testing.assert_array_equal(read.p_values(check, images), written.p_values(check, images))


@pytest.mark.parametrize(
    "arrays",
    [
        {"lead": np.array([{}], dtype=object), "reach": 0.1},
        {"lead": np.zeros(3), "probe": np.zeros(4), "reach": 0.1},
        {"lead": np.zeros((3, 2)), "reach": 0.1},
        {"lead": np.zeros(3)},
        {"surprise": np.zeros(3), "reach": 0.1},
        {"reach": 0.1},
    ],
    ids=["pickled", "lengths", "shape", "no reach", "unknown", "empty"],
)
def test_a_file_that_is_no_calibration_is_refused(tmp_path, arrays):
    np.savez(tmp_path / "checks.npz", **arrays)
    with pytest.raises(ArtifactError, match=r"checks\.npz"):
        Calibration.read(tmp_path / "checks.npz")


def pictures(random, n, side=32):
    """Smooth ones, as uint8."""
    coarse = random.integers(0, 256, (n, 3, 4, 4))
    return np.kron(coarse, np.ones((1, 1, side // 4, side // 4))).astype(np.uint8)


def noisy(random, picture, epsilon=8):
    noise = random.integers(-epsilon, epsilon + 1, picture.shape)
    return np.clip(picture.astype(int) + noise, 0, 255).astype(np.uint8)


def test_thumbnails_are_means_over_parts_of_any_size(random):
    images = random.random((2, 3, 32, 16)).astype(np.float32)
    expected = images.reshape(2, 3, 8, 4, 8, 2).mean(axis=(3, 5)).reshape(2, -1)
    np.testing.assert_allclose(thumbnails(images), expected, rtol=1e-5)
    for shape in ((1, 1), (5, 7), (9, 31), (224, 224)):
        grey = np.full((1, 3, *shape), 0.25, np.float32)
        np.testing.assert_allclose(thumbnails(grey), 0.25, rtol=1e-6)


def test_variants_of_a_picture_are_alike_and_other_pictures_are_not(random):
    others = pictures(random, 200)
    history = QueryHistory(reach_of(others[:100], 0.05), 200)
    assert (history.count(others[:50]) > 1).mean() <= 0.1
    attacked = pictures(random, 1)[0]
    counts = []
    for index in range(20):
        counts.append(history.count(noisy(random, attacked)[None])[0])
        assert history.count(others[100 + index][None])[0] == 1
    assert counts == list(range(1, 21))


def test_the_same_pixels_again_are_no_other_image(random):
    history = QueryHistory(0.05, 10)
    picture = pictures(random, 1)
    assert [history.count(picture)[0] for _ in range(5)] == [1] * 5


def test_a_history_forgets_the_oldest(random):
    history = QueryHistory(0.05, size=10)
    picture = pictures(random, 1)[0]
    for _ in range(5):
        history.count(noisy(random, picture, 4)[None])
    history.count(pictures(random, 10))
    assert history.count(noisy(random, picture, 4)[None])[0] == 1


@pytest.mark.parametrize(("n", "rate"), [(100, 0.05), (400, 0.01), (100, 0.01)])
def test_within_the_reach_as_many_are_alike_as_the_rate_allows(random, n, rate):
    images = pictures(random, n)
    small = thumbnails(images).astype(np.float64)
    nearest = np.sort((np.sqrt(((small[:, None] - small) ** 2).mean(axis=2)) + 10 * np.eye(n)).min(axis=1))
    allowed = int(rate * (n + 1)) - 1
    reach = reach_of(images, rate)
    assert nearest[nearest < nearest[allowed]].max(initial=0) < reach < nearest[allowed]
    history = QueryHistory(reach, n)
    history.count(images)
    alike = (history.count(images) > 1).sum()
    assert alike == (nearest <= reach).sum() <= allowed


def test_copies_of_pictures_do_not_shorten_the_reach(random):
    images = pictures(random, 200)
    assert reach_of(np.concatenate([images, images[:50]]), 0.02) == reach_of(images, 0.02) > 0


def test_a_full_history_raises_no_more_false_alarms_than_its_calibration_says(random):
    """On pictures of which many are alike: brighter or darker shades of a few."""

    def shades(n):
        bases = pictures(np.random.default_rng(1), 40)[random.integers(0, 40, n)]
        return np.clip(bases + random.integers(-60, 61, (n, 3, 1, 1)), 0, 255).astype(np.uint8)

    n, rate = 400, 0.1
    calibrating, stream = shades(n), shades(4000)
    reach = reach_of(calibrating, 0.5)

    def share(signals, size):
        calibration = Calibration({"similar": signals}, reach)
        assert calibration.remembered == n
        history = QueryHistory(reach, size)
        return (calibration.p_values("history", {"similar": history.count(stream)})[2000:] <= rate).mean()

    history = QueryHistory(reach, n)
    while_filling, full = history.count(calibrating), history.count(calibrating)
    assert 0.01 < share(full, n) < 1.2 * rate < share(while_filling, n)
    assert share(full, 10 * n) > 5 * rate, "a server's that remembers more than were compared"
