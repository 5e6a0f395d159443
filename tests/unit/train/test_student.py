"""What can be a student: pruned, padded, held in four bits - or refused in one line before anything is written."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from distill.errors import ConfigError, DataError, EnvironmentProblem, OutOfMemory
from distill.models import load_causal_lm, load_tokenizer
from distill.train import memory, run, setup
from distill.train.batches import encode_rows
from distill.train.prune import block_influence, keep_layers, layers_of, perplexity, prune
from tests.tiny import tiny_model, tiny_tokenizer
from tests.unit.train.conftest import make_config, metrics, records
from tests.unit.train.test_run import facts, teacher_of

if TYPE_CHECKING:
    from distill.config import RunConfig


def rows(count: int = 8):
    return encode_rows(records(count), tiny_tokenizer(), 256).rows


def with_student(config: RunConfig, **changes) -> RunConfig:
    return config.model_copy(update={"student": config.student.model_copy(update=changes)})


def pruned_to(config: RunConfig, layers: int) -> RunConfig:
    from distill.config import Prune

    return with_student(config, prune=Prune(layers=layers))


@pytest.fixture
def deep(tmp_path):
    """A model of four layers, the second of which passes its input on."""
    model, _ = load_causal_lm(tiny_model(tmp_path / "deep", layers=4))
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        torch.nn.init.zeros_(model.model.layers[1].get_submodule(name).weight)
    return model


def test_a_layer_that_does_nothing_has_no_influence_and_goes_first(deep):
    influence = block_influence(deep, rows())
    assert influence[1] == pytest.approx(0, abs=1e-6)
    assert min(influence[0], influence[2], influence[3]) > 1e-4
    told = prune(deep, 3, rows(), rows())
    assert told["layers"] == [0, 2, 3]
    assert told["perplexity_after"] == pytest.approx(told["perplexity_before"], rel=1e-5)
    assert len(layers_of(deep)) == deep.config.num_hidden_layers == 3


def test_the_measured_influence_is_the_one_by_hand(deep):
    row = rows(1)[0]
    ids = torch.tensor([[*row.prompt, *row.completion[:-1]]])
    with torch.no_grad():
        hidden = deep(ids, output_hidden_states=True).hidden_states
    by_hand = 1 - torch.cosine_similarity(hidden[0], hidden[1], -1).mean()
    assert block_influence(deep, [row])[0] == pytest.approx(float(by_hand), rel=1e-4)


def test_leaving_out_a_layer_that_matters_is_seen_in_the_perplexity(deep):
    """The negative control."""
    before = perplexity(deep, rows())
    keep_layers(deep, [1, 2, 3])
    assert abs(math.log(perplexity(deep, rows()) / before)) > 1e-3


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_a_pruned_student_is_written_whole_and_is_the_one_that_was_measured(tiny_student, run_folder, kind):
    config = pruned_to(make_config(tiny_student, adapter={"kind": kind, "r": 4}, lr=5e-3), 1)
    run.run(config, run_folder)
    told = facts(run_folder)
    assert told["adapter"] is False
    assert told["pruned"]["layers_before"] == 2
    assert told["pruned"]["perplexity_after"] == pytest.approx(math.exp(told["holdout_loss_before"]), rel=1e-4)
    model, tokenizer = load_causal_lm(run_folder.student)
    assert model.config.num_hidden_layers == 1
    held = encode_rows(records(4, 100), tokenizer, 256).rows
    assert math.log(perplexity(model, held)) == pytest.approx(told["holdout_loss_after"], rel=1e-4)


def test_pruning_nothing_away_is_refused(tiny_student, run_folder):
    with pytest.raises(ConfigError, match=r"the model has 2 layers.*student\.prune\.layers=1"):
        run.run(pruned_to(make_config(tiny_student), 2), run_folder)


def test_four_bits_and_pruning_contradict_each_other(tiny_student):
    with pytest.raises(ConfigError, match="4 bits"):
        from distill.config import Student, validate

        validate(Student, {"model": "x", "adapter": {"kind": "qlora"}, "prune": {"layers": 1}}, "test")


@pytest.mark.skipif(torch.cuda.is_available(), reason="refused where there is no CUDA device")
def test_four_bits_are_refused_without_cuda_before_anything_is_loaded(tiny_student, run_folder):
    with pytest.raises(EnvironmentProblem, match="needs a CUDA device") as caught:
        run.run(make_config(tiny_student, adapter={"kind": "qlora"}), run_folder)
    assert caught.value.exit_code == 3
    assert not run_folder.checkpoints.exists()


def test_a_student_padded_to_more_tokens_than_its_teacher_learns_the_same(
    tiny_student, tiny_teacher, run_folder, tmp_path
):
    """One family pads one vocabulary to several sizes: the columns nobody can say are left out on both sides."""
    padded = tmp_path / "padded"
    model, tokenizer = load_causal_lm(tiny_student)
    model.resize_token_embeddings(len(tokenizer) + 128, mean_resizing=False)
    model.save_pretrained(padded)
    tokenizer.save_pretrained(padded)
    curves = []
    for student in (tiny_student, padded):
        config = make_config(student, method="whitebox", teacher=teacher_of(tiny_teacher), kd_weight=1.0, max_steps=3)
        run.run(config, run_folder)
        curves.append([line["kd"] for line in metrics(run_folder) if "kd" in line])
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)


def test_ids_outside_the_vocabulary_are_one_line_before_the_first_step(tiny_student, run_folder, tmp_path):
    small = tmp_path / "small"
    model, tokenizer = load_causal_lm(tiny_student)
    model.resize_token_embeddings(len(tokenizer) - 150)
    model.save_pretrained(small)
    tokenizer.save_pretrained(small)
    with pytest.raises(DataError, match="token id outside the vocabulary") as caught:
        run.run(make_config(small), run_folder)
    assert caught.value.exit_code == 4
    assert not run_folder.checkpoints.exists()
    assert load_tokenizer(small).chat_template


def test_a_student_larger_than_the_memory_is_refused_before_it_is_loaded(tiny_student, run_folder, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1e5)
    monkeypatch.setattr(setup, "load_base", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(OutOfMemory, match="before its first step") as caught:
        run.run(make_config(tiny_student), run_folder)
    assert caught.value.exit_code == 15


def test_the_estimate_grows_with_what_costs_memory():
    base = {"params": 1e9, "trainable": 1e7, "layers": 24, "hidden": 2048, "tokens": 4096}
    plain = memory.needed(**base)
    assert memory.needed(**base, teacher=7e9) == plain + 2 * 7e9
    assert memory.needed(**base, checkpointing=True) < plain
    assert memory.needed(**base, quantised=True) < plain
    assert memory.needed(**base | {"trainable": 1e9}) > 16e9


def test_the_free_memory_is_known_here():
    assert 0 < memory.available() < 1e14
