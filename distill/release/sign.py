"""Sign a sealed bundle with the owner's key: an OpenSSF Model Signing bundle (in-toto statement, DSSE, ECDSA)."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING

from distill.errors import ConfigError, IntegrityError, MissingDependency
from distill.release import verify_bundle
from distill.release.seal import TIME

if TYPE_CHECKING:
    from pathlib import Path


def sign(bundle: Path, key: Path, password_env: str, certificate: Path | None = None) -> None:
    """Write `model.sig` over every file of the bundle, and check it. Raises ConfigError for a key that cannot be used.

    ``certificate``: PEM file with the signer's certificate first and the authorities after it; they go into the file.

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
        chain = _chain(certificate, public) if certificate else []
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename}: {error.strerror}", where="release.sign_key") from None
    except (ValueError, TypeError) as error:
        raise ConfigError(f"not a usable key: {str(error)[:120]}", where="release.sign_key") from None
    signature = bundle / verify_bundle.SIGNATURE
    plain = hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)
    signer = signing.Config().use_elliptic_key_signer(private_key=key, password=password)
    signer.set_hashing_config(plain).sign(bundle, signature)
    if chain:
        _name_the_signer(signature, chain)
    signature.chmod(0o600)
    os.utime(signature, (TIME, TIME))
    if problems := verify_bundle.check(str(bundle), public):
        raise IntegrityError(f"the fresh signature does not hold: {problems[0]}", where=str(signature))


def _chain(path: Path, public: bytes) -> list[bytes]:
    """The certificates of a PEM file in DER. Raises ValueError when the first is not the key's, or cannot sign."""
    chain = verify_bundle.pem_blocks(path.read_bytes(), "CERTIFICATE")
    if not chain:
        raise ValueError(f"no certificate in {path.name}")
    if verify_bundle.read_key(verify_bundle.certificate(chain[0])["key"]) != verify_bundle.public_key(public):
        raise ValueError(f"the first certificate in {path.name} is another key's")
    return chain


def _name_the_signer(signature: Path, chain: list[bytes]) -> None:
    """Put the certificates where the signature's format has them. They are not signed: a verifier follows the chain.

    The library does the same for keys without a password, and takes no password.
    """
    values = json.loads(signature.read_bytes())
    listed = [{"rawBytes": base64.b64encode(data).decode("ascii")} for data in chain]
    values["verificationMaterial"] = {"x509CertificateChain": {"certificates": listed}, "tlogEntries": []}
    signature.write_text(json.dumps(values), "utf-8")
