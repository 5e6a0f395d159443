"""Loading: what is refused, and what text the ids stand for."""

from __future__ import annotations

import json
import shutil
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill import models
from distill.errors import DataError, DistillError, IntegrityError, Refused
from distill.models.folder import check_header, safe_config
from distill.records import Message
from tests.tiny import CHATML, tiny_tokenizer

HELLO = [Message("system", "Be brief."), Message("user", "Hé 12")]


@pytest.fixture
def folder(tiny_student, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(tiny_student, tmp_path / "model")


def edit(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def test_code_that_comes_with_a_model_is_not_run(folder, tmp_path):
    mark = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Evil: pass\n")
    code = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    edit(folder, auto_map=code, _attn_implementation_internal="someone/kernel", attn_implementation="someone/kernel")
    tokenizer_config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config | {"auto_map": code}))
    model, _ = models.load_causal_lm(folder)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.config._attn_implementation == "sdpa"
    assert not mark.exists()


def test_an_unknown_architecture_is_refused_in_one_line(folder):
    edit(folder, model_type="evil")
    with pytest.raises(Refused, match="'evil'"):
        models.load_causal_lm(folder)


def test_configuration_values_that_make_a_library_act_are_dropped_at_every_depth():
    unsafe = {"hidden_size": 4, "auto_map": {}, "_x": 1, "text_config": {"auto_map": {}, "layers": [{"_y": 1, "z": 2}]}}
    assert safe_config(unsafe) == {"hidden_size": 4, "text_config": {"layers": [{"z": 2}]}}


@pytest.mark.parametrize(
    "text", ["not json", "[]", "{}", '{"model_type": 3}', '{"model_type": "llama", "vocab_size": "x"}']
)
def test_a_broken_config_is_one_line(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(DistillError) as error:
        models.load_causal_lm(folder)
    assert error.value.exit_code in (4, 5)
    assert "\n" not in str(error.value)


def test_a_broken_tokenizer_is_one_line(folder):
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(DataError):
        models.load_causal_lm(folder)


def test_a_truncated_weights_file_is_an_integrity_error(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(IntegrityError, match="not a sound safetensors file"):
        models.load_causal_lm(folder)


def header(table, tail=b"", size=None):
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + tail


def tensor(start, stop, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_a_sound_header_passes(tmp_path):
    (tmp_path / "x").write_bytes(
        header({"a": tensor(0, 8, [2]), "b": tensor(8, 12, []), "__metadata__": {}}, bytes(12))
    )
    check_header(tmp_path / "x")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        header({}, size=1 << 40),
        header({"a": tensor(0, 8, [2]), "b": tensor(4, 12, [2])}, bytes(12)),
        header({"a": tensor(4, 12, [2])}, bytes(12)),
        header({"a": tensor(0, 8, [3])}, bytes(8)),
        header({"a": tensor(0, 8, [2])}, bytes(9)),
        header({"a": tensor(0, 8, [2], "PICKLE")}, bytes(8)),
        header({"a": tensor(8, 0, [2])}, bytes(8)),
        header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{}}', bytes(4)),
        header([]),
        header(b"[" * 100_000),
    ],
)
def test_a_header_that_lies_is_an_integrity_error(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(IntegrityError):
        check_header(tmp_path / "x")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_no_header_crashes_the_check(tmp_path_factory, data, framed):
    file = tmp_path_factory.getbasetemp() / "fuzzed"
    file.write_bytes(header(data) if framed else data)
    try:
        check_header(file)
    except IntegrityError:
        return
    assert framed
    assert json.loads(data) == {} or set(json.loads(data)) == {"__metadata__"}


def test_a_chat_is_encoded_up_to_the_answer_and_an_answer_up_to_the_end_of_its_turn(tiny_student):
    tokenizer = models.load_tokenizer(tiny_student)
    ids = models.encode_chat(tokenizer, HELLO)
    text = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHé 12<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(ids) == text
    answer = models.encode_answer(tokenizer, "Hi")
    assert tokenizer.decode(ids + answer) == text + "Hi<|im_end|>"
    full = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in HELLO] + [{"role": "assistant", "content": "Hi"}],
        return_dict=False,
    )
    assert full[: len(ids) + len(answer)] == ids + answer


def test_the_token_that_the_template_writes_ends_a_turn_even_when_another_is_named():
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    im_end, eos = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert models.end_ids(tokenizer) == [im_end, eos]
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    assert models.end_ids(tokenizer) == [eos]


@pytest.mark.parametrize(
    "template",
    [
        None,
        "{{ raise_exception('no system role') }}",
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{% if %}",
    ],
)
def test_a_template_that_is_missing_refuses_or_attacks_is_a_data_error(template):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(DataError):
        models.encode_chat(tokenizer, HELLO)


def test_the_fingerprint_is_of_the_vocabulary_not_of_the_moment(tiny_student, tiny_teacher):
    tokenizer, same = models.load_tokenizer(tiny_student), models.load_tokenizer(tiny_teacher)
    before = models.tokenizer_fingerprint(tokenizer)
    tokenizer(["a", "abc"], padding=True, truncation=True, max_length=2)
    tokenizer.chat_template = CHATML + " "
    assert models.tokenizer_fingerprint(tokenizer) == before == models.tokenizer_fingerprint(same)
    assert models.template_hash(tokenizer) != models.template_hash(same)
    assert models.tokenizer_fingerprint(tiny_tokenizer(extra=("<|more|>",))) != before


def test_an_adapter_that_is_pickled_missing_or_of_another_kind_is_said(tiny_student, tmp_path):
    with pytest.raises(DataError, match="no adapter_model"):
        models.load_causal_lm(tiny_student, adapter=tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(Refused, match="pickled"):
        models.load_causal_lm(tiny_student, adapter=tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(header({}))
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "XLORA"}')
    with pytest.raises(DataError, match="XLORA"):
        models.load_causal_lm(tiny_student, adapter=tmp_path)


def test_a_saved_adapter_is_attached_and_not_merged(tiny_student, tmp_path):
    from peft import LoraConfig, get_peft_model

    model, _ = models.load_causal_lm(tiny_student)
    get_peft_model(model, LoraConfig(r=2, target_modules="all-linear")).save_pretrained(tmp_path)
    model, _ = models.load_causal_lm(tiny_student, adapter=tmp_path)
    assert any("lora_A" in name for name, _ in model.named_parameters())
    assert not model.training


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_have_the_wanted_number_format(tiny_student, dtype):
    model, _ = models.load_causal_lm(tiny_student, dtype)
    assert str(model.dtype) == f"torch.{dtype}"
    assert models.pick_dtype("auto", "cpu") in ("float32", "bfloat16")
