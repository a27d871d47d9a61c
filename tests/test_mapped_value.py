"""Numbers in files: prometheus_client reads from them what was counted."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.multiprocess import MultiProcessCollector

from fsr_serve.mapped_value import mapped_values


def metrics(monkeypatch, folder, worker):
    monkeypatch.setattr(values, "ValueClass", mapped_values(folder, worker))
    registry = CollectorRegistry()
    return (
        Counter("c", "Counts.", ["label"], registry=registry).labels("é"),
        Gauge("g", "Goes up and down.", multiprocess_mode="livesum", registry=registry),
        Histogram("h", "Observes.", buckets=(1, 2), registry=registry),
    )


def found(folder, name, **labels):
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return registry.get_sample_value(name, labels)


def test_what_workers_count_adds_up_in_their_files(monkeypatch, tmp_path):
    for worker in range(2):
        counter, gauge, histogram = metrics(monkeypatch, tmp_path, worker)
        counter.inc()
        counter.inc(1.5)
        gauge.inc(3)
        gauge.dec()
        histogram.observe(0.5)
        histogram.observe(1.5)
    assert found(tmp_path, "c_total", label="é") == 5
    assert found(tmp_path, "g") == 4
    assert found(tmp_path, "h_sum") == 4
    assert [found(tmp_path, "h_bucket", le=bound) for bound in ("1.0", "2.0", "+Inf")] == [2, 4, 4]
    gauge.set(7)
    assert found(tmp_path, "g") == 9


def test_a_worker_goes_on_counting_where_the_one_before_it_stopped(monkeypatch, tmp_path):
    for _ in range(2):
        counter, *_ = metrics(monkeypatch, tmp_path, 0)
        counter.inc()
    assert found(tmp_path, "c_total", label="é") == 2


def test_numbers_count_on_when_their_file_has_grown(monkeypatch, tmp_path):
    monkeypatch.setattr(values, "ValueClass", mapped_values(tmp_path, 0))
    counter = Counter("many", "Counts.", ["label"], registry=CollectorRegistry())
    first = counter.labels("0")
    for index in range(2000):
        counter.labels(str(index)).inc()
    first.inc()
    assert (tmp_path / "counter_0.db").stat().st_size > 1 << 16
    assert found(tmp_path, "many_total", label="0") == 2
