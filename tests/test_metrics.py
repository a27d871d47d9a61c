"""/metrics counts what happened, with labels from small fixed sets."""

import logging
import re

import psutil
from conftest import as_form, as_json, picture
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from fsr_serve.batcher import BatchLimits
from fsr_serve.http.app import create_app
from fsr_serve.server import Server
from fsr_serve.workers import Worker, make_folder

RED, GREEN = picture("red"), picture("green")
PNG = {"Content-Type": "image/png"}
CODES = ("method_not_allowed", "not_found", "draining", "unknown_key")


def samples(client):
    text = client.get("/metrics").text
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_requests_images_errors_and_time(client, server):
    before = samples(client)
    client.post("/classify", files=as_form(RED, GREEN))
    client.post("/classify", json=as_json(RED, b"garbage"))
    client.post("/classify", content=b"", headers={"Content-Type": "image/png"})
    after = samples(client)

    def grown(*key):
        name, *labels = key
        return after[(name, *sorted(labels))] - before.get((name, *sorted(labels)), 0)

    assert grown("fsr_requests_total", "/classify", "200") == 2
    assert grown("fsr_requests_total", "/classify", "400") == 1
    assert grown("fsr_images_total") == 3
    assert grown("fsr_errors_total", "unreadable_image") == 1
    assert grown("fsr_errors_total", "empty_image") == 1
    assert grown("fsr_request_duration_seconds_count", "/classify") == 3
    assert grown("fsr_stage_duration_seconds_count", "inference") == 2
    assert grown("fsr_batches_total", "idle") == 2
    assert grown("fsr_batch_images_sum") == 3
    assert after[("fsr_queue_images",)] == 0
    version = server.classifier.version
    assert after[("fsr_model_info", *sorted(["colours", "1", version.sha256, "onnxruntime", "cpu", "f32"]))] == 1


def test_scanning_for_paths_leaves_one_number_in_the_metrics(client):
    client.get("/admin.php")
    before = samples(client)
    for index in range(50):
        client.get(f"/admin{index}.php")
    after = samples(client)
    assert len(after) == len(before)
    assert after["fsr_errors_total", "not_found"] == before["fsr_errors_total", "not_found"] + 50 == 51


def test_every_refusal_is_counted_by_its_code(client, server):
    client.get("/classify")
    client.get("/v2/nothing")
    server.lifecycle.is_draining = True
    for path in ("/readyz", "/v2/health/ready"):
        client.get(path)
    server.keys._path, server.keys._refresh = "keys.toml", lambda path: None
    client.get("/metrics")
    counted = {code: server.metrics.errors.labels(code)._value.get() for code in CODES}
    assert counted == {"method_not_allowed": 1, "not_found": 1, "draining": 2, "unknown_key": 1}


def test_what_clients_asked_for_is_rejected_and_not_the_image_of_readiness(client, server):
    server.classifier.batcher.limits = BatchLimits(batch_images=1, queue_images=0)
    assert client.get("/readyz").status_code == 200
    assert ("fsr_rejected_total", "queue_full") not in samples(client)
    client.post("/classify", content=RED, headers={"Content-Type": "image/png"})
    client.post("/v2/models/colours/infer", content=b"{}")
    assert samples(client)["fsr_rejected_total", "queue_full"] == 2


def test_the_worker_has_memory_time_and_files(server):
    names = ("resident_memory_bytes", "cpu_seconds_total", "open_fds")
    process = psutil.Process()
    before = process.memory_info().rss / 2, sum(process.cpu_times()[:2]) - 0.1, 1
    found = [server.scraped.get_sample_value(f"fsr_process_{name}", {"worker": "0"}) for name in names]
    after = 2 * process.memory_info().rss, sum(process.cpu_times()[:2]) + 0.1, process.num_fds() + 100
    for low, value, high in zip(before, found, after, strict=True):
        assert low <= value <= high


def test_the_access_log_has_a_line_for_each_answer_where_it_is_asked_for(settings, caplog):
    caplog.set_level(logging.INFO, "fsr_serve")
    for access_log in (False, True):
        server = Server.start(settings.model_copy(update={"access_log": access_log}), Worker(make_folder()))
        with TestClient(create_app(lambda: server)) as client:  # noqa: B023
            client.post("/classify", content=b"", headers=PNG | {"X-Request-ID": f"{access_log}"})
    (line,) = [message for message in caplog.messages if message.startswith("request ")]
    assert re.fullmatch(r"request True of anybody: /classify 400 in \d+\.\d ms", line)
