"""The papers beside the card: what was distilled and what was lost, and the training data. From the run's records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.release import licence
from distill.release.card import cell, front_matter, interval, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distill.release.record import Record

LOST = ("teacher", "student", "student minus teacher, 95 % interval")
OBJECTIVE = {
    "sft": "cross entropy on the teacher's text (sequence-level distillation, Kim and Rush 2016)",
    "offline_topk": "divergence from the teacher's stored top-k log-probabilities, with the tail as one bucket",
    "whitebox": "divergence from the live teacher's full next-token distribution",
    "on_policy": "the same, also on the student's own answers (Agarwal et al. 2024)",
    "cross_tokenizer": "divergence from a live teacher with another tokenizer, aligned by the bytes of the text",
}


def distillation(record: Record) -> str:
    """papers/distillation.md: the objective, the chain of models, and what the student lost against its teacher."""
    train, generate = record.settings["train"], record.settings["generate"]
    kd = [("loss", train["loss"]["kind"]), ("weight of the divergence", train["kd_weight"])]
    kd = [*kd, ("temperature", train["temperature"])] if train["method"] != "sft" else []
    parts = [
        f"# What was distilled, and what was lost: {record.title}\n",
        "## The chain\n",
        *table(
            ("role", "model", "identity"),
            [
                ("teacher", record.teacher_name, "; ".join(f"{n}: {c} answers" for n, c in record.teachers.items())),
                ("base", record.base_name, f"revision {record.base.revision or 'none'}, SHA-256 {record.base.sha256}"),
                ("student", record.title, "SHA-256 of each file: SHA256SUMS"),
            ],
        ),
        "## The objective\n",
        *table(
            ("", ""),
            [
                ("method", f"{train['method']}: {OBJECTIVE.get(train['method'], 'see config/run.json')}"),
                *kd,
                (
                    "teacher's sampling",
                    f"temperature {generate['temperature']}, {generate['samples']} answer(s) a prompt",
                ),
                ("learning rate", train["lr"]),
                ("epochs", train["epochs"]),
                ("rows per step", train["batch_size"]),
                ("seed", record.settings["seed"]),
            ],
        ),
        "## As recorded by the training\n",
        *entries(record.student),
        "## What was lost\n",
        record.verdict,
        "",
        *table(("task", *LOST), _lost(record, "tasks")),
        *table(("language", *LOST), _lost(record, "languages")),
        "Measured by this run on the same items for all; intervals and the items themselves are in `report.html`.",
    ]
    return "\n".join(parts).rstrip() + "\n"


def _lost(record: Record, part: str) -> list[tuple[Any, ...]]:
    """Rows of the report's slices, where student and teacher were compared on the same items."""
    names = (str(record.report.get("reference")), str(record.report.get("candidate")))
    return [
        (
            row["name"],
            *(interval(row["arms"].get(name, {}).get("accuracy")) for name in names),
            interval(row["difference"]),
        )
        for row in record.report.get(part, [])
    ]


def data_card(record: Record) -> str:
    """papers/data.md: the training data as the generate stage recorded it. The rows stay out of the bundle."""
    values: dict[str, Any] = {
        "language": list(record.languages),
        "tags": ["synthetic", "distillation", f"teacher:{record.teacher_name}"],
        "pretty_name": f"Training data of {record.title}",
    }
    parts = [
        front_matter({key: value for key, value in values.items() if value}),
        f"# Training data of {record.title}\n",
        "Synthetic: every answer was written by the teacher. The rows are not part of this bundle.\n",
        *table(
            ("", ""),
            [
                ("rows trained on", record.rows),
                ("languages", ", ".join(record.languages)),
                *((f"answers of {name}", count) for name, count in record.teachers.items()),
            ],
        ),
        "## What the licences ask\n",
        *(table(("part of the chain", "asks", "read"), licence.obligations(record)) or ["Nothing is recorded.", ""]),
        "## As recorded by the generation\n",
        *entries(record.data),
    ]
    return "\n".join(parts).rstrip() + "\n"


def entries(record: Mapping[str, Any]) -> list[str]:
    """Every entry of a JSON record as a table of dotted names; a line that says so when there is none."""
    rows = [(f"`{name}`", value) for name, value in _flat(record) if not name.startswith("_")]
    return table(("entry", "value"), rows) or ["Nothing was recorded.", ""]


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [row for key in sorted(value, key=str) for row in _flat(value[key], f"{prefix}.{key}".lstrip("."))]
    if isinstance(value, list):
        return [(prefix, ", ".join(cell(item) for item in value[:20]) + (" ..." if len(value) > 20 else ""))]
    return [(prefix, value)]
