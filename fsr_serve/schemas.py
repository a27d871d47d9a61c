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
