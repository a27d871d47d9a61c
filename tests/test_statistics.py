"""Intervals and tests against hand computation and published examples."""

from math import comb

import numpy as np
import pytest
from scipy.stats import multinomial, norm

from training.evaluation.statistics import McNemar, mcnemar, over_seeds, paired_difference, right_under_all


def flags(text):
    return np.array([letter == "1" for letter in text])


def discordant(only_first, only_second, both=7):
    """Correctness of two models with so many images that one alone, or both, have right."""
    counts = only_first, only_second, both
    return np.repeat([True, False, True], counts), np.repeat([False, True, True], counts)


@pytest.mark.parametrize(("only_first", "only_second"), [(1, 6), (6, 1), (10, 25), (0, 5), (3, 3)])
def test_mcnemar_is_the_binomial_sum_over_discordant_images(only_first, only_second):
    n, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(comb(n, k) for k in range(fewer + 1)) / 2**n
    found = mcnemar(*discordant(only_first, only_second))
    assert found[:2] == (only_first, only_second)
    assert found.p == pytest.approx(min(1, 2 * tail))


def test_mcnemar_agrees_with_the_textbook_example():
    # Agresti, Categorical Data Analysis, approval of the prime minister: 150 and 86 changed their minds, z = -4.17
    assert mcnemar(*discordant(86, 150, both=794)).p == pytest.approx(2 * norm.cdf(-4.17), rel=0.25)


def test_the_interval_of_a_difference_agrees_with_the_textbook_example():
    # the same example: 0.04 with a standard error of 0.0095
    value, low, high = paired_difference(mcnemar(*discordant(86, 150, both=1364)), 1600)
    assert value == pytest.approx(0.04)
    assert (low, high) == pytest.approx((0.04 - 1.96 * 0.0095, 0.04 + 1.96 * 0.0095), abs=0.001)


@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.02, 0.1), (0.3, 0.05), (0.01, 0.01)])
def test_the_interval_of_a_difference_holds_the_truth_in_95_of_100_samples(shares):
    n, covered = 50, 0.0
    for first in range(n + 1):
        for second in range(n + 1 - first):
            _, low, high = paired_difference(McNemar(first, second, p=1.0), n)
            if low <= shares[1] - shares[0] <= high:
                covered += multinomial.pmf([first, second, n - first - second], n, [*shares, 1 - sum(shares)])
    assert 0.94 < covered <= 1


def test_the_interval_of_a_difference_stays_between_minus_one_and_one():
    assert paired_difference(McNemar(0, 3, p=1.0), 3).high == 1
    assert paired_difference(McNemar(3, 0, p=1.0), 3).low == -1


def test_mcnemar_of_models_that_never_disagree_is_no_evidence():
    same = flags("1100")
    assert mcnemar(same, same) == (0, 0, 1.0)


def test_mcnemar_refuses_different_numbers_of_images():
    with pytest.raises(ValueError, match="correctness of 3 and of 4 images; expected the same images"):
        mcnemar(flags("110"), flags("1100"))


def test_right_under_all_is_the_mean_of_minima_and_not_the_minimum_of_means():
    fgsm, pgd = flags("1100"), flags("0110")
    assert right_under_all([fgsm, pgd]).tolist() == [False, True, False, False]
    assert min(fgsm.mean(), pgd.mean()) == 0.5
    assert right_under_all([fgsm, pgd]).mean() == 0.25


@pytest.mark.parametrize("attacks", [[], ["11", "1"]])
def test_right_under_all_refuses_no_attack_and_different_images(attacks):
    with pytest.raises(ValueError, match="expected one attack or more on the same images"):
        right_under_all([flags(attack) for attack in attacks])


def test_seeds_are_summed_up_from_three_on():
    assert over_seeds([0.5, 0.6]) is None
    mean, deviation = over_seeds([0.4, 0.5, 0.6])
    assert (mean, deviation) == (pytest.approx(0.5), pytest.approx(0.1))
