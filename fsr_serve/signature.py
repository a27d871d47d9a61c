"""Signatures of model versions: OpenSSF model signing, with an elliptic-curve key of the operator's own.

A signature covers every file of a version but itself, and the manifest says which name and number it is for.
"""

import tempfile
from pathlib import Path
from typing import Any

from fsr_serve.artifact import SIGNATURE_FILE, ModelVersion
from fsr_serve.errors import SignatureError


def verify_signature(version: ModelVersion, public_key: Path) -> None:
    """Raise SignatureError unless `version` is signed by the owner of `public_key` (PEM), for where it lies."""
    verify_files(version.path, public_key)
    if version.manifest.signed_as != version.place:
        raise SignatureError(
            f"{version.path} was signed as {version.manifest.signed_as}; expected {version.place}. Move it back, or "
            f"sign it with: python -m export.sign {version.path} --key PRIVATE_KEY"
        )


def verify_files(version: Path, public_key: Path) -> None:
    """Raise SignatureError unless all of the folder is as the owner of `public_key` (PEM) signed it."""
    library = _library()
    signature = version / SIGNATURE_FILE
    if not public_key.is_file():
        raise SignatureError(f"FSR_REQUIRE_SIGNATURE is {str(public_key)!r}; expected a file with a public key in PEM")
    if not signature.is_file():
        raise SignatureError(
            f"{version} is not signed; FSR_REQUIRE_SIGNATURE asks for a signature by {public_key}. "
            f"Sign it with: python -m export.sign {version} --key PRIVATE_KEY"
        )
    try:
        config = library.verifying.Config()
        config.use_elliptic_key_verifier(public_key=public_key)
        config.set_hashing_config(_everything_but(library, signature)).verify(version, signature)
    except Exception as error:  # the library raises many kinds, for the key, the signature and the files
        raise SignatureError(
            f"{version} is not what the owner of {public_key} signed: {error}. Restore the version from where it came"
        ) from error


def sign_files(version: Path, private_key: Path) -> None:
    """Sign the folder `version` by `private_key` (PEM, without a password), replacing an earlier signature."""
    library = _library()
    if not private_key.is_file():
        raise SignatureError(f"key is {str(private_key)!r}; expected a file with a private key in PEM")
    signature = version / SIGNATURE_FILE
    with tempfile.TemporaryDirectory(dir=version.parent, prefix=".signature.") as folder:
        part = Path(folder) / SIGNATURE_FILE
        try:
            config = library.signing.Config()
            config.use_elliptic_key_signer(private_key=private_key)
            config.set_hashing_config(_everything_but(library, signature)).sign(version, part)
        except Exception as error:  # as above
            raise SignatureError(f"{private_key} cannot sign {version}: {error}") from error
        part.chmod(0o644)
        part.replace(signature)


def _everything_but(library: Any, signature: Path) -> Any:
    return library.hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)


def _library() -> Any:
    try:
        import model_signing
    except ModuleNotFoundError as error:
        raise SignatureError(
            f"signatures need {error.name}, which is not installed. Install it with: pip install '.[signing]'"
        ) from error
    return model_signing
