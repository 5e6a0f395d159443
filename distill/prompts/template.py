"""A row as messages: sandboxed Jinja templates, worked examples, conversations that are used as they are."""

from __future__ import annotations

import difflib
import functools
from typing import TYPE_CHECKING, Any, cast, get_args

from distill.errors import ConfigError
from distill.records import Message, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import jinja2

    from distill import config

ROLES = get_args(Role)
MOST_REPEATS, MOST_POWER = 1_000_000, 64


class BadRow(ValueError):
    """Why a row cannot become a prompt."""


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
        raise BadRow(missing(named[0], row) if named else f"the template fails: {error}") from None
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


def missing(name: str, fields: Iterable[str]) -> str:
    names = sorted(fields)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"the field {name!r} is missing; {hint}this row has: {', '.join(names) or 'nothing'}"
