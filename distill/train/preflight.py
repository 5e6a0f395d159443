"""Proof before the first step that student and teacher read the same text, or a refusal that says why not.

Every check goes through the code that training uses and compares it with an independent way to the same number.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

import torch

from distill.errors import DataError
from distill.models import end_ids, tokenizer_fingerprint
from distill.train.align import CrossTokenizer
from distill.train.batches import Batch, Row, collate, completion_text
from distill.train.objective import Recipe, StoredTeacher, chunked_loss
from distill.train.remote import Remote
from distill.train.rollout import OnPolicy
from distill.train.signal import Live, Source, Stored
from distill.train.student import Loaded, causal_lm, head_of, hidden_states

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TEXTS = 64  # rows whose text is compared
SAMPLE = 4  # rows that the model is run on
TOLERANCE = 2e-3  # relative, for float32; bfloat16 gets 50 times more
SELF_KL = 1e-4  # nats a token a teacher may differ from itself by rounding
CANARY_TOKENS, CANARY_NATS = 32, 2.0  # stored signals are refused when a shift by one fits that much better
UNNAMED = -12.0  # log-probability of a token outside the stored k


def prove(
    student: Loaded, rows: Sequence[Row], source: Source, vocab: int, lay_out: Callable[[Sequence[Row]], Batch]
) -> None:
    """Run every check that applies. Raises DataError."""
    size = vocab or head_of(student.model).size
    if not student.trainable:
        raise DataError("the student has no trainable parameter", next="student.adapter.targets: [all-linear]")
    check_rows(student.tokenizer, rows, size)
    was_training = student.model.training
    student.model.eval()
    with torch.no_grad():
        probe = sorted(rows, key=len)[:SAMPLE]
        check_end(causal_lm(student.model), student.tokenizer, "student")
        check_shift(student.model, probe, student.pad, "student")
        check_layout(student, probe, lay_out)
        source = source.scorer if isinstance(source, OnPolicy) else source
        if isinstance(source, Live):
            check_live(source, probe, lay_out)
        if isinstance(source, Remote):
            source.check_server(student.tokenizer, probe)
            check_stored(source, probe, size, student.pad)
        if isinstance(source, CrossTokenizer):
            check_shift(source.model, [source.pair(row).teacher for row in probe], source.pad, "teacher")
        if isinstance(source, Stored):
            check_stored(source, rows, size, student.pad)
    student.model.train(was_training)


def check_rows(tokenizer: Any, rows: Sequence[Row], vocab: int) -> None:
    """Every completion is non-empty, ends its turn, has ids in range, and decodes to itself. Raises DataError."""
    end = end_ids(tokenizer)[0]
    for row in rows:
        if len(row.completion) < 2:
            raise DataError(f"the completion of row {row.id!r} is empty", next="distill generate")
        if row.completion[-1] != end:
            last, wanted = (tokenizer.decode([token]) for token in (row.completion[-1], end))
            raise DataError(
                f"the completion of row {row.id!r} ends with {last!r} and not with the end-of-turn token {wanted!r}",
                next="distill generate",
            )
        if max(*row.prompt, *row.completion) >= vocab:
            raise DataError(f"row {row.id!r} has a token id outside the vocabulary of {vocab}")


def check_texts(tokenizer: Any, records: Sequence[dict[str, Any]], rows: Sequence[Row], reasoning: bool) -> None:
    """The prompt's ids say the rendered chat, the completion's ids say the answer. Raises DataError."""
    known = {(row.id, row.key): row for row in rows}  # a prompt answered several times has several rows
    pairs = ((record, known.get((str(record["id"]), record["request_key"]))) for record in records)
    for record, row in [(record, row) for record, row in pairs if row is not None][:TEXTS]:
        chat = tokenizer.apply_chat_template(record["messages"], add_generation_prompt=True, tokenize=False)
        check_round_trip(tokenizer, chat, row.prompt, row.id)
        check_round_trip(tokenizer, completion_text(record, reasoning), row.completion[:-1], row.id)


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


def check_shift(model: Any, rows: Sequence[Row], pad: int, who: str) -> None:
    """Our cross entropy equals the one the model's own library computes with its own logits, mask and shift."""
    inner = causal_lm(model)
    for row in rows[:2]:
        ours = _nll(model, collate([row], pad=pad))
        ids = torch.tensor([[*row.prompt, *row.completion]], device=next(inner.parameters()).device)
        labels = ids.clone()
        labels[:, : len(row.prompt)] = -100
        theirs = float(inner(input_ids=ids, labels=labels).loss)
        if abs(ours - theirs) > _tolerance(model) * max(1.0, theirs):
            raise DataError(
                f"the {who}'s loss on row {row.id!r} is {ours:.5f} here and {theirs:.5f} by its own forward: its head "
                "does more than a matrix product (scaling, soft cap), or positions are shifted",
                next=f"choose another {who}",
            )


def check_layout(student: Loaded, rows: Sequence[Row], lay_out: Callable[[Sequence[Row]], Batch]) -> None:
    """A shared prefix and packed rows do not change the hidden states."""
    laid, plain = lay_out(rows), collate(rows, pad=student.pad, share=False)
    if not laid.prefix_P.numel() and laid.places_BT is None:
        return
    one, two = (hidden_states(student.model, _placed(student.model, b)).float() for b in (laid, plain))
    if float((one - two).norm() / two.norm()) > _tolerance(student.model):
        how = "train.share_prefix=false" if laid.places_BT is None else "train.packing=false"
        raise DataError("this student computes other values with rows that are packed or share a prefix", next=how)


def check_live(source: Live, rows: Sequence[Row], lay_out: Callable[[Sequence[Row]], Batch]) -> None:
    """KL(teacher || teacher) is 0: through the real transport, against the teacher's own forward of each row alone."""
    check_shift(source.model, rows, 0, "teacher")
    teacher = source.teacher(_placed(source.model, lay_out(rows)))
    at = 0
    for row in rows:
        ids = torch.tensor([[*row.prompt, *row.completion[:-1]]], device=teacher.hidden_NE.device)
        own_nV = (
            source.model(input_ids=ids).logits[0, len(row.prompt) - 1 :, : teacher.head.size].float().log_softmax(-1)
        )
        here = slice(at, at + len(row.completion))
        sent_nV = teacher.head.logits(teacher.hidden_NE[here]).log_softmax(-1)
        at = here.stop
        apart = float((own_nV.exp() * (own_nV - sent_nV)).sum(-1).abs().mean())
        if not apart <= SELF_KL * _tolerance(source.model) / TOLERANCE:
            raise DataError(
                f"the teacher differs from itself by {apart:.2g} nats a token on its way to the student, from row "
                f"{row.id!r} on: its positions are shifted, or another head is applied"
            )


def check_stored(source: Stored | Remote, rows: Sequence[Row], vocab: int, pad: int) -> None:
    """Stored signals speak of these very tokens, and fit them better where they are than one place off."""
    aligned = shifted = 0.0
    count = 0
    for row in rows:
        teacher = source.teacher(collate([row], pad=pad))
        if int(teacher.ids_NK.max()) >= vocab:
            raise DataError(f"the stored signal of row {row.id!r} names an id outside the vocabulary of {vocab}")
        labels = torch.tensor(row.completion)
        scores = [_stored_score(teacher, labels.roll(by))[1:-1].sum() for by in (0, 1, -1)]
        aligned, shifted = aligned + float(scores[0]), shifted + float(max(scores[1:]))
        count += max(0, len(labels) - 2)
    if count >= CANARY_TOKENS and shifted > aligned + count * CANARY_NATS:
        raise DataError(
            f"the stored signals give the answers {aligned / count:.2f} nats a token, and the answers moved by one "
            f"place {shifted / count:.2f}: they are shifted",
            next="rm -r the signals folder, then distill generate",
        )


def _stored_score(teacher: StoredTeacher, labels_N: torch.Tensor) -> torch.Tensor:
    """Log-probability [N] a stored teacher gives each label; a label it does not name gets a low one."""
    named_NK = teacher.ids_NK == labels_N[:, None]
    best_N = teacher.logprobs_NK.masked_fill(~named_NK, float("-inf")).amax(-1)
    return best_N.clamp(min=UNNAMED)


def check_end(model: Any, tokenizer: Any, who: str) -> None:
    """What the template writes after an answer is what the model stops at. Raises DataError.

    A base model under the template of its instruct version ends elsewhere: its student would never stop.
    """
    end = end_ids(tokenizer)[0]
    stops = {tokenizer.eos_token_id}
    for settings in (getattr(model, "generation_config", None), model.config):
        stops |= set(_ids(getattr(settings, "eos_token_id", None)))
    if end not in stops:
        names = ", ".join(repr(tokenizer.decode([stop])) for stop in sorted(stops - {None}))
        written = repr(tokenizer.decode([end]))
        raise DataError(
            f"the {who}'s chat template ends an answer with {written}, and the model stops at {names}",
            next=f"the instruct version of the {who}, or set eos_token in its tokenizer_config.json",
        )


def _ids(value: Any) -> list[int]:
    return value if isinstance(value, list) else [] if value is None else [value]


def shared_vocab(student: Loaded, teacher: Any, tokenizer: Any) -> int:
    """Columns that both heads share: families pad one vocabulary to several sizes. Raises DataError.

    Proof: both tokenizers give every text the same ids, and every id they can give is below the result.
    """
    sizes = head_of(student.model).size, head_of(teacher).size
    if tokenizer_fingerprint(student.tokenizer) != tokenizer_fingerprint(tokenizer):
        raise DataError(
            "teacher and student have different tokenizers: ids would mean different texts"
            f"{first_other_token(student.tokenizer, tokenizer)}",
            next="train.method: cross_tokenizer or sft, or a student of the teacher's family",
        )
    if len(student.tokenizer) > min(sizes):
        raise DataError(f"the tokenizer has {len(student.tokenizer)} tokens and a head only {min(sizes)} columns")
    return min(sizes)


def first_other_token(one: Any, two: Any) -> str:
    """The first id that stands for other texts in two vocabularies, in words; "" when the difference is elsewhere."""
    texts = [{number: token for token, number in tokenizer.get_vocab().items()} for tokenizer in (one, two)]
    for number in range(max(map(len, texts))):
        a, b = (text.get(number) for text in texts)
        if a != b:
            return f" (id {number} is {a!r} in the student's and {b!r} in the teacher's)"
    return ""


def check_pair(student: Any, teacher: Any, records: Sequence[dict[str, Any]]) -> None:
    """A live teacher reads the student's ids: both templates must say the same chat and the same end of it."""
    ends = [tokenizer.decode([end_ids(tokenizer)[0]]) for tokenizer in (student, teacher)]
    if ends[0] != ends[1]:
        raise DataError(
            f"the student ends an answer with {ends[0]!r} and the teacher with {ends[1]!r}: one is a base model",
            next="the instruct versions of both, or train.method: sft",
        )
    for record in records[:TEXTS]:
        one, two = (
            tokenizer.apply_chat_template(record["messages"], add_generation_prompt=True, tokenize=False)
            for tokenizer in (student, teacher)
        )
        if one != two:
            raise DataError(
                f"row {record['id']!r}: the chat templates of student and teacher differ, {first_difference(one, two)}",
                next="one chat_template.jinja for both, or train.method: sft",
            )


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
