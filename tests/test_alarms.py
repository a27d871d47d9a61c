"""What the checks find, in the log."""

import threading

import pytest

from fsr_serve.checks import alarms as alarms_module
from fsr_serve.checks.alarms import Alarms
from fsr_serve.requester import Requester

FIRST = (
    "findings of suspicious images since the last such line: 1 (1 without a key); by check: probe 1; the latest in "
    "request a"
)


@pytest.fixture
def quiet_times():
    """What is to be done at their ends."""
    return []


@pytest.fixture
def alarms(quiet_times):
    return Alarms(quiet_times.append)


def test_the_first_is_told_at_once_and_those_that_follow_in_one_line_whoever_comes_later(alarms, quiet_times, caplog):
    alarms.add(Requester("a", None), ["probe"])
    for _ in range(5):
        alarms.add(Requester("b", "shop"), ["history"])
    alarms.add(Requester("c", None), ["history", "confidence"])
    assert caplog.messages == [FIRST]
    quiet_times.pop()()
    assert caplog.messages[1:] == [
        "findings of suspicious images since the last such line: 7 (5 of key 'shop', 2 without a key); "
        "by check: history 6, confidence 1; the latest in request c"
    ]


def test_after_a_quiet_time_without_any_the_next_is_told_at_once(alarms, quiet_times, caplog):
    alarms.add(Requester("a", None), ["probe"])
    quiet_times.pop()()
    assert (caplog.messages, quiet_times) == ([FIRST], [])
    alarms.add(Requester("a", None), ["probe"])
    assert caplog.messages == [FIRST, FIRST]


def test_a_quiet_time_ends_by_itself(monkeypatch):
    monkeypatch.setattr(alarms_module, "QUIET_SECONDS", 0.01)
    has_ended = threading.Event()
    alarms_module.after_the_quiet_time(has_ended.set)
    assert has_ended.wait(60)
