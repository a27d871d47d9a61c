"""Shapes of the JSON that the server takes and answers; `/openapi.json` is made of them."""

from typing import Annotated, NotRequired

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict  # typing's own is not enough for pydantic on Python 3.11

Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]


class OneImage(TypedDict):
    """The file, base64."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    image: Base64


class SeveralImages(TypedDict):
    """The files, base64."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    images: list[Base64]


class ClassProbability(TypedDict):
    label: str
    class_index: int
    probability: float


class CheckResult(TypedDict):
    """`p_value`: of images like those that the check was calibrated on, the share that looks at least as suspicious."""

    p_value: float
    is_suspicious: bool


class FsrEvidence(TypedDict, total=False):
    """`mask_mass` is the share of the features' magnitude that FSR calls non-robust, and `heads` the likeliest class by
    the robust, the non-robust and the recalibrated part of the features.
    """

    mask_mass: float
    heads: dict[str, ClassProbability]


class Evidence(FsrEvidence):
    """What speaks for and against an answer; for whom it was asked with a key of the scope `evidence`.

    `is_suspicious` when any check finds it so; of clean images about the share `false_alarm_rate` is.
    """

    is_suspicious: bool
    false_alarm_rate: float
    checks: dict[str, CheckResult]


class Prediction(ClassProbability):
    """The likeliest class, and the `top_k` likeliest in falling order."""

    top_k: list[ClassProbability]
    evidence: NotRequired[Evidence]


class ErrorDetail(TypedDict):
    """`code` is for programs, `message` names the value and the rule."""

    code: str
    message: str


class RefusedImage(TypedDict):
    """Stands in `predictions` where an image of a mixed request could not be classified."""

    error: ErrorDetail


class RequestErrorDetail(ErrorDetail):
    request_id: str


class ErrorAnswer(TypedDict):
    """A refused request."""

    error: RequestErrorDetail


class PlainErrorAnswer(TypedDict):
    """A refused request, as the Open Inference Protocol has it."""

    error: str


class ModelIdentity(TypedDict):
    """Which model version answered; `sha256` is its manifest's."""

    name: str
    version: int
    sha256: str


class Engine(TypedDict):
    """What really runs the model."""

    runtime: str
    device: str
    precision: str


class Answer(TypedDict):
    model: ModelIdentity
    request_id: str
    predictions: list[Prediction | RefusedImage]
    seconds: dict[str, float]


class Liveness(TypedDict):
    live: bool


class Readiness(Engine):
    ready: bool
    model: ModelIdentity


class ServerMetadata(TypedDict):
    name: str
    version: str
    extensions: list[str]


class TensorMetadata(TypedDict):
    """-1 stands for any number of images."""

    name: str
    datatype: str
    shape: list[int]


class ModelParameters(Engine):
    sha256: str


class ModelMetadata(TypedDict):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: ModelParameters


class ModelReadiness(TypedDict):
    name: str
    ready: bool


class BinaryParameters(TypedDict):
    binary_data_size: int


class OutputTensor(TypedDict):
    """FP32 logits, or BYTES `value:index:label`; binary data stands after the JSON, in the place of `data`."""

    name: str
    datatype: str
    shape: list[int]
    data: NotRequired[list[float] | list[str]]
    parameters: NotRequired[BinaryParameters]


class InferAnswer(TypedDict):
    id: NotRequired[str]
    model_name: str
    model_version: str
    outputs: list[OutputTensor]


class WorkerState(TypedDict):
    """What one worker says; `version` is null while it starts, `error` says why it does not serve what is wanted."""

    worker: int
    version: int | None
    error: str | None


class LoadedModel(TypedDict):
    """What every worker serves now; `previous` is the version that a rollback goes to."""

    name: str
    version: int
    sha256: str
    previous: int | None
    workers: int


class ModelState(TypedDict):
    name: str
    version: int
    sha256: str
    previous: int | None
    available: list[int]
    workers: list[WorkerState]


class Models(TypedDict):
    models: list[ModelState]
