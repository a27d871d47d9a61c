"""A new model version appears at its target whole, or not at all."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from export.errors import TargetError
from fsr_serve.artifact import VERSION_NAME
from fsr_serve.files import sync


@contextlib.contextmanager
def new_version(target: Path) -> Iterator[Path]:
    """A hidden folder to fill, which becomes MODELS/NAME/VERSION when the block ends without an error.

    Raises TargetError when the target is no such path or exists.
    """
    check_target(target)
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield part
        part.chmod(0o755)  # temporary files are for their owner only; the server may be another user
        for file in part.iterdir():
            file.chmod(0o644)
            sync(file)
        sync(part)
        part.rename(target)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        with contextlib.suppress(OSError):  # somebody else uses one of them by now
            for folder in made:
                folder.rmdir()
        if isinstance(error, OSError) and target.exists():
            raise _exists(target) from error
        raise


def check_target(target: Path) -> None:
    """Raise TargetError unless a version can be made there."""
    if not VERSION_NAME.fullmatch(target.name):
        raise TargetError(
            f"target is {str(target)!r}; expected MODELS/NAME/VERSION with a whole number as VERSION, "
            "without zeros before it"
        )
    if target.exists():
        raise _exists(target)


def _exists(target: Path) -> TargetError:
    return TargetError(f"{target} exists; a version is never overwritten, so export to the next number")
