"""/metrics counts what happened, with labels from small fixed sets."""

from conftest import as_form, as_json, picture
from prometheus_client.parser import text_string_to_metric_families

RED, GREEN = picture("red"), picture("green")


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


def test_scanning_for_paths_leaves_no_trace_in_the_metrics(client):
    before = len(samples(client))
    for index in range(50):
        client.get(f"/admin{index}.php")
    assert len(samples(client)) == before
