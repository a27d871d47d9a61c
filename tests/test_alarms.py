"""What the checks find, in the log."""

from fsr_serve.checks.alarms import QUIET_SECONDS, Alarms
from fsr_serve.requester import Requester


def test_a_minute_of_alarms_is_one_line_that_says_whose_and_by_which_check(caplog):
    now = 0.0
    alarms = Alarms(lambda: now)
    alarms.add(Requester("a", None), ["probe"])
    for _ in range(5):
        now += 1
        alarms.add(Requester("b", "shop"), ["history"])
    now += QUIET_SECONDS
    alarms.add(Requester("c", None), ["history", "confidence"])
    assert caplog.messages == [
        "1 images looked suspicious since the last such line: 1 without a key; by check: probe 1; "
        "the latest in request a",
        "6 images looked suspicious since the last such line: 5 of key 'shop', 1 without a key; "
        "by check: history 6, confidence 1; the latest in request c",
    ]
