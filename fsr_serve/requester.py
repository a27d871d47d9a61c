"""Who asks, for the log."""

from typing import NamedTuple


class Requester(NamedTuple):
    """The request's id, and the name of its key, None where it needed none."""

    request_id: str
    key: str | None
