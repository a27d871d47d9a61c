"""Settings are read strictly."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from fsr_serve.errors import SettingsError
from fsr_serve.settings import Settings, load_settings


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
    with pytest.raises(
        SettingsError,
        match=r"^FSR_DEVISE: no such setting \(did you mean FSR_DEVICE\?\); expected one of FSR_ACCESS_LOG, ",
    ):
        load_settings()


def test_a_variable_in_lower_case_is_no_setting(set_environment):
    set_environment(fsr_device="cpu")
    with pytest.raises(SettingsError, match=r"fsr_device: no such setting \(did you mean FSR_DEVICE\?\)"):
        load_settings()


def test_what_kubernetes_puts_into_a_pod_is_no_setting(set_environment):
    set_environment(
        FSR_SERVE_SERVICE_HOST="10.0.0.1",
        FSR_SERVE_SERVICE_PORT="3000",
        FSR_SERVE_SERVICE_PORT_HTTP="3000",
        FSR_SERVE_PORT="tcp://10.0.0.1:3000",
        FSR_SERVE_PORT_3000_TCP_ADDR="10.0.0.1",
        FSR_PORT="tcp://10.0.0.1:3000",
        FSR_DNS_PORT="udp://10.0.0.1:53",
        FSR_DNS_PORT_53_UDP="udp://10.0.0.1:53",
        FSR_SIGNAL_PORT="sctp://10.0.0.1:36412",
        FSR_SIGNAL_PORT_36412_SCTP_PROTO="sctp",
    )
    load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [("FSR_PORT", "8080"), ("FSR_METRICS_PORT", "9"), ("FSR_PORT", ""), ("FSR_PORT", "http://x"), ("FSR_HOST", "::")],
)
def test_host_and_port_are_no_settings_and_the_refusal_says_where_they_belong(set_environment, name, value):
    set_environment(**{name: value})
    with pytest.raises(SettingsError, match=f"^{name}: no such setting.*--host and --port of `bentoml serve`"):
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


def test_a_worker_that_may_not_hold_one_body_is_refused(set_environment):
    set_environment(FSR_MAX_BODY_BYTES="1000", FSR_MAX_HELD_BYTES="999")
    with pytest.raises(
        SettingsError, match="FSR_MAX_HELD_BYTES is 999; expected at least FSR_MAX_BODY_BYTES, which is 1000"
    ):
        load_settings()


def test_a_queue_that_cannot_hold_one_request_is_refused(set_environment):
    set_environment(FSR_MAX_IMAGES="64", FSR_MAX_QUEUE_IMAGES="63")
    with pytest.raises(
        SettingsError, match="FSR_MAX_QUEUE_IMAGES is 63; expected at least FSR_MAX_IMAGES, which is 64"
    ):
        load_settings()


@pytest.fixture
def write_file(set_environment, tmp_path):
    """Make a settings file the one that FSR_SETTINGS names."""

    def write(text):
        path = tmp_path / "settings.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        set_environment(FSR_SETTINGS=str(path))
        return path

    return write


def test_settings_come_from_the_file_that_fsr_settings_names(write_file):
    write_file('device = "cpu"\nmax_images = 3\ndrain_seconds = 1\nmodels = "some/models"')
    settings = load_settings()
    assert (settings.device, settings.max_images, settings.drain_seconds) == ("cpu", 3, 1)
    assert settings.models == Path("some/models")


def test_the_environment_wins_over_the_file(write_file, set_environment):
    write_file("max_images = 3\nmax_batch_images = 4")
    set_environment(FSR_MAX_IMAGES="5")
    settings = load_settings()
    assert (settings.max_images, settings.max_batch_images) == (5, 4)


def test_an_empty_file_changes_nothing(write_file):
    defaults = load_settings()
    write_file("")
    assert load_settings() == defaults


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'devise = "cpu"',
            r"devise: no such setting \(did you mean device\?\); expected one of access_log, check_share, checks, ",
        ),
        ('Device = "cpu"', r"Device: no such setting \(did you mean device\?\)"),
        ('FSR_DEVICE = "cpu"', "FSR_DEVICE: no such setting"),
        ('settings = "other.toml"', "settings: no such setting"),
        ("[server]\nmax_images = 3", "server: no such setting"),
        ("max_images = 0", "max_images is 0: Input should be greater than or equal to 1"),
        ('max_images = "3"', "max_images is '3': Input should be a valid integer"),
        ("max_images = true", "max_images is True: Input should be a valid integer"),
        ("max_images = 3.0", "max_images is 3.0: Input should be a valid integer"),
        ("drain_seconds = nan", "drain_seconds is nan: "),
        ("threads = nan", "threads is nan: Input should be a valid integer"),
        ("models = 1", "models is 1: Input"),
        ('device = "tpu"', "device is 'tpu': Input should be 'auto', 'cpu' or 'cuda'"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_with_the_file_and_the_rule(write_file, text, message):
    path = write_file(text)
    with pytest.raises(SettingsError, match=f"^{re.escape(str(path))}: {message}"):
        load_settings()


def test_a_bad_value_in_the_file_is_refused_even_where_a_variable_wins(write_file, set_environment):
    write_file("max_images = 0")
    set_environment(FSR_MAX_IMAGES="5")
    with pytest.raises(SettingsError, match="max_images is 0"):
        load_settings()


def test_file_and_environment_are_checked_together(write_file, set_environment):
    write_file("max_images = 600")
    with pytest.raises(
        SettingsError, match="FSR_MAX_QUEUE_IMAGES is 512; expected at least FSR_MAX_IMAGES, which is 600"
    ):
        load_settings()
    set_environment(FSR_MAX_QUEUE_IMAGES="600")
    assert load_settings().max_images == 600


@pytest.mark.parametrize(
    ("text", "reason"),
    [("max_images =", r"Invalid value \(at end"), ("max_images = 1\nmax_images = 2", "overwrite"), (b"\xff", "utf-8")],
    ids=["half a line", "a key twice", "not text"],
)
def test_a_malformed_file_is_refused(write_file, text, reason):
    path = write_file(text)
    with pytest.raises(SettingsError, match=f"FSR_SETTINGS is '{re.escape(str(path))}', which is not TOML: .*{reason}"):
        load_settings()


@pytest.mark.parametrize(("path", "reason"), [("missing.toml", "No such file"), (".", "Is a directory"), ("", "")])
def test_a_file_that_cannot_be_read_is_refused(set_environment, tmp_path, monkeypatch, path, reason):
    monkeypatch.chdir(tmp_path)
    set_environment(FSR_SETTINGS=path)
    with pytest.raises(SettingsError, match=rf"FSR_SETTINGS is '{path}', which cannot be read \({reason}"):
        load_settings()


def test_settings_cannot_change():
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().max_images = 5


def test_the_workers_share_the_cores_that_the_server_may_run_on(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)))
    found = [(Settings(workers=workers).cores, Settings(workers=workers).session_threads) for workers in (1, 2, 4, 16)]
    assert found == [(6, None), (3, 3), (1, 1), (1, 1)]
    assert Settings(workers=2, threads=5).session_threads == 5
