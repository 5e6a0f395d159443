"""The proof before there is anything to learn from: the run's first prompts with an answer that stands in.

`distill plan` runs it where the weights are on this disk already. Nothing is asked, sent or written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.errors import DataError
from distill.train import kernels, preflight, setup
from distill.train.batches import Rows, encode_rows
from distill.train.signal import TextOnly
from distill.train.student import head_of, load_base, make_student

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.artifacts import RunFolder
    from distill.config import RunConfig
    from distill.records import Message

STAND_IN = "This sentence stands in for an answer."


def prove(config: RunConfig, asked: Sequence[Sequence[Message]], student: Path, folder: RunFolder) -> list[str]:
    """What was shown, one line each. Raises what the run itself would raise before its first step.

    ``student``: folder of its weights. A live teacher in this process is loaded too: its weights must be here.
    """
    answer = config.prompts.choices[0] if config.prompts.choices else STAND_IN
    records = [_record(number, messages, answer) for number, messages in enumerate(asked[: preflight.TEXTS])]
    kernels.check(config)
    setup.check_memory(config, student)
    model, tokenizer = load_base(student, config.student)
    if config.train.liger:
        kernels.fuse(model)
    rows = encode_rows(records, tokenizer, config.student.max_length)
    if not rows.rows:
        raise DataError(
            f"no prompt fits into student.max_length {config.student.max_length}", next="raise student.max_length"
        )
    preflight.check_rows(tokenizer, rows.rows, head_of(model).size)
    loaded = make_student(model, tokenizer, config.student.adapter, config.seed)
    data, live = setup.Data(rows, Rows(()), records, []), _is_here(config)
    recipe = setup.recipe_of(config)
    source, vocab = setup.open_source(config, folder, loaded, data, recipe) if live else (TextOnly(), 0)
    preflight.check_texts(tokenizer, records, rows.rows, False)
    preflight.prove(loaded, rows.rows, source, vocab, setup.layout_of(config, loaded))
    told = [
        f"{len(rows.rows)} prompts: their tokens say their text, and an answer ends where the student stops",
        "the student's loss here is the one its own library computes",
    ]
    return [*told, "the teacher reads the same text, and arrives at the student as itself"] if live else told


def _is_here(config: RunConfig) -> bool:
    from distill.config import LIVE_METHODS

    return config.train.method in LIVE_METHODS and config.teacher.kind == "transformers"


def _record(number: int, messages: Sequence[Message], answer: str) -> dict[str, Any]:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return {"id": f"prompt {number + 1}", "request_key": str(number), "messages": turns, "answer": answer}
