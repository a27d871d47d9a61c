"""The files of deploy/ speak of metrics, settings and routes that there are."""

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
BY_COLLECTORS = {"fsr_model_info"}


@pytest.fixture
def deployment():
    (found,) = (
        one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()) if one["kind"] == "Deployment"
    )
    return found["spec"]["template"]["spec"]


def test_alerts_ask_for_metrics_that_there_are():
    registry = CollectorRegistry()
    Metrics(registry)
    families = [(family.name, family.type) for family in registry.collect()]
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    known = {name + suffix for name, kind in families for suffix in suffixes[kind]} | BY_COLLECTORS
    asked = set(re.findall(r"fsr_\w+", "".join(rule["expr"] for rule in rules())))
    assert asked
    assert asked <= known


def rules():
    (group,) = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    return group["rules"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, which comes with Prometheus, is not installed")
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
