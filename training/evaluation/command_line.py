"""How every command of python -m training.evaluation speaks and ends."""

import sys
from collections.abc import Callable, Iterable


def goes_on(again: bool) -> str:
    """What is said when a command is stopped that keeps what it has measured."""
    return f"stopped; the same command{' without --again' * again} goes on from here"


def tell(report: Callable[[], Iterable[str]], *errors: type[Exception], stopped: str = "stopped") -> None:
    """Print each line as soon as there is one; end the process with one line for these errors, OSError and Ctrl-C."""
    expected: tuple[type[Exception], ...] = (*errors, OSError)
    try:
        for line in report():
            print(line, flush=True)
    except expected as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"\n{stopped}")
