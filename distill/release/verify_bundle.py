#!/usr/bin/env python3
"""Check a bundle: every file is there, is what SHA256SUMS says, and nothing else is there.

This one file needs only Python (3.8 or newer). A copy lies in every bundle:

    python verify.py              checks the folder that verify.py is in
    python verify.py FOLDER       checks another folder
    python verify.py --key PEM [FOLDER]
                                  and checks the signature in model.sig: PEM holds the signer's public key, or
                                  the certificates that you trust to name signers (their dates are not looked at)

Exit code 0: sound. 6: not sound; each problem is one line. 2: cannot be checked.
A copy inside a bundle can be exchanged together with the bundle: trust one that came another way.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Key = tuple[tuple[str, int, int, int, int, int], int, int]
    Certificate = dict[str, Any]

SUMS = "SHA256SUMS"
MAX_SUMS_BYTES = 16_000_000
LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)\n")
BLOCK = 1 << 20
SIGNATURE = "model.sig"
ECDSA = {"2a8648ce3d040302": "sha256", "2a8648ce3d040303": "sha384", "2a8648ce3d040304": "sha512"}
CONSTRAINTS, USAGE, PURPOSE, CODE_SIGNING = "551d13", "551d0f", "551d25", bytes.fromhex("06082b06010505070303")
LONGEST_CHAIN = 4
# Object identifier -> hash, then p, b, the generator's x and y, and its order (SEC 2; a is p - 3).
CURVES: dict[str, tuple[str, int, int, int, int, int]] = {
    "2a8648ce3d030107": (
        "sha256",
        2**256 - 2**224 + 2**192 + 2**96 - 1,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
        0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
        0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
        0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    ),
    "2b81040022": (
        "sha384",
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
        0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7,
        0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F,
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    ),
    "2b81040023": (
        "sha512",
        2**521 - 1,
        int(
            "51953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef109e156193951ec7e937b1652c0bd3bb1bf"
            "073573df883d2c34f1ef451fd46b503f00",
            16,
        ),
        int(
            "c6858e06b70404e9cd9e3ecb662395b4429c648139053fb521f828af606b4d3dbaa14b5e77efe75928fe1dc127a2ffa8"
            "de3348b3c1856a429bf97e7e31c2e5bd66",
            16,
        ),
        int(
            "11839296a789a3bc0045c8a5fb42c7d1bd998f54449579b446817afbd17273e662c97ee72995ef42640c550b9013fad0"
            "761353c7086a272c24088be94769fd16650",
            16,
        ),
        int(
            "1fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a"
            "5d03bb5c9b8899c47aebb6fb71e91386409",
            16,
        ),
    ),
}


class NotABundle(Exception):
    """There is nothing to check: no folder, or no SHA256SUMS."""


class NotTrusted(Exception):
    """The signature is by somebody whom the given certificates do not vouch for."""


def unsafe(name: str) -> str:
    """Why ``name`` may not be the path of a file in a bundle; '' when it may."""
    if not name.isprintable() or "\\" in name or len(name.encode("utf-8", "replace")) > 1000:
        return "unprintable, backslash or too long"
    if name.startswith("/") or (len(name) > 1 and name[1] == ":"):
        return "absolute path"
    for part in name.split("/"):
        if part in ("", ".", ".."):
            return "not a plain relative path"
        if len(part.encode("utf-8", "replace")) > 255:
            return "name longer than 255 bytes"
    return ""


def parse_sums(data: bytes) -> tuple[dict[str, str], list[str]]:
    """(path -> SHA-256 in hex, problems) of the bytes of a SHA256SUMS file. One spelling is legal: sorted, strict."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return {}, [SUMS + ": not UTF-8 text"]
    listed: dict[str, str] = {}
    problems: list[str] = []
    end = 0
    for found in LINE.finditer(text):
        if found.start() != end:
            break
        end = found.end()
        digest, name = found.groups()
        reason = unsafe(name)
        if reason:
            problems.append(f"{SUMS}: {name!r}: {reason}")
        elif name in listed or name == SUMS:
            problems.append(f"{SUMS}: {name!r} is listed twice or lists itself")
        else:
            listed[name] = digest
    if end != len(text):
        line = text.count("\n", 0, end) + 1
        problems.append(f"{SUMS}: line {line} is damaged")
    if list(listed) != sorted(listed):
        problems.append(SUMS + ": lines are not in order")
    if len({name.casefold() for name in listed}) != len(listed):
        problems.append(SUMS + ": two names differ only in case")
    if not listed:
        problems.append(SUMS + ": lists no file")
    return listed, problems


def walk(folder: str) -> tuple[list[str], list[str]]:
    """(regular files, problems) under ``folder``: links and special files are problems and are not followed."""
    files: list[str] = []
    problems: list[str] = []
    todo = [""]
    while todo:
        here = todo.pop()
        entries = sorted(os.scandir(os.path.join(folder, here)), key=lambda entry: entry.name)
        if here and not entries:
            problems.append(f"{here}: empty folder, not part of the bundle")
        for entry in entries:
            name = here + "/" + entry.name if here else entry.name
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                todo.append(name)
            elif stat.S_ISREG(mode):
                files.append(name)
            else:
                problems.append(f"{name}: a link or special file, not part of a bundle")
    return sorted(files), problems


def sha256(path: str) -> str:
    """SHA-256 in hex of a regular file; a link is refused even when it took the file's place just now."""
    digest = hashlib.sha256()
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        for block in iter(lambda: file.read(BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def check(folder: str, key: bytes | None = None) -> list[str]:
    """Every problem of the bundle in ``folder``, one line each; [] = sound. ``key``: PEM, key or certificates."""
    sums = os.path.join(folder, SUMS)
    if os.path.islink(sums) or not os.path.isfile(sums):
        raise NotABundle(f"{folder}: no {SUMS} file: not a bundle")
    with open(sums, "rb") as file:
        data = file.read(MAX_SUMS_BYTES + 1)
    if len(data) > MAX_SUMS_BYTES:
        return [SUMS + ": too large"]
    listed, problems = parse_sums(data)
    present, strange = walk(folder)
    problems += strange
    for name in sorted(set(present) - set(listed) - {SUMS, SIGNATURE}):
        problems.append(f"{name}: not listed in {SUMS}")
    for name, digest in sorted(listed.items()):
        if name not in present:
            problems.append(f"{name}: missing")
        elif sha256(os.path.join(folder, *name.split("/"))) != digest:
            problems.append(f"{name}: changed")
    if key is not None:
        problems += check_signature(folder, key, {**listed, SUMS: hashlib.sha256(data).hexdigest()})
    return problems


# -- the signature: an in-toto statement in a DSSE envelope, as OpenSSF Model Signing writes it -----------------


def check_signature(folder: str, key: bytes, hashes: dict[str, str]) -> list[str]:
    """Problems of model.sig: it must be the signature, by ``key``, of exactly these file hashes."""
    try:
        with open(os.path.join(folder, SIGNATURE), "rb") as file:
            bundle = json.loads(file.read(MAX_SUMS_BYTES))
        envelope = bundle["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        kind = envelope["payloadType"].encode()
        signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        if not holds(signer(bundle, key)[0], signature, signed):
            return [f"{SIGNATURE}: not a signature by this key"]
        found = {item["name"]: item["digest"] for item in json.loads(payload)["predicate"]["resources"]}
    except FileNotFoundError:
        return [f"{SIGNATURE}: missing: the bundle is not signed"]
    except NotTrusted as error:
        return [f"{SIGNATURE}: {error}"]
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        return [f"{SIGNATURE}: damaged ({type(error).__name__})"]
    differ = sorted(name for name in {*found, *hashes} if found.get(name) != hashes.get(name))
    return [f"{SIGNATURE}: signed another {name}" for name in differ]


def signer(bundle: dict[str, Any], key: bytes) -> tuple[Key, str]:
    """(public key, name) of who must have signed: ``key`` itself, or the certificate in model.sig that it vouches for.

    Raises NotTrusted, ValueError and whatever a damaged file makes of the look-ups.
    """
    anchors = [certificate(data) for data in pem_blocks(key, "CERTIFICATE")]
    if not anchors:
        return public_key(key), ""
    chain = bundle["verificationMaterial"].get("x509CertificateChain")
    if not chain:
        raise NotTrusted("signed with a bare key, and not with a certificate: give the public key")
    leaf, *others = [certificate(base64.b64decode(c["rawBytes"], validate=True)) for c in chain["certificates"]]
    usage = leaf["extensions"].get(USAGE, b"")
    if not allows(usage, 0x80) and CODE_SIGNING not in leaf["extensions"].get(PURPOSE, b""):
        raise NotTrusted("the certificate is not for signing")
    if not vouched(leaf, others[:LONGEST_CHAIN], anchors, 0):
        raise NotTrusted("no certificate that you trust vouches for the signer's")
    return read_key(leaf["key"]), common_name(leaf["subject"])


def vouched(found: Certificate, others: list[Certificate], anchors: list[Certificate], below: int) -> bool:
    """True when a chain of authorities leads from ``found`` to one of ``anchors``; ``below``: authorities passed."""
    if any(found["raw"] == anchor["raw"] for anchor in anchors):
        return True
    if below >= LONGEST_CHAIN:
        return False
    return any(
        vouched(issuer, [other for other in others if other is not issuer], anchors, below + 1)
        for issuer in [*anchors, *others]
        if issuer["subject"] == found["issuer"] and may_issue(issuer, below) and signed_by(found, issuer)
    )


def may_issue(issuer: Certificate, below: int) -> bool:
    """True for an authority's certificate whose limits allow ``below`` more authorities under it (RFC 5280)."""
    if CONSTRAINTS not in issuer["extensions"]:
        return False
    limits, rest = der(issuer["extensions"][CONSTRAINTS], 0x30)
    if rest or limits[:3] != b"\x01\x01\xff":
        return False
    if limits[3:] and int.from_bytes(der(limits[3:], 0x02)[0], "big") < below:
        return False
    return USAGE not in issuer["extensions"] or allows(issuer["extensions"][USAGE], 0x04)


def allows(usage: bytes, bit: int) -> bool:
    """True when a key usage extension has this bit: 0x80 to sign data, 0x04 to sign certificates."""
    return bool(usage) and bool(int.from_bytes(der(usage, 0x03)[0][1:2], "big") & bit)


def signed_by(found: Certificate, issuer: Certificate) -> bool:
    """True when the issuer's key signed this certificate."""
    return found["hash"] != "" and holds(read_key(issuer["key"]), found["signature"], found["body"], found["hash"])


def certificate(data: bytes) -> Certificate:
    """The parts of an X.509 certificate in DER. Raises ValueError; a critical extension that is not known is one."""
    content, _ = der(data, 0x30)
    fields, rest = der(content, 0x30)
    body = content[: len(content) - len(rest)]
    algorithm, rest = der(rest, 0x30)
    if fields[:1] == b"\xa0":
        fields = der(fields, 0xA0)[1]
    fields = der(fields, 0x02)[1]
    inner, fields = der(fields, 0x30)
    issuer, fields = der(fields, 0x30)
    subject, fields = der(der(fields, 0x30)[1], 0x30)
    info, fields = der(fields, 0x30)
    extensions: dict[str, bytes] = {}
    while fields:
        if fields[0] == 0xA3:
            listed = der(der(fields, 0xA3)[0], 0x30)[0]
            while listed:
                item, listed = der(listed, 0x30)
                name, item = der(item, 0x06)
                critical = item[:3] == b"\x01\x01\xff"
                if critical and name.hex() not in (CONSTRAINTS, USAGE, PURPOSE):
                    raise ValueError("a critical extension that is not known")
                extensions[name.hex()] = der(item[3:] if critical else item, 0x04)[0]
        fields = der(fields, fields[0])[1]
    kind = ECDSA.get(der(algorithm, 0x06)[0].hex(), "") if inner == algorithm else ""
    found = {"raw": data, "body": body, "issuer": issuer, "subject": subject, "key": info, "hash": kind}
    return {**found, "signature": der(rest, 0x03)[0][1:], "extensions": extensions}


def common_name(subject: bytes) -> str:
    """CN of a name in DER; '' when it has none."""
    while subject:
        part, subject = der(subject, 0x31)
        kind, value = der(der(part, 0x30)[0], 0x06)
        if kind == b"\x55\x04\x03":
            return der(value, value[0])[0].decode("utf-8", "replace")
    return ""


def pem_blocks(pem: bytes, kind: str) -> list[bytes]:
    """The content of every block of this kind in a PEM file."""
    pattern = f"-----BEGIN {kind}-----([A-Za-z0-9+/=\\s]+)-----END {kind}-----".encode()
    return [base64.b64decode(b"".join(found.split())) for found in re.findall(pattern, pem)]


def holds(key: Key, signature: bytes, message: bytes, hash_name: str = "") -> bool:
    """True when ``signature`` (DER) is the key's ECDSA signature of ``message`` (FIPS 186-5). Raises ValueError."""
    (own_hash, p, _, gx, gy, n), x, y = key
    body, rest = der(signature, 0x30)
    first, tail = der(body, 0x02)
    second, end = der(tail, 0x02)
    r, s = int.from_bytes(first, "big"), int.from_bytes(second, "big")
    if rest or end or not (0 < r < n and 0 < s < n):
        return False
    digest = hashlib.new(hash_name or own_hash, message).digest()
    e = int.from_bytes(digest, "big") >> max(0, 8 * len(digest) - n.bit_length())
    w = pow(s, -1, n)
    point = add(times(e * w % n, (gx, gy), p), times(r * w % n, (x, y), p), p)
    return point is not None and point[0] % n == r


def public_key(pem: bytes) -> Key:
    """(curve, x, y) of a PEM public key on one of CURVES. Raises ValueError."""
    blocks = pem_blocks(pem, "PUBLIC KEY")
    if not blocks:
        raise ValueError("not a PEM public key")
    return read_key(der(blocks[0], 0x30)[0])


def read_key(info: bytes) -> Key:
    """(curve, x, y) of a subject public key info in DER. Raises ValueError."""
    algorithm, bits = der(info, 0x30)
    curve = CURVES.get(der(der(algorithm, 0x06)[1], 0x06)[0].hex())
    point = der(bits, 0x03)[0]
    if curve is None or point[:2] != b"\x00\x04":
        raise ValueError("not an elliptic-curve key on P-256, P-384 or P-521")
    size = (len(point) - 2) // 2
    x, y = int.from_bytes(point[2 : 2 + size], "big"), int.from_bytes(point[2 + size :], "big")
    p, b = curve[1], curve[2]
    if not (0 <= x < p and 0 <= y < p) or (y * y - x * x * x + 3 * x - b) % p:
        raise ValueError("the key is not a point of its curve")
    return curve, x, y


def trusted(pem: bytes) -> None:
    """Raise ValueError unless ``pem`` holds a usable public key or certificates."""
    certificates = pem_blocks(pem, "CERTIFICATE")
    if not certificates:
        public_key(pem)
    for data in certificates:
        read_key(certificate(data)["key"])


def der(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """(content, what follows) of a DER element with this tag. Raises ValueError."""
    if len(data) < 2 or data[0] != tag:
        raise ValueError("unexpected element")
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    if start > 6 or len(data) < start + length:
        raise ValueError("cut short")
    return data[start : start + length], data[start + length :]


def add(one: tuple[int, int] | None, two: tuple[int, int] | None, p: int) -> tuple[int, int] | None:
    """Sum of two points of a curve with a = -3; None is the point at infinity."""
    if one is None or two is None:
        return two if one is None else one
    (x1, y1), (x2, y2) = one, two
    if x1 == x2 and (y1 + y2) % p == 0:
        return None
    slope = (3 * x1 * x1 - 3) * pow(2 * y1, -1, p) if one == two else (y2 - y1) * pow(x2 - x1, -1, p)
    x3 = (slope * slope - x1 - x2) % p
    return x3, (slope * (x1 - x3) - y1) % p


def times(factor: int, point: tuple[int, int], p: int) -> tuple[int, int] | None:
    """A multiple of a point. Not in constant time: only public values pass here."""
    total: tuple[int, int] | None = None
    step: tuple[int, int] | None = point
    while factor:
        if factor & 1:
            total = add(total, step, p)
        step = add(step, step, p)
        factor >>= 1
    return total


def main(argv: list[str]) -> int:
    """Check the folder named in ``argv`` (default: the one this file is in) and return the exit code."""
    words, key = argv[1:], None
    if words[:1] == ["--key"] and len(words) > 1:
        try:
            with open(words[1], "rb") as file:
                key = file.read(MAX_SUMS_BYTES)
            trusted(key)
        except (OSError, ValueError) as error:
            sys.stderr.write(f"verify: {words[1]}: {error}\n")
            return 2
        words = words[2:]
    if len(words) > 1 or (words and words[0].startswith("-")):
        sys.stdout.write(__doc__ or "")
        return 0 if words in (["-h"], ["--help"]) else 2
    folder = words[0] if words else os.path.dirname(os.path.abspath(__file__))
    try:
        problems = check(folder, key)
    except (NotABundle, OSError) as error:
        sys.stderr.write(f"verify: {error}\n")
        return 2
    for line in [*problems, verdict(folder, problems, key)]:
        sys.stdout.write(line.encode("ascii", "backslashreplace").decode() + "\n")
    return 6 if problems else 0


def verdict(folder: str, problems: list[str], key: bytes | None) -> str:
    """The last line: sound or not, and whether a signature was checked."""
    if problems:
        return f"NOT SOUND: {len(problems)} problem(s)"
    if key is not None:
        with open(os.path.join(folder, SIGNATURE), "rb") as file:
            name = signer(json.loads(file.read(MAX_SUMS_BYTES)), key)[1]
        return "sound: nothing changed since the seal, and the signature is " + (
            f"that of {name!r}" if name else "the key's"
        )
    signed = os.path.isfile(os.path.join(folder, SIGNATURE))
    return "sound: nothing changed since the seal" + ("; signature not checked: give --key" if signed else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
