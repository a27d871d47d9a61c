"""Logits become the likeliest classes, for few classes and for many in the same way."""

import numpy as np
import pytest

from fsr_serve.ranking import FEW_CLASSES, likeliest


@pytest.mark.parametrize("classes", [2, 10, FEW_CLASSES, FEW_CLASSES + 1, 1000])
@pytest.mark.parametrize("scale", [1, 1000])
def test_the_likeliest_classes_are_those_of_softmax_also_for_large_logits(classes, scale):
    logits = (scale * np.random.default_rng(classes).standard_normal(classes)).astype(np.float32)
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    expected = exponentials / exponentials.sum()
    indices, probabilities = zip(*likeliest(logits, 2), strict=True)
    assert list(indices) == np.argsort(-logits)[:2].tolist()
    np.testing.assert_allclose(probabilities, expected[list(indices)], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("classes", [10, 1000])
def test_of_equally_likely_classes_the_lower_one_comes_first(classes):
    assert [index for index, _ in likeliest(np.zeros(classes, np.float32), 3)] == [0, 1, 2]
