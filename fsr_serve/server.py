"""Everything one worker holds: settings, keys, metrics and a warmed model version.

`python -m fsr_serve.server` starts one and ends, saying what is wrong where it cannot.
"""

import sys
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from fsr_serve.classifier import Classifier
from fsr_serve.errors import RejectedError, RequestError, StartupError
from fsr_serve.held_bodies import HeldBodies
from fsr_serve.keys import Keys
from fsr_serve.lifecycle import Lifecycle
from fsr_serve.metrics import Metrics
from fsr_serve.model_control import ModelControl
from fsr_serve.registry import Registry
from fsr_serve.settings import Settings, load_settings
from fsr_serve.shared_metrics import ModelInfo, Processes
from fsr_serve.workers import Worker

STOPPING = "the server is stopping; ask another one"


@dataclass(frozen=True)
class Server:
    """A server exists only when its model version is verified and warmed."""

    settings: Settings
    metrics: Metrics
    scraped: CollectorRegistry
    keys: Keys
    registry: Registry
    control: ModelControl
    bodies: HeldBodies
    lifecycle: Lifecycle = field(default_factory=Lifecycle)

    @classmethod
    def start(cls, settings: Settings, worker: Worker, scraped: CollectorRegistry | None = None) -> "Server":
        """Verify the model version that is wanted, load and warm it. Raises StartupError saying what is wrong.

        `scraped` is what /metrics shows, by default what this worker counts.
        """
        own = CollectorRegistry()
        scraped = own if scraped is None else scraped
        scraped.register(ModelInfo(worker))
        scraped.register(Processes(worker))
        metrics = Metrics(own)
        keys = Keys(settings.keys)
        registry = Registry(settings, metrics, worker)
        bodies = HeldBodies(settings.max_held_bytes)
        return cls(settings, metrics, scraped, keys, registry, ModelControl(registry, worker), bodies)

    @property
    def classifier(self) -> Classifier:
        """What serves now; another one after a change of the version, so ask once in a request."""
        return self.registry.current

    @property
    def summary(self) -> str:
        """What serves and how, for the log."""
        version, engine = self.classifier.version, self.classifier.engine
        return (
            f"version {version.version} of {version.name} (manifest {version.sha256[:12]}) serves by "
            f"{engine['runtime']} on {engine['device']}, {engine['precision']}; "
            f"checks: {', '.join(self.settings.checks) or 'none'}; "
            f"keys: {'everybody may classify' if self.settings.keys is None else self.settings.keys}"
        )

    async def check_ready(self) -> Classifier:
        """What serves, and answers rightly. Raises RequestError 503 when requests should go elsewhere."""
        self.check_not_draining()
        classifier = self.classifier
        await classifier.check()
        return classifier

    def check_not_draining(self) -> None:
        """Raises RequestError 503 from SIGTERM on."""
        if self.lifecycle.is_draining:
            raise RequestError(503, "draining", STOPPING)

    def check_not_closed(self) -> None:
        """Raises RejectedError 503 once no more requests are taken. Ask once in each: what was taken is finished."""
        if self.lifecycle.is_closed:
            raise RejectedError(503, "draining", STOPPING)

    def select(self, name: str | None, version: str | None) -> Classifier:
        """What serves that model and version, by default whatever serves. Raises RequestError 404 when nothing does."""
        classifier = self.classifier
        served = classifier.version
        if name not in (None, served.name):
            raise RequestError(404, "unknown_model", f"there is no model {name[:100]!r}; expected {served.name!r}")
        if version not in (None, str(served.version)):
            raise RequestError(
                404,
                "unknown_version",
                f"version {version[:20]!r} of {served.name!r} is not served; expected {served.version}",
            )
        return classifier


def main() -> None:
    try:
        Server.start(load_settings(), Worker.join())
    except StartupError as error:
        sys.exit(f"fsr-serve cannot start: {error}")


if __name__ == "__main__":
    main()
