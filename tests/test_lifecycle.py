"""The end of a worker: SIGTERM lets requests go on for a while."""

import signal
import threading

import pytest

from fsr_serve.lifecycle import Lifecycle


@pytest.fixture
def stopped():
    """Set by the handler that a web server would have set."""
    event = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: event.set())
    yield event
    signal.signal(signal.SIGTERM, before)


def test_a_second_sigterm_does_not_cut_the_draining_short(stopped):
    lifecycle = Lifecycle()
    lifecycle.drain_on_sigterm(60)
    for _ in range(2):
        signal.raise_signal(signal.SIGTERM)
        assert (lifecycle.is_draining, lifecycle.is_closed, stopped.is_set()) == (True, False, False)


def test_the_server_closes_when_the_time_is_over(stopped):
    lifecycle = Lifecycle()
    lifecycle.drain_on_sigterm(0.05)
    signal.raise_signal(signal.SIGTERM)
    assert stopped.wait(60)
    assert lifecycle.is_closed


def test_without_a_time_to_drain_the_first_sigterm_stops(stopped):
    lifecycle = Lifecycle()
    lifecycle.drain_on_sigterm(0)
    signal.raise_signal(signal.SIGTERM)
    assert stopped.wait(60)
    assert lifecycle.is_closed


def test_a_worker_looks_for_another_version_until_it_is_told_to_stop(server):
    before = set(threading.enumerate())
    stop = server.registry.follow_always()
    (watching,) = set(threading.enumerate()) - before
    stop.set()
    watching.join(60)
    assert not watching.is_alive()
