"""Request bodies in memory: bounded together, as each is by itself."""

from dataclasses import dataclass

from fsr_serve.errors import RejectedError


@dataclass
class HeldBodies:
    """`held` bytes of the bodies of a worker's requests, those that are still arriving too; at most `limit`."""

    limit: int
    held: int = 0

    def take(self, count: int) -> None:
        """Raises RejectedError 429 `bodies_full` where so many bytes more would be too many."""
        if self.held + count > self.limit:
            raise RejectedError(
                429,
                "bodies_full",
                f"the requests before hold {self.held} bytes; at most {self.limit} may be held, with these {count}; "
                "come back later",
                retry_after_seconds=1,
            )
        self.held += count

    def give_back(self, count: int) -> None:
        self.held -= count
