"""Every combination of some lists (persona x topic x language ...), filled into a template; all, or a weighted draw.

With `write: true` the filled template is an order, and what the teacher writes for it becomes the prompt.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from distill import prompts
from distill.errors import DataError
from distill.generate.sources._base import Wanted, WriterConfig, name_of
from distill.records import Message

if TYPE_CHECKING:
    from distill.generate.sources._base import Bench

MOST = 2_000_000
Weight = Annotated[float, Field(gt=0)]


class Config(WriterConfig):
    """The lists and the template."""

    kind: Literal["expand"] = "expand"
    fields: Annotated[dict[str, str | dict[str, Weight] | tuple[str, ...]], Field(min_length=1)]
    """For each variable of the template its values: a list, a mapping of value to weight, or a text file with one value
    per line."""
    template: str
    """Jinja template (sandboxed) of the prompt, or of the order to write one."""
    number: Annotated[int, Field(ge=1)] | None = None
    """Draw this many combinations with the run's seed, by weight and without repeating one. Default: all of them."""
    write: bool = False
    """The template is an order: the teacher's answer to it becomes the prompt."""
    cluster_by: str | None = None
    """Variable whose rows stay together in the train/holdout split. Default: each row is its own cluster."""

    def files(self) -> tuple[str, ...]:
        """The value files."""
        return tuple(values for values in self.fields.values() if isinstance(values, str))


def make(config: Config, bench: Bench) -> list[dict[str, Any]]:
    """One row for each combination drawn, with its variables as fields. Raises DataError."""
    if config.cluster_by is not None and config.cluster_by not in config.fields:
        raise DataError(f"cluster_by: no variable {config.cluster_by!r}; there are: {', '.join(config.fields)}")
    lists = {name: _values(values, bench) for name, values in config.fields.items()}
    rows = [_row(config, chosen) for chosen in _drawn(config, lists, bench.seed)]
    bench.found = len(rows)
    if not config.write:
        return rows
    written = bench.write([Wanted((Message("user", row["prompt"]),)) for row in rows])
    return [
        {**row, "prompt": text.text, "order": row["prompt"], "request_key": text.key}
        for row, texts in zip(rows, written, strict=True)
        for text in texts
    ]


def _values(values: str | dict[str, float] | tuple[str, ...], bench: Bench) -> dict[str, float]:
    """Value -> weight."""
    if isinstance(values, dict):
        return values
    if isinstance(values, str):
        path = bench.resolve(values)
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise DataError(f"cannot read the values: {reason}", where=str(path)) from None
        values = tuple(line.strip() for line in lines if line.strip())
        if not values:
            raise DataError("the file holds no values", where=str(path))
    return dict.fromkeys(values, 1.0)


def _drawn(config: Config, lists: dict[str, dict[str, float]], seed: int) -> list[dict[str, str]]:
    """The combinations; a draw is weighted and without replacement (Efraimidis and Spirakis 2006)."""
    total = math.prod(map(len, lists.values()))
    if total > MOST:
        raise DataError(f"{total:,} combinations are more than {MOST:,}; shorten a list", where="prompts.source.fields")
    everything = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    if config.number is None or config.number >= total:
        return everything

    def rank(place: int) -> float:
        chosen = everything[place]
        weight = math.prod(lists[name][value] for name, value in chosen.items())
        uniform = (int.from_bytes(prompts.order(seed, "expand\0" + "\0".join(chosen.values()))[:8], "big") + 1) / (
            2**64 + 1
        )
        return math.log(uniform) / weight

    best = sorted(range(total), key=rank, reverse=True)[: config.number]
    return [everything[place] for place in sorted(best)]


def _row(config: Config, chosen: dict[str, str]) -> dict[str, Any]:
    try:
        text = prompts.fill(chosen, config.template)
    except prompts.BadRow as error:
        raise DataError(str(error), where="prompts.source.template") from None
    identity = name_of("x", *(f"{name}={value}" for name, value in chosen.items()))
    cluster = f"{config.cluster_by}={chosen[config.cluster_by]}" if config.cluster_by else identity
    return {**chosen, "id": identity, "cluster": cluster, "prompt": text}
