"""One writer per file for as long as its process lives, or several by turns."""

import errno
import fcntl
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
"""How some network file systems answer."""


class LockedError(RuntimeError):
    """Another process holds the lock; the message says which."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Within, every other `locked` of this path raises LockedError.

    The kernel frees the lock however the process ends, so that none is ever left behind; the file stays. On a file
    system without locks there is a warning instead.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise LockedError(file.read().strip()) from error
        except OSError as error:
            _warn_without_locks(path.parent, error)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Within, every other `in_turn` of this folder waits; warns as `locked` does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            _warn_without_locks(folder, error)
        yield
    finally:
        os.close(descriptor)


def _warn_without_locks(folder: Path, error: OSError) -> None:
    """Raise the error where it is of another kind."""
    if error.errno not in WITHOUT_LOCKS:
        raise error
    warnings.warn(f"{folder} cannot be locked ({error.strerror}): let one process write it", stacklevel=4)
