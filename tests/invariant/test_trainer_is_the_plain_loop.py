"""The trainer, with its chunks, shared prefixes, length groups and accumulation, is the plain loop in its numbers."""

from __future__ import annotations

import pytest
import torch

from distill.artifacts import RunFolder
from distill.models import load_causal_lm
from distill.train import run
from distill.train.batches import encode_rows, plan_steps
from distill.train.schedule import lr_at
from distill.train.student import load_base, make_student
from tests.unit.train.conftest import make_config, metrics, records, write_rows


def plain_loop(config, student_path, teacher_path) -> list[float]:
    """Whole logits, one row at a time, the formula written out."""
    train = config.train
    student = make_student(*load_base(student_path, config.student), config.student.adapter, config.seed)
    teacher, _ = load_causal_lm(teacher_path)
    rows = encode_rows(records(24), student.tokenizer, 256).rows
    steps = plan_steps([len(row) for row in rows], train, config.seed)
    parameters = [p for _, p in student.trainable]
    optimizer = torch.optim.AdamW(parameters, lr=train.lr, weight_decay=train.weight_decay)
    losses = []
    for step, micros in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, len(steps), peak=train.lr, warmup=train.warmup, schedule=train.schedule)
        loss = 0
        some = [rows[i] for micro in micros for i in micro]
        for row in some:
            ids, labels = torch.tensor([[*row.prompt, *row.completion]]), torch.tensor(row.completion)
            span = slice(len(row.prompt) - 1, -1)
            logits = student.model(input_ids=ids).logits[0, span]
            loss = loss + (1 - train.kd_weight) * torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
            with torch.no_grad():
                theirs = torch.log_softmax(teacher(input_ids=ids).logits[0, span] / train.temperature, -1)
            ours = torch.log_softmax(logits / train.temperature, -1)
            kd = (theirs.exp() * (theirs - ours)).sum()
            loss = loss + train.kd_weight * train.temperature**2 * kd
        loss = loss / sum(len(row.completion) for row in some)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, train.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("adapter", [{"r": 4, "alpha": 8}, {"kind": "none"}], ids=["lora", "full"])
def test_the_loss_curve_is_that_of_the_plain_loop(tiny_student, tiny_teacher, tmp_path, adapter):
    config = make_config(
        tiny_student,
        method="whitebox",
        teacher={"kind": "transformers", "model": f"path:{tiny_teacher}"},
        adapter=adapter,
        lr=2e-3,
        kd_weight=0.7,
        temperature=1.5,
        chunk_tokens=7,
    )
    folder = RunFolder(tmp_path / "run")
    write_rows(folder.train_data, records(24))
    run.run(config, folder)
    ours = [line["loss"] for line in metrics(folder) if "loss" in line]
    assert ours == pytest.approx(plain_loop(config, tiny_student, tiny_teacher), rel=2e-4)
    assert len(ours) == 8
    assert ours[-1] < ours[0]
