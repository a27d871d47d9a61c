"""Who may do what: keys known by their SHA-256 only, in a file that is read again when it changes.

[keys.shop]                     # printf %s "$KEY" | sha256sum
sha256 = "<64 hex digits>"
scopes = ["infer"]
requests_per_second = 50        # in each worker; no limit when left out
"""

import hashlib
import hmac
import logging
import math
import tomllib
from pathlib import Path
from time import monotonic
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fsr_serve.errors import RequestError, SettingsError

logger = logging.getLogger("fsr_serve")

Scope = Literal["infer", "evidence", "admin", "metrics"]

OPEN_WITHOUT_KEYS: tuple[Scope, ...] = ("infer", "metrics")

OF_NOTHING = hashlib.sha256(b"").hexdigest()
"""What `printf %s "$KEY" | sha256sum` says where KEY is not set."""


class Key(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    scopes: frozenset[Scope]
    requests_per_second: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @field_validator("sha256")
    @classmethod
    def _is_of_a_key(cls, digest: str) -> str:
        if digest == OF_NOTHING:
            raise ValueError(
                "it is the hash of an empty text, which would let everybody in; set KEY and make the hash again with "
                'printf %s "$KEY" | sha256sum'
            )
        return digest


class _KeyFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: dict[Annotated[str, Field(pattern=r"^[\w.-]+$")], Key]

    @field_validator("keys")
    @classmethod
    def _has_each_key_once(cls, keys: dict[str, Key]) -> dict[str, Key]:
        names: dict[str, str] = {}
        for name, key in keys.items():
            if (other := names.setdefault(key.sha256, name)) != name:
                raise ValueError(f"{other} and {name} have the same sha256; expected one entry with the scopes of both")
        return keys


class _Allowance:
    """A bucket that holds a second's worth of requests, at least one."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._left = self._most = max(1.0, per_second)
        self._seen = monotonic()

    def spend(self) -> float:
        """0 and one request less, or the seconds until there is one."""
        now = monotonic()
        self._left = min(self._most, self._left + (now - self._seen) * self._per_second)
        self._seen = now
        if self._left < 1:
            return (1 - self._left) / self._per_second
        self._left -= 1
        return 0.0


class Keys:
    """The keys of one worker. Without a file `infer` and `metrics` are open, and the other scopes closed.

    Raises SettingsError when the file cannot be read at first; later the keys last read go on.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._keys: dict[str, Key] = {}
        self._allowances: dict[str, _Allowance] = {}
        self._stamp: tuple[int, int, int] | None = None
        self._problem = ""
        if path is not None:
            self._stamp = _stamp(path)
            self._use(_read(path))

    def authorize(self, authorization: str | None, scope: Scope) -> str | None:
        """As `check_scope`, and takes one request of the key's rate. Raises RequestError 429 beyond that."""
        name = self.check_scope(authorization, scope)
        if name in self._allowances and (seconds := self._allowances[name].spend()):
            limit = self._keys[name].requests_per_second
            raise RequestError(
                429,
                "rate_limited",
                f"the key {name!r} has {limit:g} requests a second in each worker",
                retry_after_seconds=math.ceil(seconds),
            )
        return name

    def check_scope(self, authorization: str | None, scope: Scope) -> str | None:
        """The name of the key, None where the scope is open. Takes nothing of its rate.

        Raises RequestError: 401 without a known key, 403 without the scope.
        """
        if self._path is None:
            if scope in OPEN_WITHOUT_KEYS:
                return None
            raise RequestError(403, "no_keys", f"{scope!r} always needs a key and FSR_KEYS names no file of keys")
        self._refresh(self._path)
        name = self._find(authorization or "")
        if name is None:
            raise RequestError(401, "unknown_key", "expected the header Authorization: Bearer KEY with a known key")
        scopes = self._keys[name].scopes
        if scope not in scopes:
            found = ", ".join(sorted(scopes)) or "nothing"
            raise RequestError(403, "missing_scope", f"the key {name!r} is for {found}; expected one for {scope!r}")
        return name

    def _find(self, authorization: str) -> str | None:
        scheme, _, given = authorization.partition(" ")
        # latin-1 gives back the bytes that were sent, as HTTP's headers are decoded with it
        digest = hashlib.sha256(given.encode("latin-1").strip()).hexdigest()
        # every key is compared, so that time tells nothing about which one matched
        found = [name for name, key in self._keys.items() if hmac.compare_digest(key.sha256, digest)]
        return found[0] if found and scheme.lower() == "bearer" else None

    def _refresh(self, path: Path) -> None:
        stamp = _stamp(path)
        if stamp == self._stamp:
            return
        try:
            self._use(_read(path))
        except SettingsError as error:  # tried again each time: what is wrong need not be in the file
            if str(error) != self._problem:
                logger.error("the keys read before stay in force: %s", error)
            self._problem = str(error)
        else:
            self._stamp, self._problem = stamp, ""

    def _use(self, keys: dict[str, Key]) -> None:
        self._allowances = {
            name: self._allowances[name] if self._keys.get(name) == key else _Allowance(key.requests_per_second)
            for name, key in keys.items()
            if key.requests_per_second is not None
        }
        self._keys = keys


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Changes whenever the file does; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path) -> dict[str, Key]:
    try:
        return _KeyFile.model_validate(tomllib.loads(path.read_text())).keys
    except ValidationError as error:
        reasons = [f"{'.'.join(map(str, part['loc']))}: {part['msg']}" for part in error.errors(include_input=False)]
        raise _unreadable(path, "; ".join(reasons)) from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, reason: str) -> SettingsError:
    return SettingsError(
        f"FSR_KEYS is {str(path)!r}, which cannot be used: {reason}; expected [keys.NAME] with sha256 and scopes"
    )
