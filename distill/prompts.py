"""Rows of a user's file as prompts: reading, sandboxed templates, quotas. Used by generate and by the evals.

Read: JSONL, CSV, TSV, Parquet, a folder written by ``datasets.Dataset.save_to_disk``. A row that holds ``messages`` is
a conversation and is used as it is; any other row goes through the template. Every broken row is found and named
with its line before anything is asked.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

from distill.errors import ConfigError, DataError
from distill.progress import say
from distill.records import Message, Prompt, Role
from distill.rows import Row, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import jinja2

    from distill import config

SHOWN = 5
ROLES = get_args(Role)
MOST_REPEATS, MOST_POWER = 1_000_000, 64


class BadRow(ValueError):
    """Why a row cannot become a prompt."""


@dataclass(frozen=True)
class Built:
    """Prompts in the file's order; ``skipped`` holds one line for each broken row that was left out."""

    prompts: list[Prompt]
    read: int
    skipped: list[str]


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
    rows, bad = read(path)
    total = len(rows) + len(bad)
    if not total:
        raise DataError("the file holds no rows", where=str(path))
    named = any(prompts.id_field in row.fields for row in rows)
    found: dict[str, Prompt] = {}
    lines: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        try:
            prompt = _prompt(row, prompts, "" if named else f"row-{number}")
            if prompt.id in found:
                raise BadRow(f"the id {prompt.id!r} is already used in line {lines[prompt.id]}")
        except BadRow as error:
            bad.append((row.line, str(error)))
        else:
            found[prompt.id], lines[prompt.id] = prompt, row.line
    bad.sort()
    if bad and (prompts.on_error == "refuse" or not found):
        raise refusal(path, bad)
    if bad:
        say(f"{path.name}: {len(bad)} of {total} rows skipped, the first: line {bad[0][0]}: {bad[0][1]}")
    chosen = choose(list(found.values()), prompts.languages, prompts.limit, seed, str(path))
    return Built(chosen, total, [f"{path.name}:{line}: {reason}" for line, reason in bad])


def refusal(path: Path, bad: Sequence[tuple[int, str]]) -> DataError:
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
    fields = row.fields
    identity = unnamed or _text(fields, prompts.id_field)
    cluster = _text(fields, prompts.cluster_field) if prompts.cluster_field else identity
    lang = _text(fields, prompts.lang_field) if prompts.lang_field else ""
    return Prompt(identity, render(fields, prompts.system, prompts.template, prompts.examples), cluster, lang, fields)


def _text(fields: dict[str, Any], name: str) -> str:
    """A field that names something: text or a whole number, not empty."""
    if name not in fields:
        raise BadRow(_missing(name, fields))
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise BadRow(f"the field {name!r} must be text or a whole number, got {value!r:.60}")
    return str(value)


def _missing(name: str, fields: Iterable[str]) -> str:
    names = sorted(fields)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"the field {name!r} is missing; {hint}this row has: {', '.join(names) or 'nothing'}"


def render(
    row: dict[str, Any], system: str, template: str, examples: Sequence[config.Example] = ()
) -> tuple[Message, ...]:
    """The row's messages: system, worked examples, question. Raises BadRow (a ValueError) saying why not.

    A row with ``messages`` is used as it is; ``system`` is put in front only when it brings none of its own.
    """
    head = (Message("system", system),) if system else ()
    if "messages" in row:
        turns = conversation(row["messages"])
        return turns if turns[0].role == "system" else head + turns
    text = fill(row, template)
    if not text.strip():
        raise BadRow("the rendered message is empty")
    shown = (turn for example in examples for turn in (("user", example.user), ("assistant", example.assistant)))
    return (*head, *(Message(cast("Role", role), content) for role, content in shown), Message("user", text))


def conversation(value: Any) -> tuple[Message, ...]:
    """A list of ``{role, content}`` as messages: at most one system message, first; the last turn is the user's."""
    if not isinstance(value, list) or not value:
        raise BadRow("'messages' must be a list of {role, content} that is not empty")
    turns: list[Message] = []
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str) or turn.get("role") not in ROLES:
            raise BadRow(f"turn {number} of 'messages' must be a text 'content' with a 'role' of {', '.join(ROLES)}")
        if turn["role"] == "system" and number > 1:
            raise BadRow(f"turn {number} of 'messages' is a system message; only the first may be")
        turns.append(Message(turn["role"], turn["content"]))
    if turns[-1].role != "user":
        raise BadRow(f"'messages' ends with a turn of the {turns[-1].role}; the last turn must be the user's")
    return tuple(turns)


def fill(row: dict[str, Any], template: str) -> str:
    """The template with the row's fields. Raises BadRow naming the missing field and the fields there are."""
    from jinja2 import TemplateError, UndefinedError, meta

    compiled = compile_template(template, "template")
    try:
        return compiled.render(row)
    except UndefinedError as error:
        wanted = meta.find_undeclared_variables(_environment().parse(template)) - set(row)
        named = [name for name in sorted(wanted) if f"'{name}'" in str(error)]
        raise BadRow(_missing(named[0], row) if named else f"the template fails: {error}") from None
    except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError, RecursionError, MemoryError) as error:
        raise BadRow(f"the template fails: {error}") from None


@functools.cache
def _environment() -> jinja2.Environment:
    from jinja2 import StrictUndefined
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if max((abs(side) for side in (left, right) if isinstance(side, int)), default=0) > MOST_REPEATS:
                raise SecurityError(f"{operator} with a number above {MOST_REPEATS:,} is not allowed")
            if operator == "**" and isinstance(right, int) and right > MOST_POWER:
                raise SecurityError(f"a power above {MOST_POWER} is not allowed")
            return super().call_binop(context, operator, left, right)

    return Environment(undefined=StrictUndefined, autoescape=False)


@functools.lru_cache(maxsize=64)
def compile_template(template: str, where: str) -> jinja2.Template:
    """The template, ready to render. It cannot reach attributes that begin with an underscore, files or code."""
    from jinja2 import TemplateSyntaxError

    try:
        return _environment().from_string(template)
    except TemplateSyntaxError as error:
        raise ConfigError(f"not a Jinja template: {error.message} (line {error.lineno})", where=where) from None


# -- which rows ----------------------------------------------------------------------------------------------------


def order(seed: int, name: str) -> bytes:
    """Sort key of a seeded draw: rows added to a file later leave the earlier draws where they were."""
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest()


def choose(
    prompts: list[Prompt], languages: tuple[str, ...], limit: int | None, seed: int, where: str = ""
) -> list[Prompt]:
    """The prompts of these languages in equal numbers, at most ``limit`` in all; clusters drawn in seeded order.

    With languages, a cluster's row is left out once its language is full, so that the numbers are equal. Without,
    a cluster is taken whole or not at all. The file's order is kept.
    """
    pool = [prompt for prompt in prompts if not languages or prompt.lang in languages]
    room = _room(pool, languages, limit, where)
    clusters: dict[str, list[Prompt]] = {}
    for prompt in pool:
        clusters.setdefault(prompt.cluster, []).append(prompt)
    taken: set[str] = set()
    for name in sorted(clusters, key=lambda name: order(seed, name)):
        if not languages and len(clusters[name]) > room[""]:
            continue
        for prompt in clusters[name]:
            slot = prompt.lang if languages else ""
            if room[slot] > 0:
                room[slot] -= 1
                taken.add(prompt.id)
    chosen = [prompt for prompt in pool if prompt.id in taken]
    if not chosen:
        size = min(map(len, clusters.values()), default=0)
        raise DataError(f"limit {limit} leaves no prompt: the smallest cluster has {size} rows", where=where)
    return chosen


def _room(pool: list[Prompt], languages: tuple[str, ...], limit: int | None, where: str) -> dict[str, int]:
    """How many prompts each language may have ("" = all together)."""
    if not languages:
        return {"": len(pool) if limit is None else limit}
    counts = {lang: sum(prompt.lang == lang for prompt in pool) for lang in languages}
    if empty := [lang for lang, count in counts.items() if not count]:
        raise DataError(
            f"no row in {', '.join(empty)}; rows found: {counts}", where=where, next="see prompts.lang_field"
        )
    each = min(counts.values()) if limit is None else min(*counts.values(), limit // len(languages))
    return dict.fromkeys(languages, each)
