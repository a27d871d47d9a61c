"""One writer per file, for as long as its process lives."""

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
            if error.errno not in WITHOUT_LOCKS:
                raise
            warnings.warn(f"{path.parent} cannot be locked ({error.strerror}): let one run write it", stacklevel=3)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield
