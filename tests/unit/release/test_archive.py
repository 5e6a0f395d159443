"""Hostile archives: nothing is ever written outside, no link or device is made, nothing explodes."""

import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib

import pytest

from distill.cli import main
from distill.errors import DistillError, IntegrityError, Refused
from distill.release import archive, seal, verify_bundle

NAMES = {
    "parent": "../outside",
    "deep parent": "a/../../outside",
    "parent at the end": "a/..",
    "absolute": "/tmp/outside-absolute",
    "double slash": "//outside",
    "dot inside": "a/./b",
    "drive letter": "C:outside",
    "drive path": "C:/outside",
    "backslash": "..\\outside",
    "backslash inside": "a\\..\\..\\outside",
    "unc": "\\\\server\\share",
    "newline": "a\nb",
    "carriage return": "a\rb",
    "escape": "a\x1b[31mb",
    "bell": "a\x07",
    "bidi override": "a\u202egpj.exe",
    "zero width": "a\u200bb",
    "empty part": "a//b",
    "long part": "x" * 256,
    "long in bytes": "é" * 128,
    "long path": "/".join(["abcdefgh"] * 150),
    "too deep": "/".join(["a"] * 40),
}


def tar(*members, suffix=b""):
    """Bytes of a tar of (name or TarInfo, content) pairs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        for info, data in members:
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
            if data is not None:
                info.size = len(data)
            made.addfile(info, io.BytesIO(data) if data is not None else None)
    return out.getvalue() + suffix


def special(kind, name="thing", link="README.md"):
    """A tar member that is no regular file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zipped(*members, compression=zipfile.ZIP_STORED):
    """Bytes of a zip of (name or ZipInfo, content) pairs."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as made:
        for name, data in members:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo("x")
            if not isinstance(name, zipfile.ZipInfo):
                info.filename = name  # as it is: the constructor would clean it
            info.compress_type = compression
            made.writestr(info, data)
    return out.getvalue()


def zip_mode(mode, data=b"/etc/passwd"):
    """A zip member with a Unix mode."""
    info = zipfile.ZipInfo("thing")
    info.external_attr = mode << 16
    return zipped((info, data))


def lying_zip():
    """A member that unpacks to more than it says."""
    data = bytearray(zipped(("a", b"0" * 100_000), compression=zipfile.ZIP_DEFLATED))
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(mark) + place
        data[at : at + 4] = struct.pack("<I", 10)
    return bytes(data)


def sparse():
    """A GNU sparse file of 1 TB."""
    info = special(tarfile.GNUTYPE_SPARSE, "sparse")
    return tar((info, b""))


def huge_header(kind):
    """An extended header that claims 8 GB."""
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 8 << 30
    return info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 2048


SPECIALS = {
    "symlink": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "character device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
}
GOOD = tar(("b/README.md", b"hello"))
ARCHIVES = {
    **{f"tar: {what}": tar((name, b"x")) for what, name in NAMES.items()},
    **{f"zip: {what}": zipped((name, b"x")) for what, name in NAMES.items()},
    **{f"tar: {what}": tar((special(kind), None)) for what, kind in SPECIALS.items()},
    **{
        f"tar: {what} outside": tar((special(kind, "thing", "../../etc/passwd"), None))
        for what, kind in SPECIALS.items()
    },
    "tar: file through a link": tar((special(tarfile.SYMTYPE, "d", "/tmp"), None), ("d/outside", b"x")),
    "tar: file over a link": tar((special(tarfile.SYMTYPE, "d", "/tmp/outside"), None), ("d", b"x")),
    "tar: unknown type": tar((special(b"Z"), None)),
    "tar: volume header": tar((special(b"V"), None)),
    "tar: the same name twice": tar(("a", b"1"), ("a", b"2")),
    "tar: names that differ in case": tar(("a", b"1"), ("A", b"2")),
    "tar: a file used as a folder": tar(("a", b"1"), ("a/b", b"2")),
    "tar: a folder used as a file": tar(("a/b", b"1"), ("a", b"2")),
    "tar: many members": tar(*((f"{n}", b"") for n in range(10_050))),
    "tar: sparse": sparse(),
    "tar: huge extended header": huge_header(tarfile.XHDTYPE),
    "tar: huge long name": huge_header(tarfile.GNUTYPE_LONGNAME),
    "tar: huge long link": huge_header(tarfile.GNUTYPE_LONGLINK),
    "tar: cut short": tar(("a", b"x" * 5000))[:3000],
    "tar: negative size": GOOD[:124] + b"\xff" * 12 + GOOD[136:],
    "tar: damaged header": GOOD[:100] + b"99999999" + GOOD[108:],
    "zip: symlink": zip_mode(stat.S_IFLNK | 0o777),
    "zip: device": zip_mode(stat.S_IFCHR | 0o666),
    "zip: fifo": zip_mode(stat.S_IFIFO | 0o666),
    "zip: socket": zip_mode(stat.S_IFSOCK | 0o666),
    "zip: the same name twice": zipped(("a", b"1"), ("a", b"2")),
    "zip: names that differ in case": zipped(("a", b"1"), ("A", b"2")),
    "zip: a file used as a folder": zipped(("a", b"1"), ("a/b", b"2")),
    "zip: bomb": zipped(("a", b"\0" * 300_000_000), compression=zipfile.ZIP_DEFLATED),
    "zip: many small bombs": zipped(
        *((f"{n}", b"\0" * 30_000_000) for n in range(5)), compression=zipfile.ZIP_DEFLATED
    ),
    "zip: longer than it says": lying_zip(),
    "zip: wrong checksum": zipped(("a", b"hello")).replace(b"hello", b"jello", 1),
    "zip: cut short": zipped(("a", b"x" * 5000))[:-30],
    "zip: NUL in the name": zipped(("a-b", b"x")).replace(b"a-b", b"a\0b"),
    "zip: encrypted flag": zipped(("a", b"x")).replace(
        b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"
    ),
    "gzip of a tar": b"\x1f\x8b\x08" + zlib.compress(GOOD),
    "nothing": b"",
    "text": b"this is no archive\n" * 100,
}


def outside(tmp_path):
    """Everything under the test's folder but the archive and what it was unpacked into."""
    return sorted(p for p in tmp_path.rglob("*") if "into" not in p.relative_to(tmp_path).parts and p.name != "hostile")


def test_the_corpus_holds_at_least_60_archives():
    assert len(ARCHIVES) >= 60


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_hostile_archive_is_refused_and_writes_nothing_outside(name, tmp_path):
    path, into = tmp_path / "hostile", tmp_path / "deep" / "er" / "into"
    path.write_bytes(ARCHIVES[name])
    into.mkdir(parents=True)
    before = outside(tmp_path)
    with pytest.raises(DistillError) as caught:
        archive.unpack(path, into)
    assert isinstance(caught.value, Refused | IntegrityError)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert outside(tmp_path) == before
    assert not any(os.path.exists(p) for p in ("/tmp/outside", "/tmp/outside-absolute", "/outside"))
    for made in into.rglob("*"):
        assert stat.S_IFMT(made.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR)
    assert sum(f.stat().st_size for f in into.rglob("*") if f.is_file()) <= archive.RATIO_FLOOR


@pytest.fixture
def bundle(tmp_path):
    """A small sealed bundle."""
    folder = tmp_path / "acme-1.0"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "w.safetensors").write_bytes(os.urandom(100_000))
    (folder / "README.md").write_text("# acme")
    seal.seal(folder)
    return folder


def as_zip(folder, out):
    """The folder as an ordinary zip."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for path in sorted(folder.rglob("*")):
            made.write(path, f"{folder.name}/{path.relative_to(folder)}")


@pytest.mark.parametrize("kind", ["tar", "zip", "tar by another tool"])
def test_a_good_archive_unpacks_to_the_same_files_and_verifies(bundle, tmp_path, kind, capsys):
    out = tmp_path / "acme.bin"
    if kind == "zip":
        as_zip(bundle, out)
    elif kind == "tar":
        archive.pack(bundle, out)
    else:
        with tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as made:
            made.add(bundle, arcname="./acme-1.0")
    assert main(["verify", str(out), "--into", str(tmp_path / "new")]) == 0
    assert "(4 files)" in capsys.readouterr().out
    assert verify_bundle.check(str(tmp_path / "new" / "acme-1.0")) == []
    assert main(["verify", str(out)]) == 0
    assert main(["verify", str(out), "--into", str(tmp_path / "new")]) == 2  # never into a folder that exists


def test_a_hostile_archive_is_exit_5_and_a_damaged_one_exit_6(tmp_path, capsys):
    path = tmp_path / "x.tar"
    path.write_bytes(ARCHIVES["tar: parent"])
    assert main(["verify", str(path)]) == 5
    path.write_bytes(ARCHIVES["tar: cut short"])
    assert main(["verify", str(path)]) == 6
    assert all(line.startswith("distill: ") for line in capsys.readouterr().err.splitlines())


def test_a_changed_file_inside_an_archive_is_named(bundle, tmp_path, capsys):
    (bundle / "README.md").write_text("# other")
    archive.pack(bundle, tmp_path / "acme.tar")
    assert main(["verify", str(tmp_path / "acme.tar")]) == 6
    assert "README.md: changed" in capsys.readouterr().out


def test_packing_the_same_files_twice_gives_the_same_bytes(bundle, tmp_path):
    archive.pack(bundle, tmp_path / "one.tar")
    for path in bundle.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    archive.pack(bundle, tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
