"""Arguments of the commands that measure a model version, and what they may be. No torch."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from export.errors import VerificationError
from fsr_serve.artifact import MODEL_FILE, ModelVersion
from fsr_serve.session import Device, Precision, Runtime, Session, open_session


@dataclass(frozen=True)
class VersionArguments:
    """Which version is measured, on which images and device."""

    version: tyro.conf.Positional[Path]
    """MODELS/NAME/VERSION."""
    data: str
    """Hugging Face id or folder with the classes of the model."""
    data_name: str | None = None
    """Name of the data in the manifest; by default what --data says."""
    split: str = "test"
    images: int | None = None
    """Use only so many images, spread evenly over the split."""
    device: Device = "auto"
    threads: int | None = None
    """CPU threads; all cores by default."""

    @property
    def measured_on(self) -> str:
        """The data, in the words of the manifest."""
        return f"{self.data_name or self.data}, split {self.split}"


@dataclass(frozen=True)
class AccuracyArguments(VersionArguments):
    """And in which runtime, and where what is done so far is kept."""

    runtime: Runtime = "onnxruntime"
    precision: Precision = "f32"
    """What the runtime multiplies in; bf16 needs openvino and a processor that has it."""
    state: Path | None = None
    """Folder for what is done so far; by default .verify beside the version."""

    def open_session(self, version: ModelVersion) -> Session:
        """What serves the version, as asked for. Raises ArtifactError and DeviceError."""
        return open_session(
            version.path / MODEL_FILE,
            runtime=self.runtime,
            device=self.device,
            precision=self.precision,
            threads=self.threads,
        )


def check_at_least(least: int, **values: int) -> None:
    """Raises VerificationError for the first of these values that is below `least`, by its name."""
    for name, value in values.items():
        if value < least:
            raise VerificationError(f"{name} is {value}; expected {least} or more")


def check_epsilon(epsilon: float) -> None:
    """Raises VerificationError unless it is a bound on [0, 1] pixels."""
    if not 0 < epsilon <= 1:
        raise VerificationError(f"epsilon is {epsilon}; expected above 0 and at most 1 ([0, 1] pixels)")
