"""Everything one worker holds: settings, metrics and a warmed classifier.

`python -m fsr_serve.server` starts one and ends, saying what is wrong where it cannot.
"""

import sys
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from fsr_serve.artifact import MODEL_FILE, greatest_version, read_version
from fsr_serve.classifier import Classifier
from fsr_serve.errors import RequestError, StartupError
from fsr_serve.keys import Keys
from fsr_serve.lifecycle import Lifecycle
from fsr_serve.metrics import Metrics
from fsr_serve.session import open_session
from fsr_serve.settings import Settings, load_settings
from fsr_serve.signature import verify_signature


@dataclass(frozen=True)
class Server:
    """A server exists only when its model version is verified and warmed."""

    settings: Settings
    metrics: Metrics
    keys: Keys
    classifier: Classifier
    lifecycle: Lifecycle = field(default_factory=Lifecycle)

    @classmethod
    def start(cls, settings: Settings, registry: CollectorRegistry) -> "Server":
        """Verify the greatest model version, load and warm it. Raises StartupError saying what is wrong."""
        metrics = Metrics(registry)
        keys = Keys(settings.keys)
        version = read_version(greatest_version(settings.models, settings.model))
        if settings.require_signature is not None:
            verify_signature(version.path, settings.require_signature)
        session = open_session(
            version.path / MODEL_FILE,
            runtime=settings.runtime,
            device=settings.device,
            precision=settings.precision,
            threads=settings.threads,
        )
        classifier = Classifier(version, session, settings, metrics)
        classifier.warm()
        metrics.model_info.labels(
            model=version.name, version=str(version.version), sha256=version.sha256, **classifier.engine
        ).set(1)
        return cls(settings, metrics, keys, classifier)

    async def check_ready(self) -> None:
        """Raises RequestError 503 when requests should go elsewhere."""
        if self.lifecycle.is_draining:
            raise RequestError(503, "draining", "the server is stopping; ask another one")
        await self.classifier.check()

    def select(self, name: str | None, version: str | None) -> Classifier:
        """What serves that model and version, by default whatever serves. Raises RequestError 404 when nothing does."""
        served = self.classifier.version
        if name not in (None, served.name):
            raise RequestError(404, "unknown_model", f"there is no model {name[:100]!r}; expected {served.name!r}")
        if version not in (None, str(served.version)):
            raise RequestError(
                404,
                "unknown_version",
                f"version {version[:20]!r} of {served.name!r} is not loaded; expected {served.version}",
            )
        return self.classifier


def main() -> None:
    try:
        Server.start(load_settings(), CollectorRegistry())
    except StartupError as error:
        sys.exit(f"fsr-serve cannot start: {error}")


if __name__ == "__main__":
    main()
