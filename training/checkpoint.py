"""Run folders: config.json, best / last / resume.safetensors, history.jsonl. Nothing in them is ever unpickled."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tyro
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.data import ImageData
from training.decoding import JpegScale
from training.lock import LockedError, locked
from training.models import BACKBONES, FSRNet, create_model
from training.recipes import Recipe, RecipeName
from training.source import DataError

Weights = Literal["best", "last"]


STRICT = ConfigDict(extra="forbid")


class CheckpointError(ValueError):
    """A run folder that is missing, incomplete, damaged or of another run; the message says which and the fix."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The network, but for its number of classes, which the data decides."""

    name: Annotated[str, tyro.conf.arg(name="model")] = "resnet18"
    """resnet18, resnet50, vgg16 or wide_resnet34_10."""
    width: int | None = None
    """Channels of the first stage; the paper's by default."""
    activation: str = "relu"
    """relu or silu."""
    fsr: bool = True
    """Insert FSR modules."""
    after: tuple[str, ...] | None = None
    """Submodules that FSR follows, such as layer3 layer4; the paper's place by default."""
    tau: float = 0.1
    """Temperature of the Gumbel softmax (Eq. 2)."""
    mask: str = "gumbel"
    """gumbel (Eq. 2), binary (Eq. 8), random, greedy or none: how FSR parts the features (Tables A6 and A7)."""
    recalibration: bool = True
    """Recalibrate the non-robust feature, or drop it (Table 6)."""
    rival: str | None = None
    """fd, cas or cifs instead of FSR, with --no-fsr (Table 4)."""

    @property
    def description(self) -> str:
        """For reports: resnet18 with FSR."""
        module = "FSR" if self.fsr else self.rival and self.rival.upper()
        return f"{self.name} with {module}" if module else self.name

    @property
    def spelt_out(self) -> Self:
        """The same network with what the paper decides by default; one of an unknown name as it is."""
        if (backbone := BACKBONES.get(self.name)) is None:
            return self
        width = backbone.width if self.width is None else self.width
        after = (backbone.fsr_after,) if self.after is None else self.after
        return replace(self, width=width, after=after)


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class ModelConfig(Architecture):
    """The arguments of `create_model`."""

    num_classes: int

    def build(self) -> FSRNet:
        """Raises ValueError for a network that there is not."""
        arguments = asdict(self)
        return create_model(arguments.pop("name"), **arguments)


@with_config(STRICT)
@dataclass(frozen=True)
class RunConfig:
    """Everything needed to rebuild the network and repeat the run."""

    model: ModelConfig
    recipe_name: RecipeName
    recipe: Recipe
    start: str | None
    """Run folder whose best weights the run started from; None for random ones."""
    data: str
    data_name: str
    data_sha256: str
    """Of the training images, held-out ones included: `ImageData.sha256`."""
    classes: tuple[str, ...]
    image_shape: tuple[int, int]
    """Height and width of the images."""
    seed: int
    extra: str | None = None
    """Where the extra data lies; None for none."""
    extra_sha256: str | None = None
    jpeg_scale: JpegScale = "full"

    def __post_init__(self) -> None:
        """Raise ValueError for losses of features that the network does not have."""
        if not self.model.fsr:
            return
        if self.model.mask == "none" and self.recipe.lambda_sep != 0:
            raise ValueError(
                f"mask is 'none' and lambda_sep {self.recipe.lambda_sep}; without separation there is no robust "
                "feature for L_sep: choose lambda_sep 0"
            )
        if not self.model.recalibration and self.recipe.lambda_rec != 0:
            raise ValueError(
                f"recalibration is off and lambda_rec {self.recipe.lambda_rec}; without it there is no recalibrated "
                "feature for L_rec: choose lambda_rec 0"
            )

    def check_data(self, data: ImageData, extra: ImageData | None = None) -> None:
        """Raise DataError unless this is the training data of the run, image by image; likewise `extra` if given."""
        if data.sha256 != self.data_sha256:
            raise DataError(
                f"the training images are not those of the run: SHA-256 {data.sha256}, expected {self.data_sha256} "
                f"({self.data_name}, {len(self.classes)} classes). Say by --data where they lie"
            )
        if extra is not None and extra.sha256 != self.extra_sha256:
            raise DataError(
                f"the extra images are not those of the run: SHA-256 {extra.sha256}, expected {self.extra_sha256}. "
                "Say by --extra where they lie"
            )


_CONFIG = TypeAdapter(RunConfig)


class RunFolder:
    """One run's files. Every file appears whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.history_path = path / "history.jsonl"
        self._config_path = path / "config.json"
        self._environment_path = path / "environment.json"
        self._resume_path = path / "resume.safetensors"
        self._lock_path = path / ".lock"

    @property
    def has_begun(self) -> bool:
        """Whether there is a run in the folder."""
        return self._config_path.exists()

    def check_is_new(self) -> None:
        """Raise CheckpointError where there is something already."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise CheckpointError(f"{self.path} is a file; choose another --out")
        if self.has_begun:
            raise CheckpointError(f"{self.path} holds a run; go on with it by --resume, or choose another --out")
        if any(path != self._lock_path for path in self.path.iterdir()):
            raise CheckpointError(f"{self.path} is not empty and holds no run; choose another --out")

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Within, this process alone writes here. Raises CheckpointError where another one does, as long as it lives.

        A run whose torchrun was killed may live on.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with locked(self._lock_path):
                yield
        except LockedError as holder:
            raise CheckpointError(
                f"{self.path} is being written by {holder}; a run folder has one writer. Wait until that process ends, "
                "or end it"
            ) from holder

    def create(self, config: RunConfig) -> None:
        """Begin a run in the folder. Raises CheckpointError where there is something already."""
        self.check_is_new()
        self.path.mkdir(parents=True, exist_ok=True)
        _write_text(self._config_path, json.dumps(asdict(config), indent=2) + "\n")

    def save_environment(self, environment: Mapping[str, Any], epoch: int) -> None:
        """Note what the run trains on from `epoch` on; what it trained on before stays noted."""
        earlier = [part for part in self.environments() if part.get("from_epoch", 1) < epoch]
        first, *later = [*earlier, {"from_epoch": epoch, **environment}]
        _write_text(self._environment_path, json.dumps({**first, "later": later}, indent=2) + "\n")

    def environments(self) -> list[dict[str, Any]]:
        """What each part of the run was trained on, in order; nothing where that was not kept."""
        if not self._environment_path.exists():
            return []
        try:
            first = json.loads(self._environment_path.read_text())
            return [first, *first.pop("later", [])]
        except (ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{self._environment_path} is damaged: {error}. Delete it; the run and its reports do without"
            ) from error

    def config(self) -> RunConfig:
        try:
            return _CONFIG.validate_json(self._config_path.read_bytes())
        except OSError as error:
            raise CheckpointError(
                f"{self._config_path} cannot be read ({error.strerror}); expected a run folder made by "
                "python -m training"
            ) from error
        except ValidationError as error:
            raise CheckpointError(f"{self._config_path} is not the config of a run: {error}") from error

    def save_weights(self, which: Weights, state: Mapping[str, Tensor]) -> None:
        _save_tensors(self.path / f"{which}.safetensors", state, {})

    def load_model(self, which: Weights) -> FSRNet:
        """The trained network in eval mode."""
        path = self.path / f"{which}.safetensors"
        try:
            model = self.config().model.build()
            model.load_state_dict(load_file(path))
        except CheckpointError:
            raise
        except (OSError, SafetensorError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path} does not hold the weights of this run: {error}") from error
        return model.eval()

    def append_history(self, record: Mapping[str, Any]) -> None:
        self._write_history([*self.history(), record])

    def history(self) -> list[dict[str, Any]]:
        if not self.history_path.exists():
            return []
        try:
            return [json.loads(line) for line in self.history_path.read_text().splitlines()]
        except ValueError as error:
            raise CheckpointError(
                f"{self.history_path} is damaged: {error}; expected a JSON object on each line. Restore it from a copy"
            ) from error

    def _write_history(self, records: Sequence[Mapping[str, Any]]) -> None:
        _write_text(self.history_path, "".join(json.dumps(record) + "\n" for record in records))

    def save_resume(self, tensors: Mapping[str, Tensor], epoch: int) -> None:
        """Keep the state after `epoch`. One file, so that tensors and epoch cannot disagree."""
        _save_tensors(self._resume_path, tensors, {"epoch": str(epoch)})

    def load_resume(self) -> tuple[dict[str, Tensor], int]:
        """The state kept last and its epoch; none and 0 before the first."""
        epoch: int = 0
        tensors: dict[str, Tensor] = {}
        if self._resume_path.exists():
            try:
                with safe_open(self._resume_path, framework="pt") as file:
                    epoch = int(file.metadata()["epoch"])
                tensors = load_file(self._resume_path)
            except (OSError, SafetensorError, KeyError, TypeError) as error:
                raise CheckpointError(
                    f"{self._resume_path} is damaged: {error}; the run cannot go on. Restore it from a copy, or "
                    f"begin another run with --start {self.path} from the best weights"
                ) from error
        return tensors, epoch

    def drop_history_after(self, epoch: int) -> None:
        """Forget what was written of an epoch whose state was not kept."""
        self._write_history(self.history()[:epoch])


def _save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    part = path.with_suffix(".part")
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part, metadata)
    except SafetensorError as error:  # of a full disk, for one
        raise CheckpointError(f"{path} cannot be written: {error}. Remedy that and go on by --resume") from error
    _replace(part, path)


def _write_text(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    _replace(part, path)


def _replace(part: Path, path: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
