"""Settings of the server: FSR_* environment variables, read once and passed on."""

import os
import re
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fsr_serve.errors import SettingsError
from fsr_serve.session import Device, Precision, Runtime

PREFIX = "FSR_"

PILLOW_PIXELS = 178_956_970
"""Pillow refuses images of more pixels whatever we say."""

# Kubernetes puts these into every pod that can see a service named fsr or fsr-...
_OF_KUBERNETES = re.compile(r"FSR_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)")


class Settings(BaseSettings):
    """Each field is read from the environment variable FSR_<NAME>; sizes are in bytes, pixels or images."""

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

    drain_seconds: float = Field(default=5, ge=0, le=600)
    """From SIGTERM, when readiness turns false, to the end of accepting requests."""

    @property
    def state_folder(self) -> Path:
        return self.state or self.models / ".state"

    @property
    def session_threads(self) -> int | None:
        """Of one worker's session; None for all cores."""
        if self.threads is not None or self.workers == 1:
            return self.threads
        return max(1, (os.cpu_count() or 1) // self.workers)

    @model_validator(mode="after")
    def _a_request_fits_the_queue(self) -> Self:
        if self.max_images > self.max_queue_images:
            raise ValueError(
                f"{PREFIX}MAX_QUEUE_IMAGES is {self.max_queue_images}; expected at least {PREFIX}MAX_IMAGES, "
                f"which is {self.max_images}"
            )
        return self


def load_settings() -> Settings:
    """Read the settings. Raises SettingsError for an FSR_* variable that is none, or a value out of range."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    given = {name for name in os.environ if name.startswith(PREFIX) and not _OF_KUBERNETES.fullmatch(name)}
    if unknown := sorted(given - known):
        raise SettingsError(f"{', '.join(unknown)}: no such setting; expected one of {', '.join(sorted(known))}")
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(
            "; ".join(
                f"{PREFIX}{str(part['loc'][0]).upper()} is {part['input']!r}: {part['msg']}"
                if part["loc"]
                else part["msg"]
                for part in error.errors()
            )
        ) from error
