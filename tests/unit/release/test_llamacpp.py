"""A GGUF file is judged by what llama.cpp computes and answers, not by its weights alone."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from distill.errors import ConfigError, GateFailed, IntegrityError, MissingDependency
from distill.release import llamacpp
from tests.unit.release.made import base_for_llamacpp, build, run_folder, with_task

PRECISIONS = ("f16", "q8_0", "q4_k_m")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The base model's folder."""
    return base_for_llamacpp(tmp_path_factory.mktemp("base") / "tiny-base")


@pytest.fixture(scope="module")
def built(base, tmp_path_factory):
    """A bundle with a GGUF file in each precision, and a run whose student got every item wrong."""
    pytest.importorskip("llama_cpp")
    targets = [{"kind": "gguf", "precision": precision} for precision in PRECISIONS]
    config, folder = run_folder(tmp_path_factory.mktemp("run") / "runs" / "sorter", base, targets=targets, rescore=6)
    return build(with_task(config, folder, right=lambda n: False), folder)


def test_each_precision_is_opened_by_llamacpp_and_its_distance_and_score_are_written_down(built):
    targets = json.loads((built / "release.json").read_text())["targets"]
    assert sorted(targets) == ["gguf-f16", "gguf-q4_k_m", "gguf-q8_0"]
    for facts in targets.values():
        assert facts["check"]["computed_in"] == "llama.cpp"
        assert 0 < facts["check"]["worst"] <= facts["check"]["tolerance"]
        assert facts["score"]["items"] == 6
    assert targets["gguf-f16"]["check"]["worst"] < targets["gguf-q4_k_m"]["check"]["worst"]
    assert targets["gguf-f16"]["bytes"] > targets["gguf-q8_0"]["bytes"] > targets["gguf-q4_k_m"]["bytes"]
    assert set(targets["gguf-q8_0"]["tensors"]) == {"F32", "Q8_0"}
    assert "F16" not in targets["gguf-q4_k_m"]["tensors"]


def test_the_same_run_gives_the_same_gguf_bytes_and_the_same_card(built, base, tmp_path):
    targets = [{"kind": "gguf", "precision": precision} for precision in PRECISIONS]
    config, folder = run_folder(tmp_path / "runs" / "sorter", base, targets=targets, rescore=6)
    again = build(with_task(config, folder, right=lambda n: False), folder)
    for path in [*(built / "gguf").iterdir(), built / "release.json"]:
        assert (again / path.relative_to(built)).read_bytes() == path.read_bytes(), path.name


def test_llamacpp_gives_the_librarys_logits_at_every_position(built, base, tmp_path):
    from distill.models import load_causal_lm
    from distill.records import Message
    from distill.release import check

    probe = check.Probe((Message("user", "Paquet 3 : un éditeur <|im_end|> de texte"),), "editors")
    (path,) = (built / "gguf").glob("*-F16.gguf")
    model, tokenizer = load_causal_lm(base, dtype="float32")
    adapter = built.parents[1] / "student" / "adapter"
    ours = check.Opened(*load_causal_lm(base, dtype="float32", adapter=adapter))
    theirs = check.Opened(None, tokenizer, llamacpp.Engine(path, 512))
    ids = ours.encode(probe)
    assert theirs.encode(probe) == ids
    far, _, same = check._distance(ours.logits(*ids), theirs.logits(*ids))
    assert far < 1e-2
    assert same == ids[1]
    untouched = check._distance(check.Opened(model, tokenizer).logits(*ids), theirs.logits(*ids))[0]
    assert untouched > 10 * far  # the negative control: the base without its adapter is another model
    theirs.close()


def test_the_greedy_answer_is_the_librarys_greedy_answer(built, base):
    from distill.models import encode_chat, end_ids, load_causal_lm
    from distill.records import Message
    from distill.release.check import rendered

    (path,) = (built / "gguf").glob("*-F16.gguf")
    adapter = built.parents[1] / "student" / "adapter"
    model, tokenizer = load_causal_lm(base, dtype="float32", adapter=adapter)
    messages = (Message("user", "Paquet 5 : un jeu"),)
    engine = llamacpp.Engine(path, 512)
    ids = engine.read(rendered(tokenizer, messages))
    assert ids == encode_chat(tokenizer, messages)
    import torch

    wanted = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0, len(ids) :].tolist()
    wanted = wanted[: next((n for n, token in enumerate(wanted) if token in end_ids(tokenizer)), len(wanted))]
    assert engine.answer(ids, end_ids(tokenizer), 8) == tokenizer.decode(wanted)
    assert engine.answer(ids, [wanted[2]], 8) == tokenizer.decode(wanted[: wanted.index(wanted[2])])
    engine.close()


def test_the_chat_template_in_the_file_writes_what_the_tokenizer_writes(built, base):
    from distill.models import load_tokenizer

    (path,) = (built / "gguf").glob("*-F16.gguf")
    engine = llamacpp.Engine(path, 512)
    talk = [{"role": "system", "content": "Sort the text."}, {"role": "user", "content": "un éditeur de texte 日本"}]
    answer = engine.model.create_chat_completion(talk, max_tokens=4, temperature=0)
    tokenizer = load_tokenizer(base)
    assert answer["usage"]["prompt_tokens"] == len(
        tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
    )
    engine.close()


def test_a_form_that_answers_worse_in_llamacpp_fails_the_release(base, tmp_path):
    pytest.importorskip("llama_cpp")
    targets = [{"kind": "gguf", "precision": "q4_k_m"}]
    config, folder = run_folder(tmp_path / "runs" / "sorter", base, targets=targets, rescore=6)
    with pytest.raises(GateFailed, match=r"target gguf-q4_k_m: it scores 0\.0 where the student scored 1\.0"):
        build(with_task(config, folder, right=lambda n: True), folder)
    assert not list(folder.release.iterdir())


def test_a_server_that_could_serve_several_files_must_be_told_which(base, tmp_path):
    pytest.importorskip("llama_cpp")
    both = [{"kind": "gguf", "precision": "f16"}, {"kind": "gguf", "precision": "q4_k_m"}]
    with pytest.raises(ConfigError, match="`precision` names one of: f16, q4_k_m"):
        build(*run_folder(tmp_path / "a" / "runs" / "sorter", base, targets=[*both, "ollama"]))
    chosen = [*both, {"kind": "ollama", "precision": "q4_k_m"}, {"kind": "llamacpp", "precision": "f16"}]
    bundle = build(*run_folder(tmp_path / "b" / "runs" / "sorter", base, targets=chosen))
    assert (bundle / "serve/ollama/Modelfile").read_text().startswith("FROM ../../gguf/sorter-0.1.0-Q4_K_M.gguf")
    assert "sorter-0.1.0-F16.gguf" in (bundle / "serve/llamacpp/serve.sh").read_text()


def test_a_file_that_is_no_gguf_is_one_line(tmp_path):
    pytest.importorskip("llama_cpp")
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(200))
    with pytest.raises(IntegrityError, match=r"llama\.cpp does not open it"):
        llamacpp.Engine(tmp_path / "x.gguf", 64)
    with pytest.raises(IntegrityError, match="could not quantise"):
        llamacpp.quantise(tmp_path / "x.gguf", tmp_path / "y.gguf", "q4_k_m")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_without_llamacpp_the_release_says_what_to_install_and_nothing_is_left(base, tmp_path, monkeypatch, precision):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    config, folder = run_folder(tmp_path / "runs" / "sorter", base, targets=[{"kind": "gguf", "precision": precision}])
    with pytest.raises(MissingDependency, match="llama-cpp-python") as caught:
        build(config, folder)
    assert "alambic[llamacpp]" in str(caught.value)
    assert not list(folder.release.iterdir())


def test_the_demo_starts_the_bundles_own_server_and_answers_what_the_file_answers(base, tmp_path):
    pytest.importorskip("llama_cpp")
    pytest.importorskip("uvicorn")
    from distill.models import end_ids, load_tokenizer
    from distill.records import Message
    from distill.release.check import rendered

    targets = [{"kind": "gguf", "precision": "f16"}, {"kind": "llamacpp", "context": 256}, "demo"]
    config, folder = run_folder(tmp_path / "runs" / "sorter", base, targets=targets)
    config = config.model_copy(update={"generate": config.generate.model_copy(update={"max_new_tokens": 6})})
    bundle = build(config, folder)
    command = [sys.executable, str(bundle / "demo/serve.py"), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        address = process.stdout.readline().split()[0]
        asked = urllib.request.Request(
            address + "ask",
            json.dumps({"who": "student", "fields": {"text": "un éditeur"}}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=60) as response:
            answer = json.load(response)
        engines = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    finally:
        process.terminate()
        process.wait()
    assert engines
    assert not any(Path(f"/proc/{pid}").exists() for pid in engines)  # nothing goes on running
    (path,) = (bundle / "gguf").glob("*.gguf")
    engine = llamacpp.Engine(path, 256)
    tokenizer = load_tokenizer(base)
    ids = engine.read(rendered(tokenizer, (Message("system", "Sort the text."), Message("user", "un éditeur"))))
    assert answer["text"] == engine.answer(ids, end_ids(tokenizer), 6)
    assert answer["text"]
    engine.close()
