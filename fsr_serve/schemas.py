"""Shapes of the JSON answers."""

from typing import TypedDict


class ClassProbability(TypedDict):
    label: str
    class_index: int
    probability: float


class Prediction(ClassProbability):
    """The likeliest class, and the `top_k` likeliest in falling order."""

    top_k: list[ClassProbability]


class ErrorDetail(TypedDict):
    """`code` is for programs, `message` names the value and the rule."""

    code: str
    message: str


class RefusedImage(TypedDict):
    """Stands in `predictions` where an image of a mixed request could not be classified."""

    error: ErrorDetail


class RequestErrorDetail(ErrorDetail):
    request_id: str


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
