"""What the checks find, in the log: whose images, and by which checks. At most one line a minute.

An image counts for each check that finds it suspicious: not all of them look at the same time.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from threading import Lock, Timer

from fsr_serve.requester import Requester

logger = logging.getLogger("fsr_serve")

QUIET_SECONDS = 60.0


def after_the_quiet_time(call: Callable[[], None]) -> None:
    timer = Timer(QUIET_SECONDS, call)
    timer.daemon = True  # the end of the process does not wait for it
    timer.start()


class Alarms:
    """Tells of the first suspicious image at once, of those that follow when the quiet time is over. For threads."""

    def __init__(self, later: Callable[[Callable[[], None]], None] = after_the_quiet_time) -> None:
        self._later = later
        self._lock = Lock()
        self._is_quiet = False
        self._keys: Counter[str | None] = Counter()
        self._checks: Counter[str] = Counter()
        self._latest = ""

    def add(self, requester: Requester, suspicious: Sequence[str]) -> None:
        """One image of a requester that some checks find suspicious."""
        with self._lock:
            self._keys[requester.key] += len(suspicious)
            self._checks.update(suspicious)
            self._latest = requester.request_id
            if self._is_quiet:
                return
            self._is_quiet = True
        self._tell()

    def _tell(self) -> None:
        """Of what was counted, and after the quiet time again, until nothing was."""
        with self._lock:
            keys, checks, latest = self._keys, self._checks, self._latest
            self._keys, self._checks = Counter(), Counter()
            self._is_quiet = bool(keys)
        if not keys:
            return
        whose = ", ".join(f"{n} {f'of key {key!r}' if key else 'without a key'}" for key, n in keys.most_common())
        by = ", ".join(f"{check} {n}" for check, n in checks.most_common())
        logger.warning(
            "findings of suspicious images since the last such line: %d (%s); by check: %s; the latest in request %s",
            keys.total(),
            whose,
            by,
            latest,
        )
        self._later(self._tell)
