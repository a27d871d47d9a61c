"""The command python -m export.sign: sign a model version, so that servers that require it will load it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from export.changing import being_changed, write_manifest
from fsr_serve.errors import StartupError
from fsr_serve.signature import sign_files


@dataclass(frozen=True)
class Arguments:
    """Sign a model version with a private key. Sign last: python -m export.verify changes the manifest.

    A key pair: openssl ecparam -name prime256v1 -genkey -noout -out key.pem && openssl ec -in key.pem -pubout -out
    key.pub. Servers started with FSR_REQUIRE_SIGNATURE=key.pub load only versions signed with key.pem.
    """

    version: tyro.conf.Positional[Path]
    """MODELS/NAME/VERSION."""
    key: Path
    """Private key, PEM without a password."""


def sign(path: Path, private_key: Path) -> None:
    """Sign the model version for its name and number. Raises ArtifactError and SignatureError, changing nothing."""
    with being_changed(path) as version:
        is_named = version.manifest.signed_as == version.place
        if not is_named:
            write_manifest(version.path, version.manifest.model_copy(update={"signed_as": version.place}))
        try:
            sign_files(version.path, private_key)
        except BaseException:
            if not is_named:
                write_manifest(version.path, version.manifest)
            raise


def main(args: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments, prog="python -m export.sign", args=args)
    try:
        sign(arguments.version, arguments.key)
    except (StartupError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{arguments.version}: signed")
