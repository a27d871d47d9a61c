"""What the checks find, in the log: whose images, and by which checks. At most one line a minute."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from threading import Lock
from time import monotonic

from fsr_serve.requester import Requester

logger = logging.getLogger("fsr_serve")

QUIET_SECONDS = 60.0


class Alarms:
    """Counts suspicious images between two lines of the log. For several threads."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._lock = Lock()
        self._told_at = -math.inf
        self._keys: Counter[str | None] = Counter()
        self._checks: Counter[str] = Counter()

    def add(self, requester: Requester, suspicious: Sequence[str]) -> None:
        """One image of a requester that some checks find suspicious."""
        with self._lock:
            self._keys[requester.key] += 1
            self._checks.update(suspicious)
            if self._now() - self._told_at < QUIET_SECONDS:
                return
            self._told_at = self._now()
            keys, checks = self._keys, self._checks
            self._keys, self._checks = Counter(), Counter()
        whose = ", ".join(f"{n} {f'of key {key!r}' if key else 'without a key'}" for key, n in keys.most_common())
        by = ", ".join(f"{check} {n}" for check, n in checks.most_common())
        logger.warning(
            "%d images looked suspicious since the last such line: %s; by check: %s; the latest in request %s",
            keys.total(),
            whose,
            by,
            requester.request_id,
        )
