"""Everything that goes wrong on purpose.

FsrError
├── StartupError            the server refuses to start
│   ├── SettingsError       a setting is unknown or out of range
│   ├── ArtifactError       a model version is missing, incomplete or altered
│   ├── SignatureError      a model version is not signed as it must be
│   ├── StateError          the file that says which version is wanted cannot be read or written
│   └── DeviceError         the runtime, device or precision asked for cannot be used
└── RequestError            a request, or one image of it, is refused: HTTP status, code, message
    └── RejectedError       it is not admitted, or not done in time
"""

from typing import TypeVar

_Error = TypeVar("_Error", bound=BaseException)


class FsrError(Exception):
    """Base of all; the message names the value, the rule and the fix, and is fit for users."""


class StartupError(FsrError):
    """The server cannot start as it is set up."""


class SettingsError(StartupError):
    """A setting is unknown or out of range."""


class ArtifactError(StartupError):
    """A model version is missing, incomplete or altered."""


class SignatureError(StartupError):
    """A model version is not signed by the key that must have signed it, or was altered since."""


class StateError(StartupError):
    """The file that says which version is wanted cannot be read or written."""


class DeviceError(StartupError):
    """The runtime, device or precision asked for cannot be used."""


class RequestError(FsrError):
    """A request, or one image of it, that is refused. `code` is stable, for programs; `status` is the HTTP status."""

    def __init__(self, status: int, code: str, message: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.status = status
        self.code = code
        self.message = message


class RejectedError(RequestError):
    """A request that is not admitted, or not done in time."""


def without_frames(error: _Error) -> _Error:
    """The error without the calls that led to it: they hold bodies and pixels and, in a cycle, the error itself."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error
