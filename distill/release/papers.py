"""The papers beside the card: what was distilled and what was lost, and the training data. From the run's records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.release import licence
from distill.release.card import cell, front_matter, interval, table
from distill.release.words import words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distill.release.record import Record

LOST: tuple[str, ...] = ("teacher", "student", "student minus teacher, 95 % interval")
OBJECTIVE = {
    "sft": "cross entropy on the teacher's text (sequence-level distillation, Kim and Rush 2016)",
    "offline_topk": "divergence from the teacher's stored top-k log-probabilities, with the tail as one bucket",
    "whitebox": "divergence from the live teacher's full next-token distribution",
    "on_policy": "the same, also on the student's own answers (Agarwal et al. 2024)",
    "cross_tokenizer": "divergence from a live teacher with another tokenizer, aligned by the bytes of the text",
}


def distillation(record: Record, language: str = "en") -> str:
    """papers/distillation.md: the objective, the chain of models, and what the student lost against its teacher."""
    t = words(language)
    train, generate = record.settings["train"], record.settings["generate"]
    kd = [(t("loss"), train["loss"]["kind"]), (t("weight of the divergence"), train["kd_weight"])]
    kd = [*kd, (t("temperature"), train["temperature"])] if train["method"] != "sft" else []
    parts = [
        f"# {t('What was distilled, and what was lost')}: {record.title}\n",
        f"## {t('The chain')}\n",
        *table(
            (t("role"), t("model"), t("identity")),
            [
                (
                    t("teacher"),
                    record.teacher_name,
                    "; ".join(f"{n}: {c} {t('answers')}" for n, c in record.teachers.items()),
                ),
                (t("base"), record.base_name, f"revision {record.base.revision or '-'}, SHA-256 {record.base.sha256}"),
                (t("student"), record.title, t("SHA-256 of each file: SHA256SUMS")),
            ],
        ),
        f"## {t('The objective')}\n",
        *table(
            ("", ""),
            [
                (t("method"), f"{train['method']}: {t(OBJECTIVE.get(train['method'], 'see config/run.json'))}"),
                *kd,
                (
                    t("teacher's sampling"),
                    t("temperature {a}, {b} answer(s) a prompt").format(
                        a=generate["temperature"], b=generate["samples"]
                    ),
                ),
                (t("learning rate"), train["lr"]),
                (t("epochs"), train["epochs"]),
                (t("rows per step"), train["batch_size"]),
                (t("seed"), record.settings["seed"]),
            ],
        ),
        f"## {t('As recorded by the training')}\n",
        *entries(record.student, language),
        f"## {t('What was lost')}\n",
        record.verdict_in(language),
        "",
        *table((t("task"), *map(t, LOST)), _lost(record, "tasks")),
        *table((t("language"), *map(t, LOST)), _lost(record, "languages")),
        t("Measured by this run on the same items for all; intervals and the items themselves are in `report.html`."),
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


def data_card(record: Record, language: str = "en") -> str:
    """papers/data.md: the training data as the generate stage recorded it. The rows stay out of the bundle."""
    t = words(language)
    values: dict[str, Any] = {
        "language": list(record.languages),
        "tags": ["synthetic", "distillation", f"teacher:{record.teacher_name}"],
        "pretty_name": f"{t('Training data of')} {record.title}",
    }
    parts = [
        front_matter({key: value for key, value in values.items() if value}),
        f"# {t('Training data of')} {record.title}\n",
        t("Synthetic: every answer was written by the teacher. The rows are not part of this bundle.") + "\n",
        *table(
            ("", ""),
            [
                (t("rows trained on"), record.rows),
                (t("languages"), ", ".join(record.languages)),
                *((f"{t('answers of')} {name}", count) for name, count in record.teachers.items()),
            ],
        ),
        f"## {t('What the licences ask')}\n",
        *(
            table((t("part of the chain"), t("asks"), t("read")), licence.obligations(record))
            or [t("Nothing was recorded."), ""]
        ),
        f"## {t('As recorded by the generation')}\n",
        *entries(record.data, language),
    ]
    return "\n".join(parts).rstrip() + "\n"


def entries(record: Mapping[str, Any], language: str = "en") -> list[str]:
    """Every entry of a JSON record as a table of dotted names; a line that says so when there is none."""
    t = words(language)
    rows = [(f"`{name}`", value) for name, value in _flat(record) if not name.startswith("_")]
    return table((t("entry"), t("value")), rows) or [t("Nothing was recorded."), ""]


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [row for key in sorted(value, key=str) for row in _flat(value[key], f"{prefix}.{key}".lstrip("."))]
    if isinstance(value, list):
        return [(prefix, ", ".join(cell(item) for item in value[:20]) + (" ..." if len(value) > 20 else ""))]
    return [(prefix, value)]
