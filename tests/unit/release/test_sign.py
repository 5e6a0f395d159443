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


def holds(key, signature, message):
    """True when the PEM key signed the message."""
    return verify_bundle.holds(verify_bundle.public_key(key), signature, message)


@pytest.mark.parametrize("curve", VECTORS)
def test_a_signature_made_by_openssl_holds_and_any_change_of_it_does_not(curve):
    key, signature = pem(VECTORS[curve][0]), base64.b64decode(VECTORS[curve][1])
    assert holds(key, signature, b"message")
    assert not holds(key, signature, b"Message")
    for place in range(0, len(signature) * 8, 23):
        other = bytearray(signature)
        other[place // 8] ^= 1 << place % 8
        try:
            assert not holds(key, bytes(other), b"message"), place
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
    assert not holds(pem(VECTORS["secp384r1"][0]), base64.b64decode(signature), b"message")


@pytest.mark.parametrize(("r", "s"), [(0, 0), (0, 1), (1, 0), (2**256, 1)])
def test_the_signatures_that_a_careless_verifier_accepts_are_refused(r, s):
    def number(value):
        data = value.to_bytes(max(1, (value.bit_length() + 8) // 8), "big")
        return bytes([2, len(data)]) + data

    body = number(r) + number(s)
    key = pem(VECTORS["prime256v1"][0])
    assert not holds(key, bytes([0x30, len(body)]) + body, b"message")


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


# -- certificates -------------------------------------------------------------------------------------------------


def authority(name, issuer=None, **limits):
    """(certificate, key) of an authority, or of a signer with ``ca=False``; self-signed without an issuer."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    wanted = {"ca": True, "length": None, "signs": True, "curve": ec.SECP256R1(), "hash": hashes.SHA256(), **limits}
    key = ec.generate_private_key(wanted["curve"])
    title = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    parent, parent_key = issuer or (None, key)
    start = datetime.datetime(2020, 1, 1)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign", "encipher_only"),
        False,
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(title)
        .issuer_name(parent.subject if parent else title)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=365))  # long over: a bundle outlives its certificate
        .add_extension(x509.BasicConstraints(wanted["ca"], wanted["length"] if wanted["ca"] else None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=wanted["signs"], key_cert_sign=wanted["ca"], decipher_only=False, **usage),
            critical=True,
        )
    )
    if wanted.get("strange"):
        made = made.add_extension(x509.PolicyConstraints(0, None), critical=True)
    return made.sign(parent_key, wanted["hash"]), key


def as_pem(*certificates):
    """PEM of certificates, one after another."""
    from cryptography.hazmat.primitives import serialization

    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def signed_with(bundle, tmp_path, leaf, *others, password=b"correct horse"):
    """Sign ``bundle`` with the leaf's key and put these certificates into the signature."""
    from cryptography.hazmat.primitives import serialization

    locked = serialization.BestAvailableEncryption(password)
    private = leaf[1].private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    (tmp_path / "key.pem").write_bytes(private)
    (tmp_path / "chain.pem").write_bytes(as_pem(leaf[0], *(other[0] for other in others)))
    sign.sign(bundle, tmp_path / "key.pem", "ACME_PASSWORD", tmp_path / "chain.pem")


@pytest.fixture
def password(monkeypatch):
    pytest.importorskip("model_signing")
    monkeypatch.setenv("ACME_PASSWORD", "correct horse")


def test_a_certificate_is_followed_to_a_root_that_the_client_trusts(bundle, tmp_path, password, capsys):
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    root = authority("Acme Root", curve=ec.SECP384R1(), hash=hashes.SHA384())
    middle = authority("Acme Releases", root, length=0, hash=hashes.SHA384())
    leaf = authority("Jeanne Dupont", middle, ca=False)
    signed_with(bundle, tmp_path, leaf, middle)
    (tmp_path / "root.pem").write_bytes(as_pem(root[0]))
    assert verify_bundle.check(str(bundle), as_pem(root[0])) == []
    assert verify_bundle.check(str(bundle), as_pem(authority("Other")[0], root[0])) == []
    assert verify_bundle.check(str(bundle), as_pem(leaf[0])) == []  # trusted by itself
    assert main(["verify", str(bundle), "--key", str(tmp_path / "root.pem")]) == 0
    assert "the signature is that of 'Jeanne Dupont'" in capsys.readouterr().out
    alone = [sys.executable, "-I", "-S", str(bundle / "verify.py"), "--key", str(tmp_path / "root.pem")]
    run = subprocess.run(alone, check=False, capture_output=True, text=True)
    assert (run.returncode, "Jeanne Dupont" in run.stdout) == (0, True)
    another = authority("Acme Root")  # the same name, another key
    wanted = ["model.sig: no certificate that you trust vouches for the signer's"]
    assert verify_bundle.check(str(bundle), as_pem(another[0])) == wanted
    (bundle / "README.md").write_text("# other")
    assert "README.md: changed" in verify_bundle.check(str(bundle), as_pem(root[0]))


def test_the_openssf_tool_accepts_the_signature_and_its_chain(bundle, tmp_path, password):
    verifying = pytest.importorskip("model_signing.verifying")
    from model_signing import hashing

    root = authority("Acme Root")
    middle = authority("Acme Releases", root)
    signed_with(bundle, tmp_path, authority("Jeanne Dupont", middle, ca=False), middle)
    (tmp_path / "root.pem").write_bytes(as_pem(root[0]))
    (tmp_path / "other.pem").write_bytes(as_pem(authority("Other")[0]))
    signature = bundle / "model.sig"
    plain = hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)

    def verify(trusted):
        config = verifying.Config().use_certificate_verifier(certificate_chain=[tmp_path / trusted])
        config.set_hashing_config(plain).verify(bundle, signature)

    verify("root.pem")
    with pytest.raises(Exception, match=r"unable to get local issuer|self-signed"):
        verify("other.pem")


@pytest.mark.parametrize(
    ("middle", "leaf", "said"),
    [
        ({"ca": False}, {}, "no certificate that you trust"),  # anyone with a certificate would be an authority
        ({"length": 0}, {"between": True}, "no certificate that you trust"),  # one authority too many
        ({"strange": True}, {}, "damaged"),
        ({}, {"signs": False}, "not for signing"),
    ],
)
def test_a_chain_that_may_not_vouch_is_refused(bundle, tmp_path, password, middle, leaf, said):
    root = authority("Acme Root")
    above = authority("Acme Releases", root, **middle)
    between = [authority("Acme Team", above)] if "between" in leaf else []
    signed_with(bundle, tmp_path, authority("Jeanne", (between or [above])[0], ca=False, **leaf), *between, above)
    (problem,) = verify_bundle.check(str(bundle), as_pem(root[0]))
    assert said in problem


def test_a_chain_that_was_cut_or_changed_by_one_bit_does_not_hold(bundle, tmp_path, password):
    root = authority("Acme Root")
    middle = authority("Acme Releases", root)
    signed_with(bundle, tmp_path, authority("Jeanne Dupont", middle, ca=False), middle)
    trusted, path = as_pem(root[0]), bundle / "model.sig"
    original = json.loads(path.read_text())
    chain = original["verificationMaterial"]["x509CertificateChain"]["certificates"]
    for number, entry in enumerate(chain):
        data = base64.b64decode(entry["rawBytes"])
        for place in range(0, len(data) * 8, 61):
            other = bytearray(data)
            other[place // 8] ^= 1 << place % 8
            listed = [*chain]
            listed[number] = {"rawBytes": base64.b64encode(bytes(other)).decode()}
            changed = {**original, "verificationMaterial": {"x509CertificateChain": {"certificates": listed}}}
            path.write_text(json.dumps(changed))
            assert verify_bundle.check(str(bundle), trusted), (number, place)
    path.write_text(
        json.dumps({**original, "verificationMaterial": {"x509CertificateChain": {"certificates": chain[:1]}}})
    )
    assert "no certificate that you trust" in verify_bundle.check(str(bundle), trusted)[0]
    path.write_text(json.dumps(original))
    assert verify_bundle.check(str(bundle), trusted) == []  # the negative control


def test_a_certificate_of_another_key_is_refused_before_anything_is_signed(bundle, tmp_path, keys, password):
    (tmp_path / "chain.pem").write_bytes(as_pem(authority("Other", ca=False)[0]))
    with pytest.raises(ConfigError, match="is another key's"):
        sign.sign(bundle, keys[0], "ACME_PASSWORD", tmp_path / "chain.pem")
    with pytest.raises(ConfigError, match=r"no certificate in key\.pem"):
        sign.sign(bundle, keys[0], "ACME_PASSWORD", keys[0])
    assert not (bundle / "model.sig").exists()


def test_a_bare_key_signature_is_not_enough_where_a_certificate_is_asked_for(bundle, keys, password):
    sign.sign(bundle, keys[0], "ACME_PASSWORD")
    (problem,) = verify_bundle.check(str(bundle), as_pem(authority("Root")[0]))
    assert problem == "model.sig: signed with a bare key, and not with a certificate: give the public key"
