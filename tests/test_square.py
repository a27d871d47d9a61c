"""Square Attack: what it finds, what it may ask, and that each image is shown the same squares in any company."""

import numpy as np
import pytest
import torch

from training.attacks import square
from training.evaluation.protocol import ImageStreams
from training.square import search_by_squares

EPSILON = 0.03


class Linear:
    """Two classes of 8x8 images, by weights; counts how often it is asked about an image."""

    def __init__(self):
        self.weight = np.random.default_rng(1).standard_normal((2, 3 * 8 * 8), dtype=np.float32)
        self.asked = 0

    def answers(self, images):
        return self.lead_of(images, np.zeros(len(images), np.int64)) < 0

    def lead_of(self, images, labels):
        self.asked += len(images)
        logits = images.reshape(len(images), -1) @ self.weight.T
        return (1 - 2 * labels) * (logits[:, 0] - logits[:, 1])

    def __call__(self, images):
        return images.flatten(1) @ torch.from_numpy(self.weight).T


def searched(model, images, labels, *, epsilon=EPSILON, queries=30, first=0):
    random = ImageStreams(0, first=first).next(len(images))
    return search_by_squares(model.lead_of, images, labels, epsilon=epsilon, queries=queries, random=random)


@pytest.fixture
def images():
    images = np.random.default_rng(0).random((12, 3, 8, 8), dtype=np.float32)
    images[0], images[1] = 0, 1
    return images


@pytest.fixture
def labels(images):
    return Linear().answers(images).astype(np.int64)


@pytest.mark.parametrize("queries", [1, 2, 30])
def test_it_stays_within_epsilon_the_pixel_range_and_its_queries(images, labels, queries):
    model = Linear()
    found = searched(model, images, labels, queries=queries)
    assert found.dtype == np.float32
    assert np.abs(found - images).max() <= EPSILON + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    assert model.asked <= queries * len(images)


def test_images_that_are_wrong_already_are_left_alone(images, labels):
    model = Linear()
    wrong = model.lead_of(images, 1 - labels) < 0
    model.asked = 0
    np.testing.assert_array_equal(searched(model, images[wrong], 1 - labels[wrong]), images[wrong])
    assert model.asked == wrong.sum() == len(images) - 1, "all but the black one, at which both classes tie"


def test_it_breaks_what_can_be_broken_and_nothing_else():
    images = 0.25 + 0.5 * np.random.default_rng(0).random((40, 3, 8, 8), dtype=np.float32)
    model = Linear()
    labels = model.answers(images).astype(np.int64)
    leads = model.lead_of(images, labels)
    # a perturbation within epsilon can move the lead by the median lead and no more
    epsilon = np.median(leads) / np.abs(model.weight[0] - model.weight[1]).sum()
    adversarial = searched(model, images, labels, epsilon=epsilon, queries=1500)
    broken = model.answers(adversarial) != labels
    assert not broken[leads > 1.001 * np.median(leads)].any()
    assert broken[leads < 0.7 * np.median(leads)].all()
    assert broken.any()


def test_an_image_is_shown_the_same_squares_in_any_company(images, labels):
    whole = searched(Linear(), images, labels, queries=50)
    alone = [searched(Linear(), images[[i]], labels[[i]], queries=50, first=i) for i in range(len(images))]
    np.testing.assert_allclose(np.concatenate(alone), whole, atol=1e-6)


def test_a_torch_model_is_shown_the_same_squares(images, labels):
    random = ImageStreams(0).next(len(images))
    found = square(
        Linear(), torch.from_numpy(images), torch.from_numpy(labels), epsilon=EPSILON, queries=50, random=random
    )
    np.testing.assert_allclose(found.numpy(), searched(Linear(), images, labels, queries=50), atol=1e-6)


class Grid(Linear):
    """Its logits are whole numbers, as rounding makes them: the label and another often tie."""

    def lead_of(self, images, labels):
        self.asked += len(images)
        logits = (images.reshape(len(images), -1) @ self.weight.T).round()
        return (1 - 2 * labels) * (logits[:, 0] - logits[:, 1])

    def is_right(self, images, labels):
        return (self.lead_of(images, np.zeros(len(images), np.int64)) < 0) == labels  # of a tie the first class


def test_a_tie_is_no_end_and_what_was_wrong_at_one_stays_wrong():
    images = np.random.default_rng(3).random((400, 3, 8, 8), dtype=np.float32)
    model = Grid()
    for label in (0, 1):
        labels = np.full(len(images), label)
        leads = model.lead_of(images, labels)
        tied = images[leads == 0]
        assert len(tied) > 5
        found = searched(model, tied, labels[leads == 0], epsilon=0.1, queries=300)
        assert (model.lead_of(found, labels[leads == 0]) < 0).all()
        unmoved = searched(model, tied, labels[leads == 0], epsilon=1e-6, queries=10)
        np.testing.assert_array_equal(model.is_right(unmoved, labels[leads == 0]), label == 0)
