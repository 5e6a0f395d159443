"""The whole stage on a tiny model: each method, what it writes, and how it ends on bad input."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from distill.errors import ConfigError, DataError, Diverged, OutOfMemory
from distill.models import load_causal_lm, tokenizer_fingerprint
from distill.signals import About, Signal, SignalWriter
from distill.train import run
from distill.train.batches import encode_rows
from distill.train.student import Objective
from tests.tiny import tiny_model, tiny_tokenizer
from tests.unit.train.conftest import make_config, metrics, records, write_rows

FULL = {"adapter": {"kind": "none"}, "lr": 5e-3, "epochs": 5, "micro_batch_size": 6}


def teacher_of(path) -> dict:
    return {"kind": "transformers", "model": f"path:{path}"}


def facts(folder) -> dict:
    return json.loads((folder.student / "student.json").read_text())


def write_signals(folder, teacher_path, k: int, temperature: float = 1.0, **about) -> None:
    """Signals of a live teacher, as the generate stage writes them."""
    model, tokenizer = load_causal_lm(teacher_path)
    known = About({"model": "t"}, tokenizer_fingerprint(tokenizer), len(tokenizer), k, temperature=temperature)
    writer, rows = SignalWriter(folder.signals, known), encode_rows(records(24) + records(4, 100), tokenizer, 256).rows
    for row in rows:
        ids = torch.tensor([[*row.prompt, *row.completion]])
        with torch.no_grad():
            logits = model(ids).logits[0, len(row.prompt) - 1 : -1]
        top, top_ids = torch.log_softmax(logits.float(), -1).topk(k, -1)
        writer.add(row.key, Signal(np.array(row.completion, np.int32), top_ids.int().numpy(), top.numpy()))
    writer.finish([row.key for row in rows])


def test_sft_learns_and_writes_a_student_that_loads(tiny_student, run_folder):
    written = run.run(make_config(tiny_student, epochs=4), run_folder)
    assert set(written) == {run_folder.student, run_folder.metrics}
    known = facts(run_folder)
    assert known["holdout_loss_after"] < known["holdout_loss_before"]
    assert known["adapter"] is True
    assert known["steps"] == 16
    model, _ = load_causal_lm(tiny_student, adapter=run_folder.student / "adapter")
    assert any(p.abs().sum() > 0 for n, p in model.named_parameters() if "lora_B" in n)
    adapter = json.loads((run_folder.student / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "student"
    assert str(run_folder.path) not in json.dumps(adapter)


def test_the_exported_student_has_the_loss_that_was_measured(tiny_student, run_folder):
    run.run(make_config(tiny_student), run_folder)
    model, tokenizer = load_causal_lm(tiny_student, adapter=run_folder.student / "adapter")
    total = count = 0
    for row in encode_rows(records(4, 100), tokenizer, 256).rows:
        ids = torch.tensor([[*row.prompt, *row.completion]])
        with torch.no_grad():
            logprobs = torch.log_softmax(model(ids).logits[0, len(row.prompt) - 1 : -1].float(), -1)
        total -= float(logprobs.gather(-1, torch.tensor(row.completion)[:, None]).sum())
        count += len(row.completion)
    assert total / count == pytest.approx(facts(run_folder)["holdout_loss_after"], rel=1e-4)


def test_all_weights_can_be_trained_and_are_written_whole(tiny_student, run_folder):
    run.run(make_config(tiny_student, adapter={"kind": "none"}, lr=1e-3), run_folder)
    assert facts(run_folder)["adapter"] is False
    model, tokenizer = load_causal_lm(run_folder.student)
    assert tokenizer.chat_template
    assert facts(run_folder)["holdout_loss_after"] < facts(run_folder)["holdout_loss_before"]
    assert facts(run_folder)["trainable"] == sum(p.numel() for p in model.parameters())


def test_dora_trains(tiny_student, run_folder):
    run.run(make_config(tiny_student, adapter={"kind": "dora", "r": 2}), run_folder)
    assert facts(run_folder)["holdout_loss_after"] < facts(run_folder)["holdout_loss_before"]


@pytest.mark.parametrize("loss", ["forward_kl", "reverse_kl", "jsd"])
def test_whitebox_brings_the_student_closer_to_a_live_teacher(tiny_student, taught_teacher, run_folder, loss):
    config = make_config(
        tiny_student, method="whitebox", loss=loss, teacher=teacher_of(taught_teacher), kd_weight=1.0, **FULL
    )
    run.run(config, run_folder)
    lines = [line for line in metrics(run_folder) if "holdout_kd" in line]
    assert lines[-1]["holdout_kd"] < 0.7 * lines[0]["holdout_kd"]


def test_a_student_that_is_its_own_teacher_has_nothing_to_learn(tiny_student, run_folder):
    config = make_config(tiny_student, method="whitebox", teacher=teacher_of(tiny_student), kd_weight=1.0, max_steps=2)
    run.run(config, run_folder)
    first = metrics(run_folder)[1]
    assert first["kd"] == pytest.approx(0, abs=1e-5)
    assert first["grad_norm"] == pytest.approx(0, abs=1e-4)


def test_offline_top_k_with_all_of_the_vocabulary_equals_whitebox(tiny_student, taught_teacher, run_folder, tmp_path):
    write_signals(run_folder, taught_teacher, k=len(tiny_tokenizer()))
    run.run(make_config(tiny_student, method="offline_topk", kd_weight=1.0, max_steps=1), run_folder)
    stored = metrics(run_folder)[1]
    live = make_config(tiny_student, method="whitebox", teacher=teacher_of(taught_teacher), kd_weight=1.0, max_steps=1)
    run.run(live, run_folder)
    assert stored["kd"] == pytest.approx(metrics(run_folder)[1]["kd"], rel=0.02), "stored values are rounded"


def test_offline_top_k_brings_the_student_closer(tiny_student, taught_teacher, run_folder):
    write_signals(run_folder, taught_teacher, k=16)
    run.run(make_config(tiny_student, method="offline_topk", kd_weight=1.0, **FULL), run_folder)
    lines = [line for line in metrics(run_folder) if "holdout_kd" in line]
    assert lines[-1]["holdout_kd"] < 0.7 * lines[0]["holdout_kd"]


def test_a_padded_teacher_vocabulary_gives_the_same_loss(tiny_student, taught_teacher, run_folder, tmp_path):
    padded = tiny_model(tmp_path / "padded", seed=1, hidden=96, padded_vocab=64)
    config = make_config(tiny_student, method="whitebox", teacher=teacher_of(padded), kd_weight=1.0, max_steps=1)
    run.run(config, run_folder)
    known = metrics(run_folder)[1]
    assert math.isfinite(known["kd"])
    assert known["kd"] > 0


def test_accumulation_does_not_change_the_loss_of_a_step(tiny_student, run_folder, tmp_path):
    losses = []
    for micro in (6, 2, 1):
        run.run(make_config(tiny_student, micro_batch_size=micro, max_steps=3), run_folder)
        losses.append([line["loss"] for line in metrics(run_folder) if "loss" in line])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


def test_sharing_the_prefix_does_not_change_the_loss(tiny_student, run_folder):
    losses = []
    for share in (True, False):
        run.run(make_config(tiny_student, share_prefix=share, max_steps=3), run_folder)
        losses.append([line["loss"] for line in metrics(run_folder) if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_nan_stops_the_run_and_names_the_rows(tiny_student, run_folder, monkeypatch):
    real = Objective.forward

    def forward(self, batch, teacher):
        total, parts = real(self, batch, teacher)
        return (total * float("nan") if any(row.id == "r5" for row in batch.rows) and self.training else total), parts

    monkeypatch.setattr(Objective, "forward", forward)
    with pytest.raises(Diverged, match="r5") as caught:
        run.run(make_config(tiny_student), run_folder)
    assert caught.value.exit_code == 14
    saved = json.loads(run_folder.metrics.with_name("diverged.json").read_text())
    assert "r5" in {row["id"] for row in saved["rows"]}
    assert all(row["prompt"] and row["completion"] for row in saved["rows"])
    assert not run_folder.student.exists()


def test_an_exploding_gradient_stops_before_the_step(tiny_student, run_folder, monkeypatch):
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *a, **k: torch.tensor(float("inf")))
    with pytest.raises(Diverged, match="gradient"):
        run.run(make_config(tiny_student), run_folder)


def test_targets_that_match_nothing_are_named_with_what_there_is(tiny_student, run_folder):
    with pytest.raises(ConfigError, match=r"match no module.*q_proj"):
        run.run(make_config(tiny_student, adapter={"targets": ["nonsense"]}), run_folder)


def test_whitebox_needs_a_teacher_in_this_process(tiny_student, run_folder):
    with pytest.raises(ConfigError, match="needs the teacher's weights in this process"):
        make_config(tiny_student, method="whitebox", teacher={"kind": "fake", "model": "fake"})


def test_offline_top_k_without_signals_says_how_to_get_them(tiny_student, run_folder):
    with pytest.raises(DataError, match="signals_top_k"):
        run.run(make_config(tiny_student, method="offline_topk"), run_folder)


def test_a_stored_temperature_other_than_the_trained_one_is_refused(tiny_student, taught_teacher, run_folder):
    write_signals(run_folder, taught_teacher, k=4)
    with pytest.raises(DataError, match="stored at temperature 1"):
        run.run(make_config(tiny_student, method="offline_topk", temperature=2.0), run_folder)


def test_nothing_left_to_learn_from_is_one_line(tiny_student, run_folder):
    with pytest.raises(DataError, match="no row is left"):
        run.run(make_config(tiny_student, max_length=20), run_folder)
    write_rows(run_folder.train_data, [row | {"answer": ""} for row in records(3)])
    with pytest.raises(DataError, match="no row is left"):
        run.run(make_config(tiny_student), run_folder)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")])
def test_what_never_fits_ends_with_15_and_says_what_to_make_smaller(tiny_student, run_folder, monkeypatch, error):
    def forward(self, *_):
        if self.training:
            raise error
        return real(self, *_)

    real = Objective.forward
    monkeypatch.setattr(Objective, "forward", forward)
    with pytest.raises(OutOfMemory, match=r"train\.gradient_checkpointing=true") as caught:
        run.run(make_config(tiny_student), run_folder)
    assert caught.value.exit_code == 15
    assert not run_folder.student.exists()
