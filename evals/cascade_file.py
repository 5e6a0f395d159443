"""eval/cascade.json: all that a router needs to serve the cascade as it was measured; the release hands it on.

The threshold is the one chosen on all items; `held_out` says what such a choice does to items it was not chosen on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.artifacts import write_json
from distill.progress import say
from evals.consistency import TEMPERATURE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from distill.artifacts import RunFolder
    from distill.config import RunConfig
    from distill.records import Message
    from evals.asking import Exam

SCHEMA = 1
LOGPROB = (
    "exp of the mean natural logarithm of the probabilities of the answer's tokens, all that the server reports and so "
    "the end of the turn where it does; at most 1; 0 for an answer without tokens"
)
VOTES = "share of the drawn answers that are equal to the one that most are equal to; the first such is given"


def write(
    report: Mapping[str, Any], config: RunConfig, questions: Sequence[Exam], students: Sequence[Exam], folder: RunFolder
) -> list[Path]:
    """Write the file, or remove an old one, when there is nothing to serve; the files written."""
    facts = exported(report, config, questions, students)
    if facts is None:
        folder.cascade_json.unlink(missing_ok=True)
        return []
    write_json(folder.cascade_json, facts)
    return [folder.cascade_json]


def exported(
    report: Mapping[str, Any], config: RunConfig, questions: Sequence[Exam], students: Sequence[Exam]
) -> dict[str, Any] | None:
    """The file's content; None without a threshold that passes, or where a router could not ask as was asked here."""
    found = report["cascade"]
    if found is None or found["best"] is None or (report["candidate"], report["reference"]) != ("student", "teacher"):
        return None
    prompts = openings(students, questions)
    if prompts is None:
        say("eval: no cascade.json: teacher and student read other texts, not only other openings")
        return None
    best = found["best"]
    return {
        "schema": SCHEMA,
        "rule": "the student answers; an answer whose confidence is below the threshold is asked of the teacher",
        "threshold": best["threshold"],
        "confidence": _confidence(found["confidence"], config, students),
        "margin": report["margin"],
        **told(best),
        "held_out": None if found["held_out"] is None else told(found["held_out"]),
        "prompts": prompts,
        "max_new_tokens": max(q.request.sampling.max_new_tokens for q in students),
        "models": {"student": config.student.model, "teacher": str(getattr(config.teacher, "model", ""))},
        "measured_on": {
            "items": report["method"]["items"],
            "clusters": report["method"]["clusters"],
            "sets": [{"name": s["name"], "items": s["items"], "licence": s["licence"]} for s in report["sets"]],
            "languages": [row["name"] for row in report["languages"]],
            "engine": {"student": "transformers", "dtype": config.student.dtype, "teacher": config.teacher.kind},
            "seed": config.seed,
        },
    }


def told(point: Mapping[str, Any]) -> dict[str, Any]:
    """A point of the curve: accuracy, difference to the teacher, share passed on, EUR per 1,000 requests or null."""
    cost = None
    if point["per_1000_requests"] is not None:
        cost = {"value": point["per_1000_requests"], "low": point["cost_low"], "high": point["cost_high"]}
    return {
        "escalated": point["escalated"],
        "accuracy": {"value": point["accuracy"], "low": point["accuracy_low"], "high": point["accuracy_high"]},
        "difference": {"value": point["difference"], "low": point["low"], "high": point["high"]},
        "outcome": point["outcome"],
        "eur_per_1000_requests": cost,
    }


def _confidence(kind: str, config: RunConfig, questions: Sequence[Exam]) -> dict[str, Any]:
    """How sure the student is, exactly as computed here."""
    if kind == "logprob":
        return {"kind": kind, "definition": LOGPROB}
    answers = config.eval.self_consistency
    found = {"kind": kind, "definition": VOTES, "answers": answers, "temperature": TEMPERATURE}
    return {**found, "labels": _labels(questions)}


def _labels(questions: Sequence[Exam]) -> list[str] | None:
    """The labels by which answers are equal; [] where the texts are; None where a rule of the task says."""
    choices = {q.config.choices or () for q in questions}
    if all(q.config.kind == "classification" for q in questions) and len(choices) == 1:
        return list(choices.pop())
    return [] if all(q.config.writes_text or q.config.kind == "exact" for q in questions) else None


def openings(students: Sequence[Exam], questions: Sequence[Exam]) -> dict[str, list[dict[str, str]]] | None:
    """What stands before the user's last turn for either; [] for both when they are asked alike. None: neither."""
    pairs = [(s.request.messages, q.request.messages) for s, q in zip(students, questions, strict=True)]
    if all(ours == theirs for ours, theirs in pairs):
        return {"student": [], "teacher": []}
    heads = {(ours[:-1], theirs[:-1]) for ours, theirs in pairs}
    if len(heads) > 1 or any(ours[-1] != theirs[-1] for ours, theirs in pairs):
        return None
    ours, theirs = heads.pop()
    return {"student": _turns(ours), "teacher": _turns(theirs)}


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in messages]
