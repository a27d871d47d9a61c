"""Limits that only show in the whole server: of the pixels of a request, and of what is watched without being asked."""

import asyncio
import random

import numpy as np
import pytest
from conftest import SIDE, as_form, picture
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from fsr_serve.checks.checker import Checker
from fsr_serve.http.app import create_app
from fsr_serve.metrics import Metrics
from fsr_serve.requester import Requester
from fsr_serve.server import Server
from fsr_serve.workers import Worker, make_folder


def test_the_pixels_of_all_images_of_a_request_are_bounded_together(settings):
    enough_for_one = SIDE * SIDE * 3 // 2
    server = Server.start(settings.model_copy(update={"max_request_pixels": enough_for_one}), Worker(make_folder()))
    with TestClient(create_app(lambda: server)) as client:
        answer = client.post("/classify", files=as_form(picture("red"), picture("blue"))).json()
    (refused,) = (found["error"] for found in answer["predictions"] if "error" in found)
    assert refused["code"] == "too_many_pixels"
    assert "in what is left to this request" in refused["message"]
    assert sum("label" in found for found in answer["predictions"]) == 1


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_requests_that_is_watched_is_the_one_that_was_set(settings, share):
    """Somebody's image is being checked, so that each one to be watched is counted as unchecked."""
    registry, requests = CollectorRegistry(), 4000
    settings = settings.model_copy(update={"checks": ("confidence",), "check_share": share, "max_check_images": 1})
    checker = Checker(object(), None, ("cat", "dog"), settings, Metrics(registry))

    async def serve():
        image = np.zeros((1, 3, SIDE, SIDE), np.uint8)
        with checker.room(1, asyncio.get_running_loop().time() + 60):
            for _ in range(requests):
                checker.watch(image, asyncio.get_running_loop().time() + 60, Requester("1", None))

    random.seed(0)
    asyncio.run(serve())
    watched = registry.get_sample_value("fsr_unchecked_images_total") / requests
    assert watched == pytest.approx(share, abs=0.03 if 0 < share < 1 else 0), "four standard deviations"
