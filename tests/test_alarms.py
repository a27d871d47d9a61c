"""What the checks find, in the log."""

import time

from fsr_serve.checks.alarms import Alarms
from fsr_serve.requester import Requester

FIRST = (
    "1 images looked suspicious since the last such line: 1 without a key; by check: probe 1; the latest in request a"
)


def wait_for(lines, caplog):
    give_up = time.monotonic() + 30
    while len(caplog.messages) < lines:
        assert time.monotonic() < give_up, caplog.messages
        time.sleep(0.01)


def test_the_first_is_told_at_once_and_those_that_follow_in_one_line_whoever_comes_later(caplog):
    alarms = Alarms(quiet_seconds=0.5)
    alarms.add(Requester("a", None), ["probe"])
    assert caplog.messages == [FIRST]
    for _ in range(5):
        alarms.add(Requester("b", "shop"), ["history"])
    alarms.add(Requester("c", None), ["history", "confidence"])
    assert caplog.messages == [FIRST], "within the quiet time"
    wait_for(2, caplog)
    assert caplog.messages[1] == (
        "6 images looked suspicious since the last such line: 5 of key 'shop', 1 without a key; "
        "by check: history 6, confidence 1; the latest in request c"
    )


def test_after_a_quiet_time_without_any_the_next_is_told_at_once(caplog):
    alarms = Alarms(quiet_seconds=0.05)
    alarms.add(Requester("a", None), ["probe"])
    time.sleep(0.5)
    assert caplog.messages == [FIRST]
    alarms.add(Requester("a", None), ["probe"])
    assert caplog.messages == [FIRST, FIRST]
