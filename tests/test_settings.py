"""Settings are read strictly."""

import pytest
from pydantic import ValidationError

from fsr_serve.errors import SettingsError
from fsr_serve.settings import load_settings


@pytest.fixture
def set_environment(monkeypatch):
    def set_all(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_all


def test_settings_come_from_the_environment(set_environment):
    set_environment(FSR_DEVICE="cpu", FSR_MAX_IMAGES="3")
    settings = load_settings()
    assert (settings.device, settings.max_images, str(settings.models)) == ("cpu", 3, "models")


def test_an_unknown_setting_is_refused_naming_the_allowed_ones(set_environment):
    set_environment(FSR_DEVISE="cpu")
    with pytest.raises(SettingsError, match="FSR_DEVISE: no such setting; expected one of FSR_DEVICE, FSR_DRAIN"):
        load_settings()


def test_what_kubernetes_puts_into_a_pod_is_no_setting(set_environment):
    set_environment(
        FSR_SERVE_SERVICE_HOST="10.0.0.1",
        FSR_SERVE_SERVICE_PORT="3000",
        FSR_SERVE_SERVICE_PORT_HTTP="3000",
        FSR_SERVE_PORT="tcp://10.0.0.1:3000",
        FSR_SERVE_PORT_3000_TCP_ADDR="10.0.0.1",
        FSR_PORT="tcp://10.0.0.1:3000",
    )
    load_settings()


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("FSR_MAX_IMAGES", "0", "greater than or equal to 1"),
        ("FSR_MAX_IMAGES", "many", "valid integer"),
        ("FSR_MAX_IMAGE_PIXELS", "1000000000", "less than or equal to 178956970"),
        ("FSR_DEVICE", "tpu", "'auto', 'cpu' or 'cuda'"),
        ("FSR_RUNTIME", "tensorrt", "'onnxruntime' or 'openvino'"),
        ("FSR_PRECISION", "int4", "'f32' or 'bf16'"),
        ("FSR_THREADS", "-1", "greater than or equal to 1"),
    ],
)
def test_a_value_out_of_range_is_named_with_the_rule(set_environment, name, value, rule):
    set_environment(**{name: value})
    with pytest.raises(SettingsError, match=f"{name} is '{value}'.*{rule}"):
        load_settings()


def test_a_queue_that_cannot_hold_one_request_is_refused(set_environment):
    set_environment(FSR_MAX_IMAGES="64", FSR_MAX_QUEUE_IMAGES="63")
    with pytest.raises(
        SettingsError, match="FSR_MAX_QUEUE_IMAGES is 63; expected at least FSR_MAX_IMAGES, which is 64"
    ):
        load_settings()


def test_settings_cannot_change():
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().max_images = 5
