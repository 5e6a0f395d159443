"""A file of rows as prompts: every broken row is found and named with its line before anything is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.errors import DataError
from distill.progress import say
from distill.prompts import personal_data
from distill.prompts.draw import choose
from distill.prompts.template import BadRow, compile_template, missing, render
from distill.records import Prompt
from distill.rows import Row, read

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill import config

SHOWN = 5


@dataclass(frozen=True)
class Built:
    """Prompts in the file's order; ``skipped`` holds one line for each broken row that was left out."""

    prompts: list[Prompt]
    read: int
    skipped: list[str]
    masked: int = 0
    """Prompts in which personal data was replaced before anything was sent."""


def load_rows(path: Path) -> list[dict[str, Any]]:
    """Every row of the file as JSON values. Raises DataError naming each broken line (the first five in full)."""
    rows, bad = read(path)
    if bad:
        raise refusal(path, bad)
    return [row.fields for row in rows]


def build(prompts: config.Prompts, path: Path, seed: int) -> list[Prompt]:
    """The prompts to ask, ``meta`` being the row. Raises DataError; see :func:`scan`."""
    return scan(prompts, path, seed).prompts


def scan(prompts: config.Prompts, path: Path, seed: int) -> Built:
    """Read, check, render, then keep the languages and the number asked for. Raises DataError, ConfigError."""
    compile_template(prompts.template, "prompts.template")
    return scan_rows(prompts, *read(path), path, seed)


def scan_rows(
    prompts: config.Prompts, rows: Sequence[Row], bad: list[tuple[int, str]], path: Path | str, seed: int
) -> Built:
    """The same for rows that were read; ``path`` names them in messages."""
    name = getattr(path, "name", path)
    total = len(rows) + len(bad)
    if not total:
        raise DataError("the file holds no rows", where=str(path))
    named = any(prompts.id_field in row.fields for row in rows)
    found: dict[str, Prompt] = {}
    lines: dict[str, int] = {}
    masked: set[str] = set()
    for number, row in enumerate(rows, start=1):
        try:
            prompt = _prompt(row, prompts, "" if named else f"row-{number}")
            if prompt.id in found:
                raise BadRow(f"the id {prompt.id!r} is already used in line {lines[prompt.id]}")
        except BadRow as error:
            bad.append((row.line, str(error)))
        else:
            found[prompt.id], lines[prompt.id] = prompt, row.line
            if prompt.meta is not row.fields:
                masked.add(prompt.id)
    bad.sort()
    if bad and (prompts.on_error == "refuse" or not found):
        raise refusal(path, bad)
    if bad:
        say(f"{name}: {len(bad)} of {total} rows skipped, the first: line {bad[0][0]}: {bad[0][1]}")
    if masked:
        say(f"{name}: personal data replaced in {len(masked)} of {total} rows")
    chosen = choose(list(found.values()), prompts.languages, prompts.limit, seed, str(path), prompts.quotas)
    skipped = [f"{name}:{line}: {reason}" for line, reason in bad]
    return Built(chosen, total, skipped, sum(prompt.id in masked for prompt in chosen))


def refusal(path: Path | str, bad: Sequence[tuple[int, str]]) -> DataError:
    """The error that names the broken lines."""
    shown = "; ".join(f"{path}:{line}: {reason}" for line, reason in bad[:SHOWN])
    more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    return DataError(
        f"{len(bad)} broken row(s): {shown}{more}",
        safe="nothing was asked",
        next="correct them, or set prompts.on_error: skip",
    )


# -- one row -------------------------------------------------------------------------------------------------------


def _prompt(row: Row, prompts: config.Prompts, unnamed: str) -> Prompt:
    """The row as a prompt. ``meta`` is the row itself, or a copy in which personal data is masked."""
    fields = row.fields
    identity = unnamed or _text(fields, prompts.id_field)
    cluster = _text(fields, prompts.cluster_field) if prompts.cluster_field else identity
    lang = _text(fields, prompts.lang_field) if prompts.lang_field else ""
    if prompts.personal_data == "mask":
        fields = personal_data.masked_row(fields)
    messages = render(fields, prompts.system, prompts.template, prompts.examples)
    if prompts.personal_data == "block":
        text = "\n".join(message.content for message in messages)
        if kinds := personal_data.kinds_in(text):
            raise BadRow(f"holds personal data ({', '.join(kinds)}); prompts.personal_data: mask replaces it")
    return Prompt(identity, messages, cluster, lang, fields)


def _text(fields: dict[str, Any], name: str) -> str:
    """A field that names something: text or a whole number, not empty."""
    if name not in fields:
        raise BadRow(missing(name, fields))
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise BadRow(f"the field {name!r} must be text or a whole number, got {value!r:.60}")
    return str(value)
