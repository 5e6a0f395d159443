"""The data set's page (data/README.md): what a reader, and ``load_dataset``, must know of the files beside it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COLUMNS = (
    ("id", "name of the prompt row"),
    ("sample", "which of the answers wanted for the prompt"),
    ("cluster", "rows of one cluster are on one side of the split"),
    ("lang", "language code, when the prompts have one"),
    ("messages", "the conversation as the student reads it"),
    ("answer", "what a teacher answered"),
    ("reasoning", "what it thought before, kept apart"),
    ("teacher", "who answered"),
    ("request_key", "SHA-256 of the request, its key in run.db and in signals/"),
    ("score", "the sum of the judges' scores, when judges were asked"),
    ("meta", "the prompt row, as JSON"),
)


def readme(name: str, facts: dict[str, Any]) -> str:
    """The page from the card's facts. Equal facts give equal text."""
    rows = facts["rows"]
    languages = [code for code in facts["languages"] if code]
    parts = [
        _header(languages),
        f"# Training data of {name}\n",
        "Synthetic: every answer was written by a model. `train` and `holdout` are split by cluster; "
        "`rejects.parquet` holds what was not kept, each row with its reason.\n",
        *_table(("rows", "number"), [(what, f"{rows[what]:,}") for what in rows]),
        "Kept and rejected rows add up to those asked.\n",
        *_section("Rejected", ("reason", "rows"), [(why, f"{count:,}") for why, count in facts["rejected"].items()]),
        *_section("Languages", ("code", "prompts"), [(code, f"{facts['languages'][code]:,}") for code in languages]),
        *_section("Teachers", ("teacher", "answers under", "asked", "kept", "EUR"), map(_teacher, facts["teachers"])),
        *_section("Permission", ("part", "verdict", "because", "obliges to"), map(_permission, facts["permission"])),
        *_section("Prompts", ("", ""), _pairs(facts["prompts"])),
        *_section("Sampling", ("", ""), _pairs(facts["sampling"] | {"seed": facts["seed"]})),
        *_section("Checks", ("", "settings"), [_check(item) for item in [*facts["filters"], *facts["verifiers"]]]),
        *_section("Columns", ("column", "what it holds"), COLUMNS),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _header(languages: Sequence[str]) -> str:
    """What the hub and ``load_dataset`` read: the splits, and no others."""
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for split in ("train", "holdout"):
        lines += [f"  - split: {split}", f"    path: {split}.parquet"]
    if languages:
        lines += [f"language: {json.dumps(list(languages))}"]
    return "\n".join([*lines, 'tags: ["synthetic", "distillation"]', "---\n"])


def _teacher(one: dict[str, Any]) -> tuple[str, ...]:
    where = one.get("endpoint") or one.get("base_url") or one.get("source") or one["kind"]
    cost = one["cost"]["eur"]
    return (
        f"{one.get('model', one['kind'])} ({where})",
        one["licence"] or "not known",
        f"{one['asked']:,}",
        f"{one['kept']:,}",
        "not known" if cost is None else cost,
    )


def _permission(one: dict[str, Any]) -> tuple[str, ...]:
    verdict = one["verdict"].replace("_", " ") + (f"; waived by {one['waiver']}" if one["waiver"] else "")
    return f"{one['kind']} of {one['role']} {one['subject']}", verdict, one["why"], ", ".join(one["obligations"])


def _check(item: dict[str, Any]) -> tuple[str, ...]:
    return item["kind"], json.dumps({key: value for key, value in item.items() if key != "kind"}, ensure_ascii=False)


def _pairs(values: dict[str, Any]) -> list[tuple[str, ...]]:
    return [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in values.items()]


def _section(title: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """A heading and a table; nothing when there are no rows."""
    return [f"## {title}\n", *table] if (table := _table(head, rows)) else []


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    body = list(rows)
    lines = [head, ("---",) * len(head), *body]
    return ["| " + " | ".join(map(_cell, line)) + " |" for line in lines] + [""] if body else []


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
