"""Sign a sealed bundle with the owner's key: an OpenSSF Model Signing bundle (in-toto statement, DSSE, ECDSA)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from distill.errors import ConfigError, IntegrityError, MissingDependency
from distill.release import verify_bundle
from distill.release.seal import TIME

if TYPE_CHECKING:
    from pathlib import Path


def sign(bundle: Path, key: Path, password_env: str) -> None:
    """Write `model.sig` over every file of the bundle, and check it. Raises ConfigError for a key that cannot be used.

    ECDSA draws a fresh number for each signature: `model.sig` is the one file that differs from build to build.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from model_signing import hashing, signing
    except ImportError:
        raise MissingDependency("model-signing", "release.sign_key", "sign") from None
    # Bytes: version 1.1.1 of the library hands the password on as it is.
    password = os.environb.get(os.fsencode(password_env)) if password_env else None
    if password_env and password is None:
        raise ConfigError(f"the environment variable {password_env} is not set", where="release.sign_password_env")
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), password)
        public = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        verify_bundle.public_key(public)
    except OSError as error:
        raise ConfigError(f"cannot read the key: {error.strerror}", where="release.sign_key") from None
    except (ValueError, TypeError) as error:
        raise ConfigError(f"not a usable key: {str(error)[:120]}", where="release.sign_key") from None
    signature = bundle / verify_bundle.SIGNATURE
    plain = hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)
    signer = signing.Config().use_elliptic_key_signer(private_key=key, password=password)
    signer.set_hashing_config(plain).sign(bundle, signature)
    signature.chmod(0o600)
    os.utime(signature, (TIME, TIME))
    if problems := verify_bundle.check(str(bundle), public):
        raise IntegrityError(f"the fresh signature does not hold: {problems[0]}", where=str(signature))
