"""A bundle from a finished run: complete, checked, without leaks, and the same bytes whoever builds it."""

import json
import os
import pickle
import socket
import subprocess
import sys

import pytest
import torch

from distill import pdf as pdf_page
from distill.config import RunConfig
from distill.errors import ConfigError, DataError, GateFailed, IntegrityError, Refused
from distill.release import card, record, scan, verify_bundle
from tests.unit.release.made import REPORT, base_folder, build, run_folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The base model's folder."""
    return base_folder(tmp_path_factory.mktemp("base") / "tiny-base")


@pytest.fixture
def made(tmp_path, base):
    """(config, run folder) of a finished run."""
    return run_folder(tmp_path / "runs" / "sorter", base, targets=["merged", "adapter"])


@pytest.fixture(scope="module")
def built(tmp_path_factory, base):
    """(config, run folder, bundle) that tests only read."""
    config, folder = run_folder(tmp_path_factory.mktemp("run") / "runs" / "sorter", base, targets=["merged", "adapter"])
    return config, folder, build(config, folder)


def contents(bundle):
    """Path -> bytes."""
    return {f.relative_to(bundle).as_posix(): f.read_bytes() for f in sorted(bundle.rglob("*")) if f.is_file()}


def changed(config, **release):
    """The configuration with other release settings."""
    values = config.resolved()
    other = RunConfig.model_validate({**values, "release": {**values["release"], **release}})
    other._folder = config._folder
    return other


def test_the_bundle_holds_everything_a_client_needs_and_is_sound(built):
    _, folder, bundle = built
    assert bundle == folder.release / "sorter-0.1.0"
    wanted = ["LICENSE", "NOTICE", "README.md", "SHA256SUMS", "config/run.json", "papers/data.md"]
    wanted += ["papers/distillation.md", "release.json", "report.html", "verify.py", "weights/config.json"]
    wanted += ["weights/model.safetensors", "weights/tokenizer.json", "adapter/adapter_model.safetensors"]
    assert set(wanted) <= set(contents(bundle))
    assert verify_bundle.check(str(bundle)) == []
    assert [p.name for p in folder.release.iterdir()] == ["sorter-0.1.0"]  # no temporary folder is left


def test_every_form_is_loaded_back_and_its_distance_from_the_student_is_written_down(built):
    targets = json.loads((built[2] / "release.json").read_text())["targets"]
    for kind in ("merged", "adapter"):
        check = targets[kind]["check"]
        assert check["worst"] <= check["tolerance"]
        assert check["top1_agreement"] == 1.0
        assert check["prompts"] == 5
    # the negative control: the untouched base is far from the student
    assert targets["merged"]["check"]["tolerance"] < 1e-2


@pytest.mark.parametrize("tensor", ["model.layers.1.self_attn.v_proj.weight", "model.layers.0.mlp.up_proj.weight"])
def test_one_wrong_tensor_fails_the_release_and_leaves_no_bundle(made, tensor):
    config, folder = made
    spoiled = changed(config, targets=[{"kind": "tests.unit.release.spoiled", "tensor": tensor}])
    with pytest.raises(GateFailed, match="away from the student's"):
        build(spoiled, folder)
    assert not list(folder.release.iterdir())


BUILD = """
import os, sys, time
from pathlib import Path
os.umask(int(sys.argv[3], 8))
from distill import config
from distill.artifacts import RunFolder
from tests.unit.release.made import build
loaded = config.RunConfig.model_validate_json(Path(sys.argv[1]).read_text())
loaded._folder = Path(sys.argv[4])
build(loaded, RunFolder(Path(sys.argv[2])))
"""


def test_another_directory_locale_umask_and_time_give_the_same_bytes(made, tmp_path):
    config, folder = made
    pdf = pdf_page.available()
    config = changed(config, pdf=pdf, targets=["merged", "adapter", "demo"])
    first = contents(build(config, folder))
    assert ("papers/dossier.fr.pdf" in first) == pdf
    for file in folder.path.rglob("*"):
        if "release" not in file.parts:
            os.utime(file, (1_000_000_000, 1_000_000_000))
    (tmp_path / "config.json").write_text(config.model_dump_json())
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    environment = os.environ | {"LC_ALL": "C", "TZ": "Asia/Tokyo", "PYTHONPATH": os.getcwd(), "PYTHONHASHSEED": "5"}
    command = [sys.executable, "-c", BUILD, str(tmp_path / "config.json"), str(folder.path), "000", str(config._folder)]
    subprocess.run(command, cwd=elsewhere, env=environment, check=True, capture_output=True)
    second = contents(folder.release / "sorter-0.1.0")
    assert first == second
    modes = {f.stat().st_mode & 0o777 for f in (folder.release / "sorter-0.1.0").rglob("*") if f.is_file()}
    assert modes == {0o600}


def test_a_bfloat16_base_stays_within_its_tolerance(tmp_path):
    base = base_folder(tmp_path / "half", torch.bfloat16)
    bundle = build(*run_folder(tmp_path / "runs" / "sorter", base))
    check = json.loads((bundle / "release.json").read_text())["targets"]["merged"]["check"]
    assert 1e-5 < check["worst"] < check["tolerance"] / 3  # room to spare, and yet it measures the rounding
    assert check["computed_in"] == "float32"


def test_no_path_of_this_machine_is_in_any_file(built, base):
    config, folder, bundle = built
    for name, data in contents(bundle).items():
        for path in (base, folder.path, config._folder):
            assert str(path).encode() not in data, name


# Put together here, so that no scanner of this repository takes them for real ones.
SECRET = "a-secret-" + "only-this-shell-knows"
PLANTED = {
    "API key": "sk-" + "proj-" + "Ab1" * 10,
    "hub token": "hf" + "_" + "AbCdEfGhIj" * 4,
    "private key": "-----BEGIN EC " + "PRIVATE KEY-----",
    "repository token": "ghp" + "_" + "a1B2c3D4e5" * 4,
    "cloud key": "AKIA" + "IOSFODNN7EXAMPLE",
    "password in an address": "https://bob:" + "hunter2@models.example.org/v1",
    "bearer token": "Authorization: Bearer " + "abcdef0123456789",
    "a local path": "see /home/somebody/private.txt",
    "the value of $ACME_TOKEN": SECRET,
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_secret_or_path_is_named_and_not_repeated(what, tmp_path, monkeypatch):
    monkeypatch.setenv("ACME_TOKEN", SECRET)
    (tmp_path / "README.md").write_text(f"a card\n{PLANTED[what]}\n")
    with pytest.raises(Refused, match="would give away") as caught:
        scan.refuse_leaks(tmp_path, [])
    assert f"README.md: {what}" in str(caught.value)
    assert PLANTED[what] not in str(caught.value)
    (tmp_path / "README.md").write_text("a card that speaks of sk-learn, /usr/bin and https://example.org/home/x\n")
    scan.refuse_leaks(tmp_path, [])


@pytest.mark.parametrize("where", ["summary", "data card", "student", "report", "system prompt"])
def test_a_secret_in_any_record_of_the_run_refuses_the_release(made, where):
    config, folder = made
    text = PLANTED["hub token"]
    if where == "summary":
        config = changed(config, summary=f"It sorts. {text}")
    elif where == "system prompt":
        config = config.model_copy(update={"prompts": config.prompts.model_copy(update={"system": text})})
    elif where == "data card":
        folder.data_card.write_text(json.dumps({"note": f"made with {text} here"}))
    elif where == "student":
        path = folder.student / "student.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "log": text}))
    else:
        folder.report_html.write_text(f"<p>{text}</p>")
    with pytest.raises(Refused, match="hub token"):
        build(config, folder)
    assert not list(folder.release.iterdir())


def test_a_report_may_quote_paths_but_not_this_machines(made):
    config, folder = made
    build(config, folder)  # the report of the fixture quotes /home/anyone
    folder.report_html.write_text(f"<p>see {folder.path}/run.db</p>")
    with pytest.raises(Refused, match=r"report\.html: a path of this machine"):
        build(config, folder)


def test_the_host_and_user_name_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-node-17")
    monkeypatch.setattr(scan, "_user", lambda: "jdupont")
    (tmp_path / "README.md").write_text("made on gpu-node-17 by jdupont")
    with pytest.raises(Refused, match=r"the host name; README\.md: the user name"):
        scan.refuse_leaks(tmp_path, [])
    (tmp_path / "README.md").write_text("made on gpu-node-170 by jdupontel, or by root")
    scan.refuse_leaks(tmp_path, [])


def test_a_secret_in_the_middle_of_a_large_binary_file_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("ACME_TOKEN", SECRET)
    data = bytearray(scan.BLOCK * 2)
    data[scan.BLOCK - 9 : scan.BLOCK + 21] = SECRET.encode()  # across two blocks
    (tmp_path / "w.safetensors").write_bytes(data)
    with pytest.raises(Refused, match=r"ACME_TOKEN"):
        scan.refuse_leaks(tmp_path, [])


def test_what_a_stranger_sees_of_the_settings_has_no_local_path_or_private_address():
    values = {
        "student": {"model": "path:/srv/models/acme-7b"},
        "prompts": {"path": "../private/prompts.jsonl", "template": "/start {{ text }} of two words"},
        "teacher": {"base_url": "http://10.1.2.3:8000/v1", "api_key_env": "ACME_KEY"},
        "judge": {"base_url": "https://user:pw@api.mistral.ai/v1?key=1"},
    }
    shown = record.public(values)
    assert shown["student"] == {"model": "path:acme-7b"}
    assert shown["prompts"] == {"path": "prompts.jsonl", "template": "/start {{ text }} of two words"}
    assert shown["teacher"] == {"base_url": "(private address)", "api_key_env": "ACME_KEY"}
    assert shown["judge"] == {"base_url": "https://api.mistral.ai/v1"}


def test_a_base_that_changed_since_training_is_refused(made):
    config, folder = made
    path = folder.student / "student.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_sha256": "0" * 64}))
    with pytest.raises(IntegrityError, match="not the base that was trained"):
        build(config, folder)


def test_weights_under_terms_of_their_own_keep_them():
    from distill.release.licence import refuse_conflict

    refuse_conflict("apache-2.0", "mit")
    refuse_conflict("Llama3.1", "llama3.1")
    refuse_conflict(None, "apache-2.0")
    with pytest.raises(Refused, match=r"release.licence=cc-by-nc-4.0"):
        refuse_conflict("cc-by-nc-4.0", "apache-2.0")


def test_a_base_without_a_stated_licence_is_said_in_the_notice_and_the_card(built):
    bundle = built[2]
    assert "its source states none" in (bundle / "NOTICE").read_text()
    assert "its source states none" in (bundle / "README.md").read_text()
    assert "Apache License" in (bundle / "LICENSE").read_text()


def test_the_licence_texts_of_the_base_travel_with_the_weights(made, base):
    (base / "NOTICE.txt").write_text("Copyright of the base's authors")
    try:
        bundle = build(*made)
    finally:
        (base / "NOTICE.txt").unlink()
    assert (bundle / "licences/base/NOTICE.txt").read_text() == "Copyright of the base's authors"


def test_the_card_says_what_the_records_say(built):
    bundle = built[2]
    text = (bundle / "README.md").read_text()
    assert REPORT["verdict"]["sentence"] in text
    for shown in (
        "acme/Teacher-9B (12 answers)",
        "tiny-base",
        "| steps | 40 |",
        "fr, de",
        "Sorts texts into sections.",
    ):
        assert shown in text, shown
    assert "| the student | 0.740 [0.680, 0.800] |" in text
    assert "| sections | 0.810 [0.750, 0.870] | 0.740" in (bundle / "papers/distillation.md").read_text()
    front = text.split("---\n")[1]
    assert "value: 0.74" in front
    assert "teacher:acme/Teacher-9B" in front
    assert "base_model: tiny-base" in front


def test_a_hostile_value_cannot_break_out_of_a_table_or_the_front_matter():
    assert card.cell("a | b\n\n# heading <script>") == "a \\| b # heading &lt;script>"
    front = card.front_matter({"tags": ["a: b\n---\nlicense: mit", "{{ x }}"]})
    assert front.count("\n---\n") == 1


def test_a_missing_student_or_data_is_one_line(made):
    config, folder = made
    (folder.student / "student.json").unlink()
    with pytest.raises(DataError, match="distill train"):
        build(config, folder)


def test_a_target_named_twice_is_a_configuration_error(made):
    config, folder = made
    with pytest.raises(ConfigError, match="named twice"):
        build(changed(config, targets=["merged", "merged"]), folder)


def test_a_base_with_foreign_code_or_pickles_gives_a_bundle_without_them(made, base):
    (base / "modeling_evil.py").write_text("raise SystemExit")
    (base / "training_args.bin").write_bytes(pickle.dumps({}))
    original = (base / "config.json").read_text()
    (base / "config.json").write_text(
        json.dumps({**json.loads(original), "auto_map": {"AutoModel": "modeling_evil.M"}})
    )
    try:
        bundle = build(*made)
    finally:
        (base / "config.json").write_text(original)
        (base / "modeling_evil.py").unlink()
        (base / "training_args.bin").unlink()
    assert [f.name for f in bundle.rglob("*.py")] == ["verify.py"]
    assert not list(bundle.rglob("*.bin"))
    assert "auto_map" not in (bundle / "weights" / "config.json").read_text()


def test_a_student_with_a_prompt_of_its_own_is_described_with_that_one(made):
    config, folder = made
    values = config.resolved()
    values["student"]["prompt"] = {"system": "Short.", "examples": [{"user": "vim", "assistant": "editors"}]}
    config = RunConfig.model_validate(values)
    text = (build(config, folder) / "README.md").read_text()
    assert "| system message | Short. |" in text
    assert "'Short.'}, {'role': 'user', 'content': 'vim'}, {'role': 'assistant', 'content': 'editors'}" in text
    assert "| user message | {{ text }} |" in text
