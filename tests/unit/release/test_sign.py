"""A signature holds for one key and one bundle, and is checked with the standard library alone."""

import base64
import json
import os
import shutil
import subprocess
import sys

import pytest

from distill.cli import main
from distill.errors import ConfigError, MissingDependency
from distill.release import seal, sign, verify_bundle

# Made with openssl over b"message": public key and signature for each curve, the private keys thrown away.
VECTORS = {
    "prime256v1": (
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEFDI6JrWFWPlvNVTmv8/69J2RndmSQfLVtZusLfT60oBVq6uxgAxISgrC1s4K"
        "4mxgPvT28FcWVQwO4jDVy/8MHA==",
        "MEQCIE7t9wNw3fj76fDCuYh3CwXWjHQcV0zK8E6E+4bi3Bz4AiB5e/mnDsM9nHw+HwSINmntIJ4qCP0DKjolM6DSJ9oonA==",
    ),
    "secp384r1": (
        "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEpsTQty0SWfoX63JLUDV6EfFluuMPTEMiHzi9bIVgoFx4aW60n5y0Yh5lOCxe4O/F"
        "YH45dScxudHPSdVtrh7ZbRzggj/GMEjdSnQn94Ig8VyxxyCwBIANIUm3Hpomm6eE",
        "MGYCMQDuT1lZXcOJg2wAmsZX3BW7PJ6oXcsomVbIOXhfrwh2MMlAz/IAlu6MN45oG0Fz1nwCMQD2kOg9Rg59vLcSe0VGxDXn"
        "701bsj0tc/W0vtgNrUx/kqvN+gg0RPADVR/R3tKqb5I=",
    ),
    "secp521r1": (
        "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQBm/mOD9iBuATpYu+/HW6xTf9Dh6DUZ0JQGN9VoIP6dwQP0RnuGhqvchPB9qKf"
        "yCBuiI378oSLDUg7R0XnIYLohhwBeFcG3y5//Lofi4lGzwZiQOOZV+YrUXCWh3HJv7dUwXhkqvV4Oo+v/J9Hb8SAdgt1D6mi"
        "OKX8BoAxNQkRI7fCTaY=",
        "MIGIAkIA7I4lewpEe9OiexyZDkssdQuDCaKUjNWDak8jN3zFbAHEyyl89onrfhXd5AqDHKqtTz67nM7ESeox6z6JF/8ijnkC"
        "QgDnI4rJb+UT4sYJNhfLsQWWXYNrvlArvkNWf26zMkgJ6qaFh0gCBKtFxzuOQnr0t9Kj2lQg6ZEN+DN3lrhNbEAd5w==",
    ),
}


def pem(body):
    """A public key in PEM."""
    return b"-----BEGIN PUBLIC KEY-----\n" + body.encode() + b"\n-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize("curve", VECTORS)
def test_a_signature_made_by_openssl_holds_and_any_change_of_it_does_not(curve):
    key, signature = pem(VECTORS[curve][0]), base64.b64decode(VECTORS[curve][1])
    assert verify_bundle.ecdsa_holds(key, signature, b"message")
    assert not verify_bundle.ecdsa_holds(key, signature, b"Message")
    for place in range(0, len(signature) * 8, 23):
        other = bytearray(signature)
        other[place // 8] ^= 1 << place % 8
        try:
            assert not verify_bundle.ecdsa_holds(key, bytes(other), b"message"), place
        except ValueError:
            continue  # no longer a signature at all


def test_another_key_a_key_off_its_curve_and_what_is_no_key_are_refused():
    key, signature = VECTORS["prime256v1"]
    other = bytearray(base64.b64decode(key))
    other[-1] ^= 1
    with pytest.raises(ValueError, match="not a point"):
        verify_bundle.public_key(pem(base64.b64encode(bytes(other)).decode()))
    for wrong in (b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", b"ssh-ed25519 AAAA"):
        with pytest.raises(ValueError, match=r"."):
            verify_bundle.public_key(wrong)
    assert not verify_bundle.ecdsa_holds(pem(VECTORS["secp384r1"][0]), base64.b64decode(signature), b"message")


@pytest.mark.parametrize(("r", "s"), [(0, 0), (0, 1), (1, 0), (2**256, 1)])
def test_the_signatures_that_a_careless_verifier_accepts_are_refused(r, s):
    def number(value):
        data = value.to_bytes(max(1, (value.bit_length() + 8) // 8), "big")
        return bytes([2, len(data)]) + data

    body = number(r) + number(s)
    key = pem(VECTORS["prime256v1"][0])
    assert not verify_bundle.ecdsa_holds(key, bytes([0x30, len(body)]) + body, b"message")


@pytest.fixture
def bundle(tmp_path):
    """A small sealed bundle."""
    folder = tmp_path / "acme-1.0"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "w.safetensors").write_bytes(bytes(1000))
    (folder / "README.md").write_text("# acme")
    seal.seal(folder)
    return folder


@pytest.fixture
def keys(tmp_path):
    """(private, public) key files."""
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP384R1())
    paths = tmp_path / "key.pem", tmp_path / "pub.pem"
    locked = serialization.BestAvailableEncryption(b"correct horse")
    paths[0].write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    paths[1].write_bytes(
        private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return paths


def test_a_bundle_without_a_signature_fails_when_a_key_is_given(bundle):
    key = pem(VECTORS["prime256v1"][0])
    assert verify_bundle.check(str(bundle), key) == ["model.sig: missing: the bundle is not signed"]


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"dsseEnvelope": {}}', '{"dsseEnvelope": {"payload": 1}}', "[" * 9999]
)
def test_a_damaged_signature_file_is_one_line(bundle, text):
    (bundle / "model.sig").write_text(text)
    (problem,) = verify_bundle.check(str(bundle), pem(VECTORS["prime256v1"][0]))
    assert problem.startswith("model.sig: damaged")


def test_a_key_that_cannot_be_used_is_a_configuration_error(bundle, tmp_path):
    pytest.importorskip("model_signing")
    (tmp_path / "bad.pem").write_text("no key")
    with pytest.raises(ConfigError, match="not a usable key"):
        sign.sign(bundle, tmp_path / "bad.pem", "")
    with pytest.raises(ConfigError, match="ACME_PASSWORD is not set"):
        sign.sign(bundle, tmp_path / "bad.pem", "ACME_PASSWORD")
    with pytest.raises(ConfigError, match="No such file"):
        sign.sign(bundle, tmp_path / "none.pem", "")


def test_without_the_library_the_message_says_what_to_install(bundle, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(MissingDependency, match="model-signing"):
        sign.sign(bundle, tmp_path / "key.pem", "")


def test_a_signed_bundle_holds_for_its_key_only_and_for_its_files_only(bundle, keys, tmp_path, monkeypatch, capsys):
    pytest.importorskip("model_signing")
    monkeypatch.setenv("ACME_PASSWORD", "correct horse")
    private, public = keys
    sign.sign(bundle, private, "ACME_PASSWORD")
    assert verify_bundle.check(str(bundle)) == []
    assert verify_bundle.check(str(bundle), public.read_bytes()) == []
    assert "not a signature by this key" in verify_bundle.check(str(bundle), pem(VECTORS["secp384r1"][0]))[0]
    alone = [sys.executable, "-I", "-S", str(bundle / "verify.py"), "--key", str(public)]
    assert subprocess.run(alone, check=False, capture_output=True).returncode == 0
    assert main(["verify", str(bundle), "--key", str(public)]) == 0
    assert "the signature is the key's" in capsys.readouterr().out

    # someone changes a file and seals again: the hashes agree, the signature does not
    forged = tmp_path / "forged"
    shutil.copytree(bundle, forged)
    (forged / "README.md").write_text("# other")
    (forged / "SHA256SUMS").unlink()
    signature = (forged / "model.sig").read_bytes()
    (forged / "model.sig").unlink()
    seal.seal(forged)
    (forged / "model.sig").write_bytes(signature)
    assert verify_bundle.check(str(forged)) == []
    problems = verify_bundle.check(str(forged), public.read_bytes())
    assert problems == ["model.sig: signed another README.md", "model.sig: signed another SHA256SUMS"]


def test_the_signature_is_one_that_the_openssf_tool_accepts(bundle, keys, monkeypatch):
    verifying = pytest.importorskip("model_signing.verifying")
    from model_signing import hashing

    monkeypatch.setenv("ACME_PASSWORD", "correct horse")
    sign.sign(bundle, keys[0], "ACME_PASSWORD")
    signature = bundle / "model.sig"
    plain = hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)
    verifier = verifying.Config().use_elliptic_key_verifier(public_key=keys[1]).set_hashing_config(plain)
    verifier.verify(bundle, signature)
    assert json.loads(signature.read_text())["mediaType"].startswith("application/vnd.dev.sigstore.bundle")
    assert not os.environ.get("SIGSTORE_ID_TOKEN")
