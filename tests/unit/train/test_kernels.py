"""Attention kernels, Liger: the same student, or one clear line why not here."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from distill.errors import ConfigError, EnvironmentProblem
from distill.models import load_causal_lm
from distill.train import kernels, run, setup
from distill.train.batches import collate, encode_rows
from distill.train.student import hidden_states, load_base, shares_prefix
from tests.tiny import tiny_tokenizer
from tests.unit.train.conftest import make_config, records
from tests.unit.train.test_run import teacher_of
from tests.unit.train.test_student import with_student


def rows(count: int = 6):
    return encode_rows(records(count), tiny_tokenizer(), 256).rows


def pretend(monkeypatch, *, cuda: bool, packages: tuple[str, ...] = ()) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(kernels, "find_spec", lambda name: object() if name in packages else None)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_student_and_live_teacher_are_loaded_with_the_attention_that_was_asked_for(tiny_student, attention):
    teacher = teacher_of(tiny_student)
    config = with_student(make_config(tiny_student, method="whitebox", teacher=teacher), attention=attention)
    for model in (load_base(tiny_student, config.student)[0], setup.load_teacher(config)[0]):
        assert model.config._attn_implementation == attention


def test_without_a_choice_the_library_chooses(tiny_student):
    chosen = load_base(tiny_student, make_config(tiny_student).student)[0].config._attn_implementation
    assert chosen == load_causal_lm(tiny_student)[0].config._attn_implementation == "sdpa"


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_without_a_mask_have_the_hidden_states_of_rows_alone(tiny_student, attention):
    model, _ = load_causal_lm(tiny_student, "float32", attention=attention)
    with torch.no_grad():
        packed = hidden_states(model, collate(rows(), pad=0, share=False, pack=True))
        alone = torch.cat([hidden_states(model, collate([row], pad=0)) for row in rows()])
    assert torch.allclose(packed, alone, atol=1e-5)


def test_a_variable_length_kernel_is_given_row_starts_and_no_mask(tiny_student):
    from transformers.modeling_flash_attention_utils import prepare_fa_kwargs_from_position_ids

    seen = {}

    def body(**given):
        seen.update(given)
        return SimpleNamespace(last_hidden_state=torch.zeros(*given["input_ids"].shape, 4))

    model, _ = load_causal_lm(tiny_student)
    model.config._attn_implementation_internal = "flash_attention_2"
    assert not shares_prefix(model)
    config = with_student(make_config(tiny_student, packing=True), attention="flash_attention_2")
    batch = setup.layout_of(config, SimpleNamespace(model=model, pad=0))(rows())
    hidden_states(SimpleNamespace(base_model=body), batch)
    lengths = [len(row.prompt) + len(row.completion) - 1 for row in rows()]
    assert not batch.prefix_P.numel()
    assert seen["attention_mask"] is None
    assert seen["past_key_values"] is None
    assert seen["position_ids"].tolist() == [[place for length in lengths for place in range(length)]]
    (starts, _), (longest, _) = prepare_fa_kwargs_from_position_ids(seen["position_ids"])
    assert starts.diff().tolist() == lengths
    assert int(longest) == max(lengths)


def test_with_another_kernel_the_same_rows_share_their_prefix(tiny_student):
    """The negative control."""
    model, _ = load_causal_lm(tiny_student)
    config = make_config(tiny_student, packing=True)
    assert setup.layout_of(config, SimpleNamespace(model=model, pad=0))(rows()).prefix_P.numel()


@pytest.mark.parametrize(
    ("cuda", "packages", "changes", "error", "words"),
    [
        (False, (), {}, EnvironmentProblem, "needs a CUDA device"),
        (True, (), {}, EnvironmentProblem, "needs the package flash_attn"),
        (True, ("flash_attn",), {"dtype": "float32"}, ConfigError, "the student would be held in float32"),
    ],
    ids=["no device", "no package", "float32"],
)
def test_flash_attention_is_refused_before_weights_are_loaded(
    tiny_student, run_folder, monkeypatch, cuda, packages, changes, error, words
):
    config = with_student(make_config(tiny_student), attention="flash_attention_2", **changes)
    monkeypatch.setattr(setup, "load_base", lambda *_: pytest.fail("it was loaded"))
    pretend(monkeypatch, cuda=cuda, packages=packages)
    with pytest.raises(error, match=words):
        kernels.check(config)
    if not cuda:
        with pytest.raises(error, match=words):
            run.run(config, run_folder)
        assert not run_folder.checkpoints.exists()


def test_a_float32_teacher_beside_flash_attention_is_refused_and_a_bfloat16_one_is_not(tiny_student, monkeypatch):
    pretend(monkeypatch, cuda=True, packages=("flash_attn",))
    for dtype in ("float32", "bfloat16"):
        config = make_config(tiny_student, method="whitebox", teacher=teacher_of(tiny_student) | {"dtype": dtype})
        config = with_student(config, attention="flash_attention_2", dtype="bfloat16")
        if dtype == "bfloat16":
            kernels.check(config)
        else:
            with pytest.raises(ConfigError, match="the teacher would be held in float32"):
                kernels.check(config)


@pytest.mark.parametrize(
    ("cuda", "words"), [(False, "liger needs a CUDA device"), (True, "needs the package liger_kernel")]
)
def test_liger_is_refused_without_a_device_and_without_the_package(tiny_student, monkeypatch, cuda, words):
    pretend(monkeypatch, cuda=cuda)
    with pytest.raises(EnvironmentProblem, match=words) as caught:
        kernels.check(make_config(tiny_student, liger=True))
    assert caught.value.exit_code == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="refused where there is no CUDA device")
def test_liger_on_a_processor_ends_the_run_before_its_first_step(tiny_student, run_folder):
    with pytest.raises(EnvironmentProblem, match="CUDA"):
        run.run(make_config(tiny_student, liger=True), run_folder)
    assert not run_folder.checkpoints.exists()
