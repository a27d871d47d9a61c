"""The BentoML service: the only file that imports bentoml."""

import sys
from http import HTTPStatus
from typing import Any

import bentoml
from bentoml.exceptions import BentoMLException
from prometheus_client import REGISTRY

from fsr_serve.artifact import greatest_version, read_version
from fsr_serve.errors import RequestError, StartupError
from fsr_serve.http.app import create_app
from fsr_serve.http.classify import DEFAULT_TOP_K
from fsr_serve.metrics import Stages
from fsr_serve.server import Server
from fsr_serve.settings import load_settings


@bentoml.asgi_app(create_app(lambda: bentoml.get_current_service().server))
@bentoml.service(
    name="fsr-serve",
    http={"host": "127.0.0.1", "port": 3000},
    metrics={"enabled": False},  # BentoML labels them with raw paths, without bound
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": "classify,livez,readyz,metrics"},
    threads=4,
)
class FsrServe:
    """Classifies images with the greatest verified version of a model."""

    @staticmethod
    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    def check() -> None:
        """Once, before any worker starts: refuse to serve what cannot be served."""
        try:
            settings = load_settings()
            read_version(greatest_version(settings.models, settings.model))
        except StartupError as error:
            sys.exit(f"fsr-serve cannot start: {error}")

    def __init__(self) -> None:
        self.server = Server.start(load_settings(), REGISTRY)

    def __is_ready__(self) -> bool:
        return True  # an instance exists only once its model is verified and warmed

    @bentoml.api(route="/bentoml/classify")  # type: ignore[untyped-decorator]
    def classify(self, image: bytes, /) -> dict[str, Any]:
        """Classify one encoded image; for BentoML's own clients. Everyone else: POST /classify."""
        classifier = self.server.classifier
        stages = Stages(self.server.metrics)
        (result,) = classifier.classify([image], min(DEFAULT_TOP_K, len(classifier.classes)), stages)
        if isinstance(result, RequestError):
            raise BentoMLException(result.message, error_code=HTTPStatus(result.status))
        return {"model": classifier.identity, "predictions": [result], "seconds": stages.seconds}
