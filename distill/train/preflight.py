"""Proof before the first step that student and teacher read the same text, or a refusal that says why not.

Every check goes through the code that training uses and compares it with an independent way to the same number.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

import torch

from distill.errors import DataError
from distill.models import end_ids, tokenizer_fingerprint
from distill.train.batches import Batch, Row, collate
from distill.train.objective import LiveTeacher, Recipe, chunked_loss
from distill.train.signal import Live, Source, Stored
from distill.train.student import Loaded, causal_lm, head_of, hidden_states

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLE = 4  # rows that the model is run on
TOLERANCE = 2e-3  # relative, for float32; bfloat16 gets 50 times more


def prove(student: Loaded, rows: Sequence[Row], source: Source, vocab: int, *, share: bool) -> None:
    """Run every check that applies. Raises DataError."""
    size = vocab or head_of(student.model).size
    if not student.trainable:
        raise DataError("the student has no trainable parameter", next="student.adapter.targets: [all-linear]")
    check_rows(student.tokenizer, rows, size)
    was_training = student.model.training
    student.model.eval()
    with torch.no_grad():
        probe = sorted(rows, key=len)[:SAMPLE]
        check_shift(student, probe)
        if share:
            check_shared_prefix(student, probe)
        if isinstance(source, Live | Stored):
            check_teacher(source, probe, student)
    student.model.train(was_training)


def check_rows(tokenizer: Any, rows: Sequence[Row], vocab: int) -> None:
    """Every completion is non-empty, ends its turn, has ids in range, and decodes to itself. Raises DataError."""
    end = end_ids(tokenizer)[0]
    for row in rows:
        if len(row.completion) < 2:
            raise DataError(f"the completion of row {row.id!r} is empty", next="distill generate")
        if row.completion[-1] != end:
            raise DataError(f"row {row.id!r} does not end with the end-of-turn token {end}")
        if max(*row.prompt, *row.completion) >= vocab:
            raise DataError(f"row {row.id!r} has a token id outside the vocabulary of {vocab}")


def first_difference(a: str, b: str, width: int = 24) -> str:
    """Where two texts first differ, with what stands there."""
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return f"from character {at}: {a[at : at + width]!r} against {b[at : at + width]!r}"


def check_round_trip(tokenizer: Any, text: str, ids: Sequence[int], row: str) -> None:
    """The ids say the text, byte for byte (after Unicode normalisation). Raises DataError naming the first span."""
    said = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    one, two = (unicodedata.normalize("NFC", t).strip() for t in (text, said))
    if one.encode("utf-8", "surrogatepass") != two.encode("utf-8", "surrogatepass"):
        raise DataError(f"row {row!r}: the tokens do not say the text, {first_difference(one, two)}")


def check_shift(student: Loaded, rows: Sequence[Row]) -> None:
    """Our cross entropy equals the one the model's own library computes from its own logits and its own shift."""
    model = causal_lm(student.model)
    for row in rows[:2]:
        ours = _nll(student.model, collate([row], pad=student.pad))
        ids = torch.tensor([[*row.prompt, *row.completion]], device=next(model.parameters()).device)
        labels = ids.clone()
        labels[:, : len(row.prompt)] = -100
        theirs = float(model(input_ids=ids, labels=labels).loss)
        if abs(ours - theirs) > _tolerance(model) * max(1.0, theirs):
            raise DataError(
                f"the loss of row {row.id!r} is {ours:.5f} here and {theirs:.5f} by the model's own forward: its head "
                "does more than a matrix product (scaling, soft cap), or positions are shifted",
                next="choose another student",
            )


def check_shared_prefix(student: Loaded, rows: Sequence[Row]) -> None:
    """Sharing the prefix computation does not change the hidden states."""
    shared, plain = (collate(rows, pad=student.pad, share=s) for s in (True, False))
    if not shared.prefix_P.numel():
        return
    one, two = (hidden_states(student.model, _placed(student.model, b)).float() for b in (shared, plain))
    if float((one - two).norm() / two.norm()) > _tolerance(student.model):
        raise DataError("this student computes other values with a shared prefix", next="train.share_prefix=false")


def check_teacher(source: Live | Stored, rows: Sequence[Row], student: Loaded) -> None:
    """KL(teacher || teacher) is 0 through the real transport, and the teacher fits its text best where it is."""
    from distill.losses import forward_kl

    recipe = Recipe(forward_kl, forward_kl.Config(), kd_weight=1.0)
    batch = _placed(student.model, collate(rows, pad=student.pad))
    if isinstance(source, Live):
        teacher = source.teacher(batch)
        _, parts = chunked_loss(teacher.hidden_NE, head_of(source.model), batch.labels_N, teacher, recipe)
        worst = float(parts.kd) / len(batch.labels_N)
        if abs(worst) > 1e-4:
            raise DataError(f"the teacher differs from itself by {worst:.2g} nats a token on its way to the student")
        canary(teacher, batch)
    else:
        for row in batch.rows:
            source.teacher(collate([row], pad=student.pad))


def canary(teacher: LiveTeacher, batch: Batch) -> None:
    """The teacher must like its own tokens better where they are than one place off. Raises DataError."""
    logprobs_NV = torch.log_softmax(teacher.head.logits(teacher.hidden_NE), -1)
    scores = [
        float(logprobs_NV.gather(-1, batch.labels_N.roll(shift)[:, None])[2:-2].mean())
        if len(batch.labels_N) > 8
        else 0.0
        for shift in (0, 1, -1)
    ]
    if scores[0] < max(scores[1:]) - 1e-3:
        raise DataError(
            f"the teacher gives its own text {scores[0]:.2f} nats a token and the text shifted by one "
            f"{max(scores[1:]):.2f}: "
            "positions are not aligned, or it is not the teacher that wrote the answers"
        )


def shared_vocab(student: Loaded, teacher: Any, tokenizer: Any) -> int:
    """Columns that both heads share: families pad one vocabulary to several sizes. Raises DataError.

    Proof: both tokenizers give every text the same ids, and every id they can give is below the result.
    """
    sizes = head_of(student.model).size, head_of(teacher).size
    if tokenizer_fingerprint(student.tokenizer) != tokenizer_fingerprint(tokenizer):
        raise DataError(
            "teacher and student have different tokenizers: ids would mean different texts",
            next="train.method: sft, or a student of the teacher's family",
        )
    if len(student.tokenizer) > min(sizes):
        raise DataError(f"the tokenizer has {len(student.tokenizer)} tokens and a head only {min(sizes)} columns")
    return min(sizes)


def _nll(model: Any, batch: Batch) -> float:
    from distill.losses import cross_entropy

    placed = _placed(model, batch)
    recipe = Recipe(cross_entropy, cross_entropy.Config())
    loss, _ = chunked_loss(hidden_states(model, placed), head_of(model), placed.labels_N, None, recipe)
    return float(loss) / len(placed.labels_N)


def _placed(model: Any, batch: Batch) -> Batch:
    return batch.to(next(causal_lm(model).parameters()).device)


def _tolerance(model: Any) -> float:
    return TOLERANCE * (1 if next(causal_lm(model).parameters()).dtype == torch.float32 else 50)
