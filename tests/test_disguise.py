"""Queries in disguise: views that the history does not find alike, and a search by them that it does not notice."""

import numpy as np
import pytest
from test_checks import pictures

from export.disguise import Disguise
from export.labelled_images import LabelledImages
from export.searches import Searcher
from fsr_serve.checks.calibration import Calibration
from fsr_serve.checks.history import QueryHistory, thumbnails

REACH = 0.05


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def image(random):
    return pictures(random, 1).astype(np.float32) / 255


def test_no_two_views_are_alike_to_the_history(random, image):
    disguise, history = Disguise(REACH, random), QueryHistory(REACH, 4096)
    views = [disguise.view(image) for _ in range(50)]
    assert [history.count(view)[0] for view in views] == [1] * 50
    for view in views:
        assert view.shape == image.shape
        assert view.dtype == np.float32
        assert 0 <= view.min() <= view.max() <= 1


@pytest.mark.parametrize("seed", range(5))
def test_where_none_is_far_enough_the_farthest_that_was_drawn_is_taken(image, seed):
    def second(reach):
        disguise = Disguise(reach, np.random.default_rng(seed))
        return [thumbnails(disguise.view(image)) for _ in range(2)]

    first, drawn_next = second(reach=0.0)
    farthest_first, farthest = second(reach=10.0)
    np.testing.assert_array_equal(farthest_first, first)
    assert np.square(farthest - first).mean() > np.square(drawn_next - first).mean()


class Brightness:
    """A model of two classes, dark and bright, that remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def logits(self, images):
        self.asked.append(images)
        mean = images.mean(axis=(1, 2, 3))
        return np.stack([0.5 - mean, mean - 0.5], axis=1).astype(np.float32)


def test_a_disguised_search_asks_about_views_alone_to_the_end(random):
    grey = np.clip(0.5 + random.normal(0, 0.02, (4, 3, 32, 32)), 0, 1).astype(np.float32)  # views are often wrong
    model = Brightness()
    labels = model.logits(grey).argmax(axis=1)
    model.asked.clear()
    unnoticed = Calibration({"similar": np.full(99, 1000, np.float32)}, reach=0.0)
    searcher = Searcher(model, unnoticed, epsilon=0.0, queries=20, seed=0, rate=0.01)
    searches = searcher.search("disguised_square", LabelledImages(grey, labels, "0" * 64), count=4)
    assert [(len(search.p_values), search.is_wrong) for search in searches] == [(20, False)] * 4
    originals = sum(any((asked == image).all() for image in grey) for asked in model.asked)
    assert originals == 4 + 4, "whether the image is right, and whether the end is; no queries"
    answers = {int(model.logits(asked).argmax()) for asked in tuple(model.asked)}
    assert answers == {0, 1}, "also wrong ones"
