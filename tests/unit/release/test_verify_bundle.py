"""A bundle is sound only when every bit of it is what was sealed and nothing is there besides."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distill.cli import main
from distill.release import seal, verify_bundle

CONTENT = {
    "README.md": b"# a bundle\n" * 40,
    "weights/model.safetensors": bytes(range(256)) * 40,
    "weights/config.json": b'{"hidden": 64}',
    "papers/d\u00e9j\u00e0 vu.md": b"accents and spaces\n",
    "empty": b"",
}


@pytest.fixture
def bundle(tmp_path):
    """A small sealed bundle."""
    folder = tmp_path / "acme-1.0"
    for name, data in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    seal.seal(folder)
    return folder


def named(folder, name):
    """The problems of a bundle; at least one must name ``name``."""
    problems = verify_bundle.check(str(folder))
    assert any(name in problem for problem in problems), problems
    return problems


def test_a_sealed_bundle_is_sound(bundle):
    assert verify_bundle.check(str(bundle)) == []


def test_each_of_1000_single_bit_flips_anywhere_is_found(bundle):
    files = sorted(f for f in bundle.rglob("*") if f.is_file() and f.stat().st_size)
    sizes = [f.stat().st_size for f in files]
    draw = random.Random(7)
    for _ in range(1000):
        # half of the flips fall on any byte of the bundle, half on a file drawn first: the small ones count too
        path = draw.choice(files) if draw.random() < 0.5 else draw.choices(files, sizes)[0]
        data = bytearray(path.read_bytes())
        place = draw.randrange(len(data) * 8)
        data[place // 8] ^= 1 << place % 8
        original = path.read_bytes()
        path.write_bytes(data)
        assert verify_bundle.check(str(bundle)), (path.name, place)
        path.write_bytes(original)
    assert verify_bundle.check(str(bundle)) == []  # the negative control: undone, it is sound again


def test_every_bit_of_the_list_itself_is_found(bundle):
    path = bundle / "SHA256SUMS"
    original = path.read_bytes()
    for place in range(len(original) * 8):
        data = bytearray(original)
        data[place // 8] ^= 1 << place % 8
        listed, problems = verify_bundle.parse_sums(bytes(data))
        assert problems or listed != verify_bundle.parse_sums(original)[0], place


def test_an_extra_file_is_named(bundle):
    (bundle / "weights" / "extra.bin").write_bytes(b"x")
    assert named(bundle, "weights/extra.bin: not listed") == ["weights/extra.bin: not listed in SHA256SUMS"]


def test_an_extra_hidden_file_and_an_empty_folder_are_named(bundle):
    (bundle / ".hidden").write_bytes(b"")
    (bundle / "weights" / "folder").mkdir()
    named(bundle, ".hidden: not listed")
    named(bundle, "weights/folder: empty folder")


def test_a_removed_file_is_named(bundle):
    (bundle / "weights" / "config.json").unlink()
    assert named(bundle, "missing") == ["weights/config.json: missing"]


def test_a_renamed_file_is_named_twice(bundle):
    (bundle / "empty").rename(bundle / "Empty")
    assert named(bundle, "empty") == ["Empty: not listed in SHA256SUMS", "empty: missing"]


@pytest.mark.parametrize("make", ["symlink", "fifo", "folder link"])
def test_a_link_or_special_file_is_named_also_when_its_content_is_right(bundle, tmp_path, make):
    path = bundle / "empty"
    path.unlink()
    if make == "symlink":
        (tmp_path / "twin").write_bytes(b"")
        path.symlink_to(tmp_path / "twin")
    elif make == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path, target_is_directory=True)
    named(bundle, "empty: a link or special file")


def test_a_linked_folder_is_not_followed(bundle, tmp_path):
    (bundle / "weights").rename(tmp_path / "weights")
    (bundle / "weights").symlink_to(tmp_path / "weights")
    named(bundle, "weights: a link")
    named(bundle, "weights/config.json: missing")


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "a/../../b", "a//b", "./a", "C:/x", "a\\b", "a\tb", "x" * 256, "SHA256SUMS"]
)
def test_a_list_that_names_what_may_not_be_in_a_bundle_is_refused(bundle, name):
    sums = bundle / "SHA256SUMS"
    lines = [*sums.read_text().splitlines(), f"{hashlib.sha256(b'').hexdigest()}  {name}"]
    sums.write_text("\n".join(sorted(lines, key=lambda line: line[66:])) + "\n")
    assert any(problem.startswith("SHA256SUMS") for problem in verify_bundle.check(str(bundle)))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.upper(),
        lambda text: text.rstrip("\n"),
        lambda text: text + "\n",
        lambda text: "\n".join(reversed(text.splitlines())) + "\n",
        lambda text: text.replace("  ", " *"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text + text.splitlines()[0] + "\n",
        lambda text: "",
    ],
)
def test_only_one_spelling_of_the_list_is_legal(bundle, change):
    sums = bundle / "SHA256SUMS"
    sums.write_text(change(sums.read_text()), newline="")
    assert verify_bundle.check(str(bundle))


def test_the_copy_inside_a_bundle_runs_alone_and_gives_the_exit_code(bundle):
    command = [sys.executable, "-I", "-S", str(bundle / "verify.py")]
    sound = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert (sound.returncode, sound.stdout) == (0, "sound: nothing changed since the seal\n")
    assert not list(bundle.rglob("__pycache__"))
    (bundle / "empty").write_bytes(b"!")
    broken = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert (broken.returncode, broken.stdout.splitlines()[0]) == (6, "empty: changed")


def test_the_verify_tool_imports_nothing_but_the_standard_library():
    source = Path(verify_bundle.__file__).read_text("utf-8")
    imported = {line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert imported <= set(sys.stdlib_module_names) | {"__future__"}


def test_the_command_says_sound_or_names_the_file(bundle, capsys):
    assert main(["verify", str(bundle)]) == 0
    assert "(7 files)" in capsys.readouterr().out
    (bundle / "README.md").write_bytes(b"other")
    assert main(["verify", str(bundle)]) == 6
    assert "README.md: changed" in capsys.readouterr().out


def test_what_is_no_bundle_is_one_line_with_its_exit_code(tmp_path, capsys):
    (tmp_path / "text").write_text("hello")
    assert main(["verify", str(tmp_path / "nowhere")]) == 2
    assert main(["verify", str(tmp_path / "text")]) == 6
    assert main(["verify", str(tmp_path)]) == 4
    assert all(line.startswith("distill: ") for line in capsys.readouterr().err.splitlines())


def test_a_folder_without_a_list_is_no_bundle(bundle):
    (bundle / "SHA256SUMS").unlink()
    with pytest.raises(verify_bundle.NotABundle):
        verify_bundle.check(str(bundle))


def test_a_bundle_copied_elsewhere_is_still_sound(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "copy")
    assert verify_bundle.check(str(tmp_path / "copy")) == []
