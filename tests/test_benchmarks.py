"""The arithmetic of the serving benchmark: arrivals, what wrk says, and how rounds become a figure."""

import itertools
import json
import os
import socket
import threading
import time

import numpy as np
import pytest

from benchmarks.serving.cores import share_cores
from benchmarks.serving.errors import BenchmarkError
from benchmarks.serving.open_loop.answers import Answers, drive_openly
from benchmarks.serving.open_loop.generator import BROKEN, UNANSWERED
from benchmarks.serving.open_loop.poisson import dealt, even_arrivals, poisson_arrivals
from benchmarks.serving.pictures import raw, small_jpegs, tensor
from benchmarks.serving.rows import Row, ratios
from benchmarks.serving.servers import _are_equal
from benchmarks.serving.wrk import parse
from training.pairs import quartiles


def test_poisson_arrivals_have_the_rate_and_exponential_gaps():
    times = poisson_arrivals(500, 200, seed=0)
    gaps = np.diff(times)
    assert len(times) == pytest.approx(100_000, rel=0.02)
    assert (times[0], times[-1]) == (pytest.approx(0, abs=0.1), pytest.approx(200, abs=0.1))
    assert gaps.min() >= 0
    assert gaps.mean() == pytest.approx(1 / 500, rel=0.02)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)  # of equal distances it would be 0
    assert np.mean(gaps > gaps.mean()) == pytest.approx(np.exp(-1), abs=0.01)
    counts = np.histogram(times, bins=2000, range=(0, 200))[0]
    assert counts.var() == pytest.approx(counts.mean(), rel=0.15)


def test_two_runs_with_one_seed_are_the_same_and_with_two_are_not():
    one, again, other = (poisson_arrivals(100, 10, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert len(one) != len(other) or not np.array_equal(one, other)


def test_dealt_arrivals_are_all_there_and_each_hand_is_poisson_again():
    times = poisson_arrivals(1000, 100, seed=3)
    hands = dealt(times, 4)
    np.testing.assert_array_equal(np.sort(np.concatenate(hands)), times)
    for hand in hands:
        gaps = np.diff(hand)
        assert gaps.mean() == pytest.approx(4 / 1000, rel=0.05)
        assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)


def test_even_arrivals_are_equally_far_apart():
    np.testing.assert_allclose(np.diff(even_arrivals(20, 10)), 0.05)


def test_the_summary_of_wrk_is_read_from_among_its_text():
    line = '{"requests": 300, "seconds": 1.5, "refused": 1, "broken": 2, "p50_ms": 3.5, "p99_ms": 9.25}'
    load = parse(f"Running 1s test @ http://127.0.0.1:1/\n  1 threads and 32 connections\n{line}\n")
    assert (load.per_second, load.refused, load.broken, load.p99_ms) == (200, 1, 2, 9.25)


def test_wrk_without_a_summary_is_an_error_with_its_words():
    with pytest.raises(BenchmarkError, match="unable to connect"):
        parse("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_ratios_are_of_rounds_and_their_quartiles_lie_between_them():
    found = ratios([2, 30, 400], [1, 10, 100])
    assert found == (2, 3, 4)
    assert quartiles(found) == (2.5, 3, 3.5)
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])


def test_a_row_can_be_read_as_markdown_and_as_json():
    row = Row("a / b", (1.0, 2.0, 3.0), ">= 1", "a 10")
    assert row.markdown == "| a / b | 2 (1.5 - 2.5) | >= 1 | a 10 |"
    assert json.loads(json.dumps(row.json))["median"] == 2
    assert "not run" in Row("c", (), "", "why").markdown


@pytest.mark.parametrize(
    ("available", "wanted", "server", "load"),
    [
        ([0, 1], None, (0,), (1,)),
        ([3], None, (3,), (3,)),
        (list(range(16)), None, tuple(range(12)), (12, 13, 14, 15)),
        ([0, 1], 2, (0, 1), (0, 1)),
    ],
)
def test_cores_are_shared_between_servers_and_load(available, wanted, server, load):
    assert share_cores(available, wanted) == (server, load)


def test_more_server_cores_than_there_are_is_an_error():
    with pytest.raises(BenchmarkError, match="--server-cores is 3; expected at most 2"):
        share_cores([0, 1], 3)


def test_shares_and_percentiles_count_what_they_say():
    status = np.array([200] * 90 + [429] * 6 + [504] * 2 + [BROKEN, UNANSWERED])
    latency = np.concatenate([np.linspace(0.001, 0.090, 90), np.full(10, 9.0)])
    answers = Answers(np.full(100, 0.002), latency, status)
    assert (answers.share(200), answers.share(429), answers.share(504)) == (0.9, 0.06, 0.02)
    assert answers.broken == 0.02
    assert answers.milliseconds(50) == pytest.approx(45.5)
    assert answers.milliseconds(100) == pytest.approx(90)
    assert answers.late_ms == pytest.approx(2)


def test_answers_are_equal_up_to_rounding_and_the_order_of_equals():
    one = [{"label": "a", "probability": 0.5000}, {"label": "b", "probability": 0.4999}]
    swapped = [{"label": "b", "probability": 0.5000}, {"label": "a", "probability": 0.4999}]
    wrong = [{"label": "b", "probability": 0.8}, {"label": "a", "probability": 0.2}]
    assert _are_equal(one, swapped, 1e-3)
    assert not _are_equal(one, wrong, 1e-3)
    assert not _are_equal(one, one[:1], 1e-3)


def test_a_tensor_body_says_how_long_its_parts_are():
    body = tensor(small_jpegs(2, 8, 8))
    header = json.loads(body.content[: int(body.headers["Inference-Header-Content-Length"])])
    (given,) = header["inputs"]
    assert given["shape"] == [2, 3, 8, 8]
    assert len(body.content) == len(json.dumps(header)) + given["parameters"]["binary_data_size"]


def test_generators_send_every_request_and_note_each_status():
    """A server that answers 200, 429 and nothing at all in turn."""
    seen = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_serve_in_turn, args=(listening, seen), daemon=True).start()
        times = even_arrivals(30, 1.0)
        answers = drive_openly(
            listening.getsockname()[1],
            "/classify",
            [raw(b"jpeg")],
            times,
            processes=1,
            cores=(min(os.sched_getaffinity(0)),),
            headers={"X-Request-Timeout-Ms": "9"},
        )
    assert len(seen) == 30
    assert all(b"POST /classify HTTP/1.1" in head and b"X-Request-Timeout-Ms: 9" in head for head in seen)
    assert [answers.share(status) for status in (200, 429, BROKEN)] == pytest.approx([1 / 3] * 3)
    assert np.isfinite(answers.lateness).all()


def _serve_in_turn(listening, seen):
    turns = itertools.count(1)

    def talk(connection):
        with connection:
            while head := connection.recv(65536):
                seen.append(head)
                kind = next(turns) % 3
                if kind == 0:
                    return
                connection.sendall(b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\n{" % (200 if kind == 1 else 429))
                time.sleep(0.001)  # the answer comes in two pieces
                connection.sendall(b"}")

    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=talk, args=(connection,), daemon=True).start()
