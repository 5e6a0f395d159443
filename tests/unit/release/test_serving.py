"""Serving files say exactly what the model was trained with: the same turns, the same stops, loopback only."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from distill.errors import ConfigError
from distill.release import gguf_writer, vocabulary
from distill.release.targets import ollama
from tests.tiny import tiny_model, tiny_tokenizer
from tests.unit.release.made import base_folder, build, run_folder

LLAMA3 = (
    "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{{ m['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MISTRAL = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] + '</s>' }}"
    "{% else %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endif %}{% endfor %}"
)
TALKS = [
    [("system", "Sort."), ("user", "un éditeur")],
    [("system", "Sort."), ("user", "a"), ("assistant", "b"), ("user", "  c\n")],
    [("user", "a")],
    [("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")],
]


def go(template, talk):
    """What Go's text/template writes, for the few actions that we use."""
    body, tail = template.removeprefix("{{ range .Messages }}").split("{{ end }}{{ end }}")
    parts = re.split(r'\{\{ (?:else )?if eq \.Role "(\w+)" \}\}', body)[1:]
    said = dict(zip(parts[::2], parts[1::2], strict=True))
    return "".join(said[role].replace("{{ .Content }}", content) for role, content in talk) + tail


@pytest.mark.parametrize("template", [None, LLAMA3, DEFAULT_SYSTEM])
@pytest.mark.parametrize("talk", TALKS)
def test_ollamas_template_writes_what_the_models_own_template_writes(template, talk):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template or tokenizer.chat_template
    shape = ollama.turns_of(tokenizer)
    real = tokenizer.apply_chat_template(
        [{"role": r, "content": c} for r, c in talk], add_generation_prompt=True, tokenize=False
    )
    if shape.default_system and talk[0][0] != "system":
        talk = [("system", shape.default_system), *talk]  # ollama puts SYSTEM of the Modelfile there
    trimmed = [(role, content.strip() if template == LLAMA3 else content) for role, content in talk]
    assert go(ollama.go_template(shape), trimmed) == real


def test_a_default_system_message_is_kept_and_a_template_of_another_kind_is_refused():
    tokenizer = tiny_tokenizer()
    assert ollama.turns_of(tokenizer).default_system == ""
    tokenizer.chat_template = DEFAULT_SYSTEM
    assert ollama.turns_of(tokenizer).default_system == "You are kind."
    tokenizer.chat_template = MISTRAL
    with pytest.raises(ConfigError, match="plain kind"):
        ollama.turns_of(tokenizer)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A bundle with every serving target."""
    base = base_folder(tmp_path_factory.mktemp("base") / "tiny-base")
    targets = [
        "merged",
        {"kind": "gguf", "precision": "f16", "judged_by": "transformers"},
        "ollama",
        "llamacpp",
        {"kind": "vllm", "port": 8123},
    ]
    return build(*run_folder(tmp_path_factory.mktemp("run") / "runs" / "sorter", base, targets=targets))


def test_the_modelfile_names_the_weights_the_system_message_and_where_to_stop(served):
    text = (served / "serve/ollama/Modelfile").read_text()
    lines = text.splitlines()
    assert (served / "serve/ollama" / lines[0].removeprefix("FROM ")).resolve().is_file()
    assert 'SYSTEM """Sort the text."""' in lines
    assert 'PARAMETER stop """<|im_end|>"""' in lines


def test_the_compose_file_is_yaml_and_listens_on_loopback_only(served):
    service = YAML(typ="safe").load(served / "serve/vllm/compose.yaml")["services"]["student"]
    assert service["ports"] == ["127.0.0.1:8123:8000"]
    assert (served / "serve/vllm" / service["volumes"][0].partition(":")[0]).resolve() == (served / "weights").resolve()


@pytest.mark.parametrize("engine", ["vllm", "llamacpp"])
def test_the_start_scripts_are_shell_and_name_files_that_are_there(served, engine):
    script = served / "serve" / engine / "serve.sh"
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
    text = script.read_text()
    assert "--host 127.0.0.1" in text
    path = re.search(r"\.\./\.\./[\w./-]+", text).group()
    assert (script.parent / path).exists()


# -- GGUF ---------------------------------------------------------------------------------------------------------


def family(path, kind):
    """A tiny base of another architecture, made from the tiny model's tokenizer."""
    tiny_model(path)
    from transformers import AutoModelForCausalLM, Qwen2Config, Qwen3Config

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "vocab_size": 271, "max_position_embeddings": 512}
    made = Qwen2Config(**sizes) if kind == "qwen2" else Qwen3Config(**sizes, head_dim=128, tie_word_embeddings=False)
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(made)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # biases and norms that are not 0 and 1
    model.save_pretrained(path)
    return path


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_other_families_with_biases_padded_vocabulary_and_untied_heads_are_written_right(kind, tmp_path):
    base = family(tmp_path / "base", kind)
    targets = [{"kind": "gguf", "precision": "f16", "judged_by": "transformers"}]
    bundle = build(*run_folder(tmp_path / "runs" / "sorter", base, targets=targets))
    check = json.loads((bundle / "release.json").read_text())["targets"]["gguf-f16"]["check"]
    assert check["worst"] < 5e-3


def test_the_file_holds_the_tokenizers_own_list_and_template(served):
    from gguf import GGUFReader

    (path,) = (served / "gguf").glob("*.gguf")
    fields = GGUFReader(str(path)).fields
    read = {
        name: fields[f"tokenizer.{name}"].contents() for name in ("ggml.tokens", "ggml.token_type", "chat_template")
    }
    tokenizer = tiny_tokenizer()
    assert read["ggml.tokens"] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert read["ggml.token_type"][:4] == [3, 3, 3, 1]
    assert read["chat_template"] == tokenizer.chat_template
    assert fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert fields["general.name"].contents() == "sorter-0.1.0"


def test_interleaving_turns_halves_into_neighbouring_pairs():
    rows = torch.tensor([0, 1, 2, 3, 10, 11, 12, 13])[:, None]
    assert gguf_writer.interleave(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 10, 12, 11, 13]


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"rope_parameters": {"rope_type": "yarn"}}, "yarn"),
        ({"rope_scaling": {"type": "linear"}}, "linear"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"use_sliding_window": True}, "sliding"),
    ],
)
def test_what_the_file_could_not_say_is_refused(config, word):
    with pytest.raises(ConfigError, match=word):
        gguf_writer.refuse_unsupported(config)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda v: v["model"].update(type="WordPiece"), "WordPiece"),
        (lambda v: v["model"].update(byte_fallback=True), "SentencePiece"),
        (lambda v: v.update(pre_tokenizer={"type": "Whitespace"}), "Whitespace"),
    ],
)
def test_a_tokenizer_that_llamacpp_has_no_name_for_is_refused(change, word, tmp_path):
    values = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    change(values)
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=word):
        vocabulary.read(tmp_path / "tokenizer.json", 300)


def test_an_unknown_architecture_is_refused_before_anything_is_written(tmp_path):
    base = tiny_model(tmp_path / "base")
    config, folder = run_folder(
        tmp_path / "runs" / "sorter", base, targets=[{"kind": "gguf", "judged_by": "transformers"}]
    )
    values = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**values, "model_type": "bloom"}))
    with pytest.raises(ConfigError, match="bloom"):
        build(config, folder)
    assert not list(folder.release.iterdir())


CASCADE = {
    "schema": 1, "threshold": 0.8125, "confidence": {"kind": "logprob", "definition": "d"}, "max_new_tokens": 8,
    "prompts": {"student": [], "teacher": []}, "held_out": None, "escalated": 0.3,
    "models": {"student": "path:/srv/models/tiny-base", "teacher": "acme/Teacher-9B"},
}  # fmt: skip


def test_a_cascade_that_was_measured_leaves_with_a_router_for_it(tmp_path):
    from distill.release import cascade_router, verify_bundle

    base = base_folder(tmp_path / "tiny-base")
    config, folder = run_folder(tmp_path / "runs" / "sorter", base, targets=["merged", "vllm"])
    folder.cascade_json.write_text(json.dumps(CASCADE))
    bundle = build(config, folder)
    served = cascade_router.read_facts(str(bundle / "serve" / "cascade.json"))
    assert served == {
        **CASCADE,
        "models": {"student": "path:tiny-base", "teacher": "acme/Teacher-9B"},  # of a local path the last part
        "serve": {
            "student": "sorter-0.1.0",
            "teacher": "acme/Teacher-9B",
            "teacher_url": "",
            "teacher_key_env": "",
        },
    }
    assert (bundle / "serve/router.py").read_text() == Path(cascade_router.__file__).read_text()
    assert verify_bundle.check(str(bundle)) == []
    assert "python serve/router.py" in (bundle / "README.md").read_text()
    (bundle / "serve/cascade.json").write_text("{}")
    assert verify_bundle.check(str(bundle)) != []  # sealed with the rest
    folder.cascade_json.unlink()
    other = config.model_copy(update={"release": config.release.model_copy(update={"version": "0.2.0"})})
    other._folder = config._folder
    assert not (build(other, folder) / "serve/router.py").exists()
