"""Does what a client would load score as the evaluated student did? The same questions, asked again of each export."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from distill.errors import GateFailed
from distill.progress import progress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.artifacts import RunFolder
    from distill.config import RunConfig


@dataclass(frozen=True)
class Question:
    """One item: the evaluation's own question, and the student's score on it."""

    exam: Any
    """`evals.asking.Exam`."""
    score: float
    cluster: str


def questions(config: RunConfig, folder: RunFolder, arm: str) -> list[Question]:
    """`release.rescore` items of the evaluation, drawn by their hash; [] when the arm answered none."""
    samples = folder.eval / f"{arm}.parquet"
    if not samples.is_file() or not config.release.rescore:
        return []
    import pyarrow.parquet as pq

    rows = pq.read_table(samples, columns=["task", "id", "cluster", "correct"]).to_pylist()
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
        found.append(Question(exam, row["correct"], f"{row['task']}\x1f{row['cluster']}"))
    return found


def rescore(kind: str, weights: Path, asked: Sequence[Question], config: RunConfig) -> dict[str, Any]:
    """Ask the model in ``weights`` and compare item by item. Raises GateFailed when it loses more than `eval.margin`.

    One item alone never fails a release: with few items a single rounding would pass the margin.
    """
    from distill import models
    from distill.providers import transformers as engine

    settings = engine.Config(model=f"path:{weights}", dtype=config.student.dtype, batch_size=config.eval.batch_size)
    at = models.Resolved(path=weights, name=kind, source="", revision="", sha256="", licence=None)
    provider = engine.TransformersProvider(settings, at)
    scores: list[float] = []
    try:
        with progress(f"score {kind}", len(asked), "items") as bar:
            for start in range(0, len(asked), provider.batch_size):
                part = asked[start : start + provider.batch_size]
                answers = asyncio.run(provider.ask([replace(q.exam.request, choices=()) for q in part]))
                scores += [_score(q, provider.parse(a.raw)) for q, a in zip(part, answers, strict=True)]
                bar.advance(len(part))
    finally:
        provider.close()
    before = [q.score for q in asked]
    lost = sum(new < 0.5 <= old for new, old in zip(scores, before, strict=True))
    gained = sum(old < 0.5 <= new for new, old in zip(scores, before, strict=True))
    result = {
        "items": len(asked),
        "student": round(sum(before) / len(before), 4),
        "export": round(sum(scores) / len(scores), 4),
        "lost": lost,
        "gained": gained,
    }
    if sum(before) - sum(scores) > config.eval.margin * len(asked) and lost - gained > 1:
        raise GateFailed(
            f"it scores {result['export']} where the student scored {result['student']}, on {len(asked)} items "
            f"(margin {config.eval.margin:g})",
            where=f"target {kind}",
            safe="the trained student",
        )
    return result


def _score(question: Question, completion: Any) -> float:
    """As the evaluation scores: a truncated answer is read as far as it goes, any other broken one is wrong."""
    text = completion.text if completion.reject in ("", "truncated") else ""
    exam = question.exam
    return float(exam.module.score(exam.item, text, exam.config))
