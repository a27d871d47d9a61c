"""The files of deploy/ speak of metrics, settings and routes that there are."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from fsr_serve.http.openapi import document
from fsr_serve.metrics import Metrics
from fsr_serve.settings import load_settings

DEPLOY = Path(__file__).parent.parent / "deploy"
BY_COLLECTORS = {"fsr_model_info", "fsr_process_resident_memory_bytes", "fsr_process_cpu_seconds_total"}
GRAFANA_COLUMNS = 24
PROMTOOL = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool, which comes with Prometheus, is not installed"
)


@pytest.fixture
def deployment():
    (found,) = (
        one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()) if one["kind"] == "Deployment"
    )
    return found["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def known_metrics():
    registry = CollectorRegistry()
    Metrics(registry)
    families = [(family.name, family.type) for family in registry.collect()]
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {name + suffix for name, kind in families for suffix in suffixes[kind]} | BY_COLLECTORS


def test_alerts_ask_for_metrics_that_there_are(known_metrics):
    asked = metrics_of(rule["expr"] for rule in rules())
    assert asked
    assert asked <= known_metrics


def test_the_dashboard_asks_for_metrics_that_there_are(known_metrics):
    asked = metrics_of(dashboard_queries())
    assert asked
    assert asked <= known_metrics


def test_the_dashboard_shows_a_panel_once_and_none_over_another():
    panels = json.loads((DEPLOY / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    places = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) < GRAFANA_COLUMNS


@PROMTOOL
def test_the_dashboard_asks_in_promql(tmp_path):
    queries = [query.replace("$__rate_interval", "1m").replace("$job", ".*") for query in dashboard_queries()]
    file = {"groups": [{"name": "a", "rules": [{"record": f"q{i}", "expr": q} for i, q in enumerate(queries)]}]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(file))
    subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yml"], check=True)


def dashboard_queries():
    panels = json.loads((DEPLOY / "dashboard.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def metrics_of(queries):
    return set(re.findall(r"fsr_\w+", "".join(queries)))


def rules():
    (group,) = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    return group["rules"]


@PROMTOOL
def test_each_alert_is_raised_by_what_it_is_for():
    subprocess.run(["promtool", "test", "rules", "alerts_test.yml"], cwd=DEPLOY, check=True)
    subprocess.run(["promtool", "check", "config", "prometheus.yml"], cwd=DEPLOY, check=True)


def test_the_pod_sets_settings_that_there_are_and_has_time_to_drain(deployment, monkeypatch):
    (container,) = deployment["containers"]
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    settings = load_settings()
    longest = settings.drain_seconds + settings.request_timeout_ms / 1000
    assert deployment["terminationGracePeriodSeconds"] > longest
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in document()["paths"]
