"""Settings are read strictly."""

import pytest
from pydantic import ValidationError

from fsr_serve.errors import SettingsError
from fsr_serve.settings import load_settings


def test_settings_come_from_the_environment():
    settings = load_settings({"FSR_DEVICE": "cpu", "FSR_MAX_IMAGES": "3", "PATH": "/bin"})
    assert (settings.device, settings.max_images, str(settings.models)) == ("cpu", 3, "models")


def test_an_unknown_setting_is_refused_naming_the_allowed_ones():
    with pytest.raises(SettingsError, match="FSR_DEVISE: no such setting; expected one of FSR_DEVICE, FSR_MAX"):
        load_settings({"FSR_DEVISE": "cpu"})


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("FSR_MAX_IMAGES", "0", "greater than or equal to 1"),
        ("FSR_MAX_IMAGES", "many", "valid integer"),
        ("FSR_DEVICE", "tpu", "'auto', 'cpu' or 'cuda'"),
        ("FSR_THREADS", "-1", "greater than or equal to 1"),
    ],
)
def test_a_value_out_of_range_is_named_with_the_rule(name, value, rule):
    with pytest.raises(SettingsError, match=f"{name} is '{value}'.*{rule}"):
        load_settings({name: value})


def test_settings_cannot_change():
    with pytest.raises(ValidationError, match="frozen"):
        load_settings({}).max_images = 5
