"""Rows become tensors; which rows make up a step depends on the seed and the epoch, and on nothing else."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from distill.config import Train
from distill.errors import DataError
from distill.losses import cross_entropy
from distill.models import end_ids, load_causal_lm
from distill.train.batches import Row, collate, encode_rows, epoch_steps, fingerprint, halve, plan_steps, read_rows
from distill.train.objective import Recipe
from distill.train.student import Objective, attach, hidden_states, shares_prefix
from tests.tiny import tiny_tokenizer
from tests.unit.train.conftest import make_config, records


def encoded(count: int = 10, max_length: int = 256, **extra):
    return encode_rows(records(count), tiny_tokenizer(), max_length, **extra)


def test_a_row_is_the_prompt_as_asked_then_the_answer_then_the_end_of_turn():
    tokenizer = tiny_tokenizer()
    row = encoded().rows[2]
    assert row.completion[-1] == end_ids(tokenizer)[0]
    assert tokenizer.decode(row.completion[:-1]) == records(3)[2]["answer"]
    assert tokenizer.decode(row.prompt).endswith("<|im_start|>assistant\n")


def test_reasoning_is_learnt_only_when_wanted():
    tokenizer = tiny_tokenizer()
    assert "because" not in tokenizer.decode(encoded().rows[0].completion)
    assert "<think>\nbecause\n</think>" in tokenizer.decode(encoded(reasoning=True).rows[0].completion)


def test_a_row_that_is_too_long_is_dropped_and_counted_never_cut():
    lengths = encoded().lengths
    limit = sorted(lengths)[5]
    cut = encoded(max_length=limit)
    assert max(cut.lengths) <= limit
    assert cut.dropped == {"too_long": sum(n > limit for n in lengths), "no_answer": 0}


def test_a_row_without_an_answer_is_dropped_and_counted():
    rows = records(3)
    rows[1]["answer"] = "  "
    assert encode_rows(rows, tiny_tokenizer(), 256).dropped["no_answer"] == 1


def test_every_epoch_holds_every_row_once_and_epochs_differ():
    lengths = encoded(23).lengths
    first, second = (epoch_steps(lengths, 6, 2, seed=3, epoch=e) for e in (0, 1))
    for steps in (first, second):
        assert sorted(i for step in steps for micro in step for i in micro) == list(range(23))
        assert all(len(micro) <= 2 for step in steps for micro in step)
    assert first != second
    assert first == epoch_steps(lengths, 6, 2, seed=3, epoch=0)
    assert first != epoch_steps(lengths, 6, 2, seed=4, epoch=0)


def test_micro_batches_hold_rows_of_similar_length():
    lengths = [(7 * n) % 97 + 10 for n in range(200)]

    def padding(steps) -> int:
        return sum(max(lengths[i] for i in m) - lengths[j] for step in steps for m in step for j in m)

    grouped = epoch_steps(lengths, 16, 4, seed=0, epoch=0)
    order = [i for step in grouped for m in step for i in m]
    order.sort(key=lambda i: (i * 7919) % 200)
    scattered = [[order[at : at + 4]] for at in range(0, 200, 4)]
    assert padding(grouped) < 0.25 * padding(scattered)


def test_max_steps_cuts_the_plan():
    train = Train(batch_size=4, micro_batch_size=2, epochs=3, max_steps=5)
    assert len(plan_steps(encoded(12).lengths, train, 0)) == 5
    assert len(plan_steps(encoded(12).lengths, train.model_copy(update={"max_steps": None}), 0)) == 9


@pytest.mark.parametrize("share", [True, False])
def test_positions_point_at_what_predicts_each_label(share):
    rows = encoded(5).rows
    batch = collate(rows, pad=0, share=share)
    assert bool(batch.prefix_P.numel()) is share
    full = [[*batch.prefix_P.tolist(), *line] for line in batch.ids_BT.tolist()]
    width, shared = batch.ids_BT.shape[1], batch.prefix_P.numel()
    at = 0
    for number, row in enumerate(rows):
        for offset, label in enumerate(row.completion):
            place = int(batch.positions_N[at]) - number * width + shared
            assert full[number][: place + 1] == [*row.prompt, *row.completion[:offset]]
            assert int(batch.labels_N[at]) == label
            at += 1
    assert at == len(batch.labels_N)


def test_sharing_the_prefix_gives_the_same_hidden_states_and_gradients(tiny_student):
    model, _ = load_causal_lm(tiny_student)
    torch.manual_seed(0)
    adapter = make_config(tiny_student).student.adapter
    model = attach(model, adapter)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    assert shares_prefix(model)
    rows = encoded(6).rows
    found = []
    for share in (True, False):
        hidden = hidden_states(model, collate(rows, pad=0, share=share))
        model.zero_grad()
        (hidden * torch.linspace(-1, 1, hidden.shape[1])).sum().backward()
        found.append((hidden.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    (one, first), (two, second) = found
    assert torch.allclose(one, two, atol=1e-5)
    assert first.keys() == second.keys()
    assert all((first[n] - second[n]).norm() <= 1e-4 * second[n].norm() + 1e-6 for n in first)


def test_identical_prompts_still_leave_a_position_to_predict_from():
    row = encoded(1).rows[0]
    batch = collate([row, Row("b", "k", row.prompt, row.completion)], pad=0)
    assert batch.prefix_P.numel() == len(row.prompt) - 1
    assert batch.positions_N.min() >= 0


def test_the_fingerprint_changes_with_any_token():
    rows = list(encoded(3).rows)
    before = fingerprint(rows)
    rows[1] = Row(rows[1].id, rows[1].key, rows[1].prompt, (*rows[1].completion[:-1], 5))
    assert fingerprint(rows) != before


def test_a_missing_or_damaged_data_file_is_one_line(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_rows(tmp_path / "train.parquet")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path / "train.parquet")


@pytest.mark.parametrize("share", [True, False])
def test_packed_rows_give_the_loss_and_the_gradients_of_padded_ones(tiny_student, share):
    model, _ = load_causal_lm(tiny_student)
    torch.manual_seed(0)
    model = attach(model, make_config(tiny_student).student.adapter).double()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    objective = Objective(model, Recipe(cross_entropy, cross_entropy.Config()))
    rows, found = encoded(6).rows, []
    for pack in (True, False):
        batch = collate(rows, pad=0, share=share, pack=pack)
        assert (batch.ids_BT.shape[0] == 1) is pack
        model.zero_grad()
        loss, _ = objective(batch, None)
        loss.backward()
        found.append((float(loss), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    (one, first), (two, second) = found
    assert one == pytest.approx(two, rel=1e-6)
    assert all((first[n] - second[n]).norm() <= 1e-6 * second[n].norm() + 1e-9 for n in first)


def test_a_packed_row_sees_no_other_row(tiny_student):
    """The negative control: without the places, rows look into one another and the loss is another."""
    model, _ = load_causal_lm(tiny_student)
    objective, rows = Objective(model, Recipe(cross_entropy, cross_entropy.Config())), encoded(6).rows
    batch = collate(rows, pad=0, share=False, pack=True)
    with torch.no_grad():
        apart, _ = objective(batch, None)
        mixed, _ = objective(dataclasses.replace(batch, places_BT=torch.arange(batch.ids_BT.shape[1])[None]), None)
    assert abs(float(apart) - float(mixed)) > 1e-2


def test_micro_batches_hold_to_a_number_of_tokens_and_keep_every_row():
    lengths = [(7 * n) % 97 + 10 for n in range(200)]
    free, held = (epoch_steps(lengths, 16, 16, seed=0, epoch=0, most=most) for most in (0, 150))
    assert [[i for m in step for i in m] for step in free] == [[i for m in step for i in m] for step in held]
    assert all(max(lengths[i] for i in m) * len(m) <= 150 or len(m) == 1 for step in held for m in step)
    assert sum(map(len, held)) > sum(map(len, free))


@pytest.mark.parametrize("times", range(4))
def test_halving_keeps_the_rows_and_their_order(times):
    micros = [[5, 3, 8, 1, 7], [2]]
    cut = halve(micros, times)
    assert [row for micro in cut for row in micro] == [5, 3, 8, 1, 7, 2]
    assert max(map(len, cut)) == {0: 5, 1: 3, 2: 2, 3: 1}[times]
