"""Pairs are alternated, and their ratios are of each pair."""

import time

import pytest

from training.pairs import Measured, Pair, measured, quartiles, timed


def test_each_pair_is_timed_in_the_opposite_order_of_the_one_before():
    called = []
    pair = Pair("a / b", lambda: called.append("a"), lambda: called.append("b"))
    found = measured(pair, 3, wait=lambda: called.append("."))
    assert "".join(called).replace(".", "") == "ab" + "ba" + "ab" + "ba"
    assert called[:3] == [".", "a", "."], "the device is waited for before and after"
    assert [len(seconds) for seconds in found] == [3, 3]


def test_one_call_can_be_compared_with_itself():
    found = measured(Pair("a / a", list, list), 2)
    assert [len(seconds) for seconds in found] == [2, 2]


def test_the_time_of_what_is_waited_for_counts():
    assert timed(lambda: None, wait=lambda: time.sleep(0.02)) >= 0.02


def test_the_ratio_is_the_median_of_ratios_not_the_ratio_of_medians():
    found = Measured([2.0, 30.0, 4.0], [1.0, 10.0, 1.0])
    assert found.ratio == (2.5, 3, 3.5)
    assert found.medians == (4, 1)
    assert quartiles([7.0]) == (7, 7, 7)
    assert quartiles([1.0, 3.0]) == (1.5, 2, 2.5)
    with pytest.raises(ValueError, match="shorter"):
        Measured([1.0, 2.0], [1.0]).ratio  # noqa: B018
