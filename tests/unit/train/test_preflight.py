"""Planted faults, each of which trains to a wrong student in silence elsewhere, are refused before the first step."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch

from distill.errors import DataError
from distill.models import load_causal_lm
from distill.signals import Signal
from distill.train import batches, preflight, run, signal
from distill.train.batches import Row, collate, encode_rows
from distill.train.objective import Head
from distill.train.student import Loaded, attach
from tests.tiny import tiny_tokenizer
from tests.unit.train.conftest import make_config, records
from tests.unit.train.test_run import teacher_of, write_signals

SHARED, PLAIN = (functools.partial(collate, pad=0, share=share) for share in (True, False))

PACKED = functools.partial(collate, pad=0, pack=True)


@pytest.fixture
def student(tiny_student) -> Loaded:
    model, tokenizer = load_causal_lm(tiny_student)
    return Loaded(attach(model, make_config(tiny_student).student.adapter), tokenizer)


def rows(count: int = 6) -> tuple[Row, ...]:
    return encode_rows(records(count), tiny_tokenizer(), 256).rows


def test_good_rows_pass(student):
    preflight.prove(student, rows(), signal.TextOnly(), 0, SHARED)


def test_shifted_labels_are_caught(student, monkeypatch):
    real = collate

    def shifted(*args, **kwargs):
        batch = real(*args, **kwargs)
        return dataclasses.replace(batch, positions_N=batch.positions_N - 1)

    monkeypatch.setattr(preflight, "collate", shifted)
    with pytest.raises(DataError, match="positions are shifted"):
        preflight.prove(student, rows(), signal.TextOnly(), 0, SHARED)


def test_a_head_that_does_more_than_a_product_is_caught(student, monkeypatch):
    inner = preflight.causal_lm(student.model)
    real = type(inner).forward

    def soft_capped(self, *args, labels=None, **kwargs):
        out = real(self, *args, **kwargs)
        logits = torch.tanh(out.logits / 0.1) * 0.1
        out.loss = torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:], ignore_index=-100)
        return out

    monkeypatch.setattr(type(inner), "forward", soft_capped)
    with pytest.raises(DataError, match="soft cap"):
        preflight.prove(student, rows(), signal.TextOnly(), 0, PLAIN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: dataclasses.replace(row, completion=row.completion[-1:]), "is empty"),
        (lambda row: dataclasses.replace(row, completion=row.completion[:-1]), "end-of-turn"),
        (lambda row: dataclasses.replace(row, completion=(*row.completion[:-1], 0)), "end-of-turn"),
        (lambda row: dataclasses.replace(row, prompt=(*row.prompt, 9999)), "outside the vocabulary"),
    ],
    ids=["empty answer", "missing end", "another end", "id out of range"],
)
def test_a_bad_row_is_named(student, change, message):
    bad = [*rows(5), change(rows()[5])]
    with pytest.raises(DataError, match=message) as caught:
        preflight.prove(student, bad, signal.TextOnly(), 0, SHARED)
    assert "r5" in str(caught.value)


def test_a_student_with_nothing_to_train_is_refused(student):
    student.model.requires_grad_(False)
    with pytest.raises(DataError, match="no trainable parameter"):
        preflight.prove(student, rows(), signal.TextOnly(), 0, SHARED)


def test_tokens_that_do_not_say_the_text_are_caught_with_the_first_difference():
    tokenizer, good = tiny_tokenizer(), rows(1)
    preflight.check_texts(tokenizer, records(1), good, False)
    other = records(1)
    other[0]["answer"] = "alpXa"
    with pytest.raises(DataError, match=r"from character 3: 'Xa' against 'ha'"):
        preflight.check_texts(tokenizer, other, good, False)


def test_another_chat_template_is_caught():
    tokenizer, good = tiny_tokenizer(), rows(1)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>assistant\n", "<|im_start|>assistant:\n")
    with pytest.raises(DataError, match="the tokens do not say the text"):
        preflight.check_texts(tokenizer, records(1), good, False)


def test_a_teacher_with_another_tokenizer_is_refused_even_with_ids_in_range(tiny_student, tmp_path, run_folder):
    model, tokenizer = load_causal_lm(tiny_student)
    other = tiny_tokenizer()
    vocab = other.get_vocab()
    import json

    state = json.loads(other.backend_tokenizer.to_str())
    names = sorted(vocab, key=vocab.get)
    swapped = {**vocab, names[10]: vocab[names[11]], names[11]: vocab[names[10]]}
    state["model"]["vocab"] = swapped
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(state))
    config = make_config(tiny_student, method="whitebox", teacher=teacher_of(tmp_path / "other"))
    with pytest.raises(
        DataError, match=r"different tokenizers.*\(id 10 is '.*' in the student's and '.*' in the"
    ) as caught:
        run.run(config, run_folder)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("lay_out", [SHARED, PLAIN, PACKED], ids=["shared prefix", "padded", "packed"])
def test_a_live_teacher_is_itself_on_its_way_to_the_student(student, tiny_teacher, lay_out):
    model, _ = load_causal_lm(tiny_teacher)
    with torch.no_grad():
        preflight.check_live(signal.Live(model), rows(), lay_out)


@pytest.mark.parametrize("fault", ["shifted", "another head"])
def test_a_teacher_that_arrives_as_another_is_caught(tiny_teacher, monkeypatch, fault):
    model, _ = load_causal_lm(tiny_teacher)
    source = signal.Live(model)
    real = source.teacher

    def wrong(batch):
        teacher = real(batch)
        if fault == "shifted":
            return dataclasses.replace(teacher, hidden_NE=teacher.hidden_NE.roll(1, 0))
        return dataclasses.replace(teacher, head=Head(teacher.head.weight_VD.roll(1, 0)))

    monkeypatch.setattr(source, "teacher", wrong)
    with torch.no_grad(), pytest.raises(DataError, match=r"differs from itself.*'r0'"):
        preflight.check_live(source, rows(), PLAIN)


def test_a_base_model_under_an_instruct_template_never_stops_and_is_refused(tiny_student, tmp_path, run_folder):
    model, tokenizer = load_causal_lm(tiny_student)
    tokenizer.eos_token = "<|endoftext|>"
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "base")
    with pytest.raises(
        DataError, match=r"ends an answer with '<\|im_end\|>', and the model stops at '<\|endoftext\|>'"
    ):
        run.run(make_config(tmp_path / "base"), run_folder)
    assert not run_folder.checkpoints.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("assistant\n", "assistant:\n"),
            r"row 'r0': the chat templates .* from character \d+: '\\n' against ':\\n'",
        ),
        (("<|im_end|>", "<|endoftext|>"), r"student ends an answer with '<\|im_end\|>' and the teacher with"),
    ],
    ids=["another template", "base and instruct"],
)
def test_a_teacher_that_would_read_another_chat_is_refused(
    tiny_student, tiny_teacher, tmp_path, run_folder, change, message
):
    model, tokenizer = load_causal_lm(tiny_teacher)
    tokenizer.chat_template = tokenizer.chat_template.replace(*change)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "other")
    config = make_config(tiny_student, method="whitebox", teacher=teacher_of(tmp_path / "other"))
    with pytest.raises(DataError, match=message):
        run.run(config, run_folder)


def test_a_completion_that_was_cut_is_caught_with_the_first_difference():
    cut = [dataclasses.replace(row, completion=(*row.completion[:2], row.completion[-1])) for row in rows(1)]
    with pytest.raises(DataError, match=r"from character 2: 'pha' against ''"):
        preflight.check_texts(tiny_tokenizer(), records(1), cut, False)


def test_stored_signals_that_are_shifted_are_caught(tiny_student, taught_teacher, run_folder):
    from distill.signals import SignalReader

    write_signals(run_folder, taught_teacher, k=16)
    tokenizer = tiny_tokenizer()
    source = signal.Stored(SignalReader(run_folder.signals), tokenizer)
    known = rows(24)
    preflight.check_stored(source, known, len(tokenizer), 0)
    real = source._signal

    def shifted(row: Row) -> Signal:
        stored = real(row)
        return Signal(stored.token_ids_T, np.roll(stored.top_ids_TK, 1, 0), np.roll(stored.top_logprobs_TK, 1, 0))

    source._signal = shifted
    with pytest.raises(DataError, match="they are shifted"):
        preflight.check_stored(source, known, len(tokenizer), 0)


def test_a_stored_signal_of_another_answer_is_caught(tiny_student, taught_teacher, run_folder):
    from distill.signals import SignalReader

    write_signals(run_folder, taught_teacher, k=4)
    source = signal.Stored(SignalReader(run_folder.signals), tiny_tokenizer())
    row = rows()[0]
    other = dataclasses.replace(row, completion=(row.completion[0], 77, *row.completion[2:]))
    with pytest.raises(DataError, match=r"'r0' differ from token 1 on"):
        source.teacher(collate([other], pad=0))


def test_a_signal_without_the_end_of_turn_says_the_end_with_certainty():
    row = rows()[0]
    count = len(row.completion) - 1
    ids = np.tile(np.arange(4, dtype=np.int32) + 10, (count, 1))
    stored = Signal(np.array(row.completion[:-1], np.int32), ids, np.full((count, 4), -2.0, np.float32))
    ids_NK, logprobs_NK = signal.stored_rows(stored, row)
    assert ids_NK.shape == (count + 1, 4)
    assert int(ids_NK[-1, 0]) == row.completion[-1]
    assert logprobs_NK[-1].tolist() == [0.0, *[-float("inf")] * 3]
    assert len(set(ids_NK[-1].tolist())) == 4


def test_signals_named_by_text_are_given_the_students_ids():
    tokenizer = tiny_tokenizer()
    texts = ("a", "b", "no such token", tokenizer.decode([2]))
    named = signal.ids_of_texts(texts, tokenizer)
    assert tokenizer.decode([int(named[0])]) == "a"
    assert int(named[2]) == -1
    assert int(named[3]) == 2
    stored = Signal(np.array([0, 3], np.int32), np.array([[0, 2], [3, 1]], np.int32), np.log([[0.6, 0.3], [0.9, 0.05]]))
    ours = signal.renamed(stored, named)
    assert ours.token_ids_T.tolist() == [int(named[0]), 2]
    assert np.isneginf(ours.top_logprobs_TK[0, 1])
    assert ours.top_ids_TK[1].tolist() == [2, int(named[1])]


def test_a_student_without_a_chat_template_is_refused(tiny_student, tmp_path, run_folder):
    import shutil

    copy = tmp_path / "bare"
    shutil.copytree(tiny_student, copy)
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(DataError, match="no chat template"):
        run.run(make_config(copy), run_folder)


def test_batches_has_no_second_collate():
    assert preflight.collate is batches.collate
