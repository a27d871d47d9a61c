"""The server under many clients at once, good and bad."""

import random
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from conftest import picture
from servers import serving

CLIENTS = 16
SECONDS = 20

GOOD = [(picture(colour, (200, 150), "JPEG"), "image/jpeg", 200) for colour in ("red", "green", "blue")]
BAD = [
    (b"", "image/png", 400),
    (b"garbage", "image/png", 400),
    (b"{", "application/json", 400),
    (b"x", "text/plain", 415),
]


@pytest.mark.system
def test_every_request_of_many_clients_is_answered_as_if_it_were_alone(models, tmp_path):
    with serving(models, tmp_path / "home", tmp_path / "log") as address:

        def ask(client, request):
            body, kind, expected = request
            response = client.post(f"{address}/classify", content=body, headers={"Content-Type": kind})
            assert response.status_code == expected, response.text
            return (body, response.json()["predictions"][0]["label"]) if expected == 200 else None

        with httpx.Client() as client:
            alone = dict(ask(client, request) for request in GOOD)

        def one_client(seed):
            choose = random.Random(seed)
            statuses = Counter()
            deadline = time.monotonic() + SECONDS
            with httpx.Client(timeout=60) as client:
                while time.monotonic() < deadline:
                    request = choose.choice(GOOD + BAD)
                    if (answer := ask(client, request)) is not None:
                        assert alone[answer[0]] == answer[1]
                    statuses[request[2]] += 1
            return statuses

        with ThreadPoolExecutor(CLIENTS) as clients:
            statuses = sum(clients.map(one_client, range(CLIENTS)), Counter({200: len(GOOD)}))
        metrics = httpx.get(f"{address}/metrics").text
    counted = re.findall(r'fsr_requests_total\{code="(\d+)",route="/classify"\} ([\d.]+)', metrics)
    assert {int(code): int(float(count)) for code, count in counted} == statuses
    assert "Traceback" not in (tmp_path / "log").read_text()
