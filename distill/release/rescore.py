"""Does what a client would load score as the evaluated student did? The same questions, asked again of each export."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from distill.errors import GateFailed
from distill.progress import progress
from distill.release.check import rendered

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.artifacts import RunFolder
    from distill.config import RunConfig
    from distill.release.llamacpp import Engine

CONTEXT = 4096
"""Tokens of prompt and answer an engine is opened for; also what the serving files ask for."""


@dataclass(frozen=True)
class Question:
    """One item: the evaluation's own question, and the student's score on it."""

    exam: Any
    """`evals.asking.Exam`."""
    score: float
    cluster: str
    said: str | None = None
    """The student's own answer, where the evaluation kept it."""


def questions(config: RunConfig, folder: RunFolder, arm: str) -> list[Question]:
    """`release.rescore` items of the evaluation, drawn by their hash; [] when the arm answered none."""
    samples = folder.eval / f"{arm}.parquet"
    if not samples.is_file() or not config.release.rescore:
        return []
    import pyarrow.parquet as pq

    kept = {"task", "id", "cluster", "correct", "text"} & set(pq.read_schema(samples).names)
    rows = pq.read_table(samples, columns=sorted(kept)).to_pylist()
    scored = {(row["task"], row["id"]): row for row in rows}
    # By name, as in the command table: `evals` stands beside this package and is imported by none of it.
    asking = importlib.import_module("evals.asking")
    asked = asking.exams(
        config.eval.tasks, config.student_prompts(), config.generate.max_new_tokens, config.resolve("."), config.seed
    )
    known = [exam for exam in asked if (exam.config.title, exam.item.id) in scored]
    known.sort(key=lambda exam: hashlib.sha256(f"{exam.config.title}\x1f{exam.item.id}".encode()).digest())
    found = []
    for exam in known[: config.release.rescore]:
        row = scored[exam.config.title, exam.item.id]
        found.append(Question(exam, row["correct"], f"{row['task']}\x1f{row['cluster']}", row.get("text")))
    return found


def rescore(kind: str, weights: Path, asked: Sequence[Question], config: RunConfig) -> dict[str, Any]:
    """Ask the model in ``weights`` and judge it. Raises GateFailed."""
    from distill import models
    from distill.providers import transformers as engine

    settings = engine.Config(model=f"path:{weights}", dtype=config.student.dtype, batch_size=config.eval.batch_size)
    at = models.Resolved(path=weights, name=kind, source="", revision="", sha256="", licence=None)
    provider = engine.TransformersProvider(settings, at)
    texts: list[str] = []
    try:
        with progress(f"score {kind}", len(asked), "items") as bar:
            for start in range(0, len(asked), provider.batch_size):
                part = asked[start : start + provider.batch_size]
                answers = asyncio.run(provider.ask([replace(q.exam.request, choices=()) for q in part]))
                texts += [_text(provider.parse(a.raw)) for a in answers]
                bar.advance(len(part))
    finally:
        provider.close()
    return judge(kind, texts, asked, config.eval.margin)


def rescore_engine(
    kind: str, opened: Engine, tokenizer: Any, asked: Sequence[Question], config: RunConfig
) -> dict[str, Any]:
    """Ask llama.cpp itself, greedily, and judge what it answers. Raises GateFailed."""
    from distill.models import end_ids

    ends = end_ids(tokenizer)
    texts: list[str] = []
    try:
        with progress(f"score {kind}", len(asked), "items") as bar:
            for question in asked:
                request = question.exam.request
                ids = opened.read(rendered(tokenizer, request.messages))
                texts.append(opened.answer(ids, ends, request.sampling.max_new_tokens))
                bar.advance()
    finally:
        opened.close()
    return judge(kind, texts, asked, config.eval.margin)


def judge(kind: str, texts: Sequence[str], asked: Sequence[Question], margin: float) -> dict[str, Any]:
    """Compare with the student's own answers, item by item. Raises GateFailed when more than ``margin`` is lost.

    One item alone never fails a release: with few items a single rounding would pass the margin.
    """
    scores = [_score(question, text) for question, text in zip(asked, texts, strict=True)]
    before = [q.score for q in asked]
    lost = sum(new < 0.5 <= old for new, old in zip(scores, before, strict=True))
    gained = sum(old < 0.5 <= new for new, old in zip(scores, before, strict=True))
    known = [(q.said, text) for q, text in zip(asked, texts, strict=True) if q.said is not None]
    result = {
        "items": len(asked),
        "student": round(sum(before) / len(before), 4),
        "export": round(sum(scores) / len(scores), 4),
        "lost": lost,
        "gained": gained,
        "same_text": sum(said == text for said, text in known) if known else None,
    }
    if sum(before) - sum(scores) > margin * len(asked) and lost - gained > 1:
        raise GateFailed(
            f"it scores {result['export']} where the student scored {result['student']}, on {len(asked)} items "
            f"(margin {margin:g})",
            where=f"target {kind}",
            safe="the trained student",
        )
    return result


def _text(completion: Any) -> str:
    """As the evaluation reads: a truncated answer as far as it goes, any other broken one is no answer."""
    return str(completion.text) if completion.reject in ("", "truncated") else ""


def _score(question: Question, text: str) -> float:
    exam = question.exam
    return float(exam.module.score(exam.item, text, exam.config))
