"""Settings of checks with which a server does not start."""

import pytest

from fsr_serve.errors import ArtifactError, SettingsError
from fsr_serve.server import Server
from fsr_serve.settings import Settings, load_settings
from fsr_serve.workers import Worker, make_folder


def test_a_version_that_was_not_calibrated_does_not_start_with_checks(models):
    with pytest.raises(ArtifactError, match=r"never calibrated for checks. Do it with: python -m export\.checks"):
        Server.start(Settings(models=models, checks=("probe",)), Worker(make_folder()))


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"FSR_CHECKS": "history,magic"}, "FSR_CHECKS"),
        ({"FSR_CHECK_SHARE": "0.5"}, "FSR_CHECKS names no check"),
        ({"FSR_CHECKS": "probe", "FSR_MAX_CHECK_IMAGES": "2"}, "FSR_MAX_CHECK_IMAGES is 2; expected at least"),
        ({"FSR_CHECKS": "probe", "FSR_FALSE_ALARM_RATE": "0"}, "FSR_FALSE_ALARM_RATE"),
    ],
)
def test_settings_of_checks_are_checked(monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=message):
        load_settings()


def test_checks_are_named_in_a_variable_or_a_file(monkeypatch, tmp_path):
    monkeypatch.setenv("FSR_CHECKS", "confidence, history")
    assert load_settings().checks == ("confidence", "history")
    monkeypatch.delenv("FSR_CHECKS")
    (tmp_path / "fsr.toml").write_text('checks = ["probe"]\n')
    monkeypatch.setenv("FSR_SETTINGS", str(tmp_path / "fsr.toml"))
    assert load_settings().checks == ("probe",)
