"""Settings of the server: FSR_* environment variables over a TOML file, read once and passed on."""

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import to_json
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from fsr_serve.checks.calibration import CHECKS, CheckName
from fsr_serve.cores import allowed_cores, usable_cores
from fsr_serve.errors import SettingsError
from fsr_serve.session import Device, Precision, Runtime

PREFIX = "FSR_"
FILE_VARIABLE = "FSR_SETTINGS"
"""Names the TOML file, whose keys are the fields' names."""

PILLOW_PIXELS = 178_956_970
"""Pillow refuses images of more pixels whatever we say."""

# Kubernetes puts these into every pod that can see a service named fsr or fsr-...
_OF_KUBERNETES = re.compile(
    r"FSR_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)=.*"
    r"|FSR_(\w+_)?PORT=(tcp|udp|sctp)://.*",  # any other value is meant for us
    re.DOTALL,
)


def _listed(value: object) -> object:
    """`a,b` -> (a, b): how a variable lists names. A file has a list."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value


class Settings(BaseSettings):
    """Each field is the environment variable FSR_<NAME>, else a key of the settings file, else its default.

    Sizes are in bytes, pixels or images. Paths are relative to the working directory, in the file too.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    models: Path = Path("models")
    """Folder of models: <name>/<version>/manifest.json."""
    model: str | None = None
    """Name of the model to serve; may be left out where the folder holds just one."""
    state: Path | None = None
    """Folder of the files that say which version is wanted; by default .state in the folder of models."""
    workers: int = Field(default=1, ge=1, le=256)
    """Processes that serve, each with a session of its own."""
    runtime: Runtime = "onnxruntime"
    device: Device = "auto"
    """auto takes CUDA where it starts, else the CPU; cuda refuses to start without it."""
    precision: Precision = "f32"
    """bf16 needs the openvino runtime and a processor with AMX or AVX512-BF16."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of one inference; by default all cores, shared among the workers."""
    require_signature: Path | None = None
    """Public key (PEM) that must have signed the model version; by default none has to."""
    keys: Path | None = None
    """File of the keys that are accepted; without one, everybody may classify and read metrics."""
    max_body_bytes: int = Field(default=32 * 2**20, ge=1)
    max_held_bytes: int = Field(default=512 * 2**20, ge=1)
    """Of all request bodies that a worker holds at a time; at least one whole body."""
    max_image_bytes: int = Field(default=16 * 2**20, ge=1)
    max_image_pixels: int = Field(default=32_000_000, ge=1, le=PILLOW_PIXELS)
    max_request_pixels: int = Field(default=256_000_000, ge=1)
    """Pixels of all images of one request together."""
    max_images: int = Field(default=64, ge=1)
    """Images in one request."""
    max_batch_images: int = Field(default=64, ge=1, le=1024)
    max_queue_images: int = Field(default=512, ge=1)
    """Images that wait for a batch; at least one whole request."""
    request_timeout_ms: int = Field(default=10_000, ge=1, le=60_000)
    """From the end of a request's body to its deadline; also the longest that X-Request-Timeout-Ms may ask for."""

    checks: Annotated[tuple[CheckName, ...], NoDecode, BeforeValidator(_listed)] = ()
    """Checks that look for attacks, by name: in a variable with commas between them. None by default."""
    check_share: float = Field(default=0, ge=0, le=1)
    """Of the requests that ask for no evidence: the share that is checked all the same, for the metrics alone."""
    false_alarm_rate: float = Field(default=0.01, gt=0, lt=1)
    """Share of clean images that the checks together may find suspicious."""
    max_check_images: int = Field(default=64, ge=1)
    """Images that wait to be checked; at least one whole request."""

    unready_seconds: float = Field(default=60, ge=0, le=86_400)
    """How long its session may stall, fail or err until a worker ends, for another to be started; 0: for ever."""
    access_log: bool = False
    """A line in the log for each answer but those of health and metrics."""
    drain_seconds: float = Field(default=5, ge=0, le=600)
    """From SIGTERM, when readiness turns false, to the end of accepting requests."""

    @property
    def state_folder(self) -> Path:
        return self.state or self.models / ".state"

    @property
    def cores(self) -> int:
        """Of one worker: those that the server has time on, shared among the workers; at least one."""
        return max(1, usable_cores() // self.workers)

    @property
    def session_threads(self) -> int | None:
        """Of one worker's session; None for all cores."""
        if self.threads is None and (self.workers > 1 or usable_cores() < allowed_cores()):
            return self.cores
        return self.threads

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The first that has a value wins."""
        file = TomlConfigSettingsSource(settings_cls, os.environ.get(FILE_VARIABLE))
        return init_settings, env_settings, file

    @model_validator(mode="after")
    def _a_request_fits_the_queue(self) -> Self:
        if self.max_images > self.max_queue_images:
            raise ValueError(
                f"{PREFIX}MAX_QUEUE_IMAGES is {self.max_queue_images}; expected at least {PREFIX}MAX_IMAGES, "
                f"which is {self.max_images}"
            )
        if self.checks and self.max_images > self.max_check_images:
            raise ValueError(
                f"{PREFIX}MAX_CHECK_IMAGES is {self.max_check_images}; expected at least {PREFIX}MAX_IMAGES, "
                f"which is {self.max_images}"
            )
        if self.check_share and set(self.checks) <= {"history"}:
            raise ValueError(
                f"{PREFIX}CHECK_SHARE is {self.check_share} but {PREFIX}CHECKS names no check that a share of the "
                f"requests could go through (history sees all); expected some of {', '.join(CHECKS)}, or a share of 0"
            )
        return self

    @model_validator(mode="after")
    def _a_body_may_be_held(self) -> Self:
        if self.max_body_bytes > self.max_held_bytes:
            raise ValueError(
                f"{PREFIX}MAX_HELD_BYTES is {self.max_held_bytes}; expected at least {PREFIX}MAX_BODY_BYTES, "
                f"which is {self.max_body_bytes}"
            )
        return self


def load_settings() -> Settings:
    """Read the settings. Raises SettingsError for a name that is none, or a value of a wrong type or out of range."""
    _check_file()
    variables = {FILE_VARIABLE, *map(_variable, Settings.model_fields)}
    given = [
        name
        for name, value in os.environ.items()
        if name.upper().startswith(PREFIX) and not _OF_KUBERNETES.fullmatch(f"{name}={value}")
    ]
    _refuse_unknown(given, variables, "")
    try:
        return Settings()
    except ValidationError as error:
        reasons = [
            f"{_variable(part['loc'][0])} is {part['input']!r}: {part['msg']}" if part["loc"] else part["msg"]
            for part in error.errors()
        ]
        raise SettingsError("; ".join(reasons)) from error


def _check_file() -> None:
    """Refuse a settings file that would be used in part, or not as it is meant, even where a variable wins over it."""
    path = os.environ.get(FILE_VARIABLE)
    if path is None:
        return
    values = _read_file(path)
    _refuse_unknown(values, Settings.model_fields, f"{path}: ")
    if reasons := [reason for name, value in values.items() if (reason := _fault(name, value))]:
        raise SettingsError(f"{path}: {'; '.join(reasons)}")


def _read_file(path: str) -> dict[str, Any]:
    try:
        Path(path).read_bytes()  # the source takes a file that is not there for an empty one
        return TomlConfigSettingsSource(Settings, path).toml_data
    except OSError as error:
        raise SettingsError(
            f"{FILE_VARIABLE} is {path!r}, which cannot be read ({error.strerror}); expected a TOML file"
        ) from error
    except ValueError as error:
        raise SettingsError(f"{FILE_VARIABLE} is {path!r}, which is not TOML: {error}") from error


def _fault(name: str, value: object) -> str | None:
    """What is wrong with a value of the file: there 3 is not "3", nor true 1."""
    field = Settings.model_fields[name]
    try:
        # as JSON: strict about numbers, while a path is text
        adapter: TypeAdapter[object] = TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]
        adapter.validate_json(to_json(value, inf_nan_mode="constants"), strict=True)
    except ValidationError as error:
        return f"{name} is {value!r}: {error.errors()[0]['msg']}"
    return None


def _refuse_unknown(names: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raises SettingsError when one of `names` is not `known`."""
    allowed = sorted(known)
    unknown = sorted(set(names) - set(allowed))
    if not unknown:
        return
    by_lower = {name.lower(): name for name in allowed}
    guesses = [by_lower[guess] for name in unknown for guess in difflib.get_close_matches(name.lower(), by_lower, n=1)]
    hint = f" (did you mean {', '.join(dict.fromkeys(guesses))}?)" if guesses else ""
    if any(name.upper().endswith(("HOST", "PORT")) for name in unknown):
        hint += "; host and port are the options --host and --port of `bentoml serve`"
    raise SettingsError(f"{where}{', '.join(unknown)}: no such setting{hint}; expected one of {', '.join(allowed)}")


def _variable(field: object) -> str:
    return f"{PREFIX}{field}".upper()
