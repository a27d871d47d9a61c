"""What one worker counts: one class, on a registry that is passed in."""

from functools import cache
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fsr_serve.errors import RejectedError, RequestError

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
P_VALUE_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)


STAGES = ("read", "decode", "history", "queue", "inference", "checks")


class Metrics:
    """All metrics of the server. Labels are route templates, status codes, error codes and stages: small fixed sets."""

    def __init__(self, registry: CollectorRegistry) -> None:
        requests = Counter("fsr_requests", "Requests answered.", ["route", "code"], registry=registry)
        request_duration = Histogram(
            "fsr_request_duration_seconds", "From headers to answer.", ["route"], buckets=BUCKETS, registry=registry
        )
        # `labels` makes texts of its arguments and takes a lock each time
        self.requests = cache(requests.labels)
        self.request_duration = cache(request_duration.labels)
        stage_duration = Histogram(
            "fsr_stage_duration_seconds",
            f"One request's time in a stage: {', '.join(STAGES)}.",
            ["stage"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.stage_duration = {stage: stage_duration.labels(stage) for stage in STAGES}
        self.images = Counter("fsr_images", "Images classified.", registry=registry)
        self.queue_images = Gauge(
            "fsr_queue_images",
            "Images admitted and in no batch yet, those that are being parsed or decoded too.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.unready = Gauge(
            "fsr_unready_workers",
            "Workers whose session stalls, fails or errs.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.batches = Counter(
            "fsr_batches", "Batches, by why they started: full or idle.", ["reason"], registry=registry
        )
        self.batch_images = Histogram(
            "fsr_batch_images", "Images in a batch, without padding.", buckets=BATCH_BUCKETS, registry=registry
        )
        self.batch_duration = Histogram(
            "fsr_batch_duration_seconds", "Of the session, on one batch.", buckets=BUCKETS, registry=registry
        )
        self.padding_images = Counter("fsr_batch_padding_images", "Empty images added to batches.", registry=registry)
        self.rejected = Counter(
            "fsr_rejected", "Requests not admitted or expired, by error code.", ["reason"], registry=registry
        )
        self.cancelled = Counter(
            "fsr_cancelled", "Requests given up before their answer because the client left.", registry=registry
        )
        self.errors = Counter("fsr_errors", "Requests and images refused, by error code.", ["code"], registry=registry)
        suspicious = Counter(
            "fsr_suspicious_images", "Images that a check finds suspicious.", ["check"], registry=registry
        )
        self.suspicious = cache(suspicious.labels)
        self.unchecked = Counter(
            "fsr_unchecked_images",
            "Images to be watched, but others were being checked or time was up.",
            registry=registry,
        )
        p_value = Histogram(
            "fsr_check_p_value",
            "Of checked images, by check; evenly spread while they are like those it was calibrated on.",
            ["check"],
            buckets=P_VALUE_BUCKETS,
            registry=registry,
        )
        self.p_value = cache(p_value.labels)
        self.check_duration = Histogram(
            "fsr_check_duration_seconds", "Of all checks on up to 8 images.", buckets=BUCKETS, registry=registry
        )

    def count_refusal(self, error: RequestError) -> None:
        """A request that was refused as a whole."""
        self.errors.labels(error.code).inc()
        if isinstance(error, RejectedError):
            self.rejected.labels(error.code).inc()


class Stages:
    """Times the stages of one request, for its answer and for the metrics alike."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.seconds: dict[str, float] = {}

    def time(self, stage: str) -> "_Timed":
        """The time of a `with` block."""
        return _Timed(self, stage)

    def record(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = round(seconds, 6)
        self._metrics.stage_duration[stage].observe(seconds)


class _Timed:
    def __init__(self, stages: Stages, stage: str) -> None:
        self._stages = stages
        self._stage = stage

    def __enter__(self) -> None:
        self._started = perf_counter()

    def __exit__(self, *_: object) -> None:
        self._stages.record(self._stage, perf_counter() - self._started)
