"""A task file: ``Config`` and three verbs.

- ``examples(config, path) -> list[Item]``: the items, in a fixed order; ``path`` is the resolved data file.
- ``prompt(item, config) -> Request``: what a system is asked.
- ``score(item, text, config) -> float``: 0..1. Pure; an empty answer scores 0, the gold answer scores 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from distill.plugins import PluginConfig


class TaskConfig(PluginConfig):
    """What every task has."""

    path: str
    """JSONL file of the items, relative to the configuration file."""
    name: str = ""
    """Shown in the report; default: the file's name."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Use at most this many items: whole clusters are drawn at random with the run's seed."""
    languages: tuple[str, ...] = ()
    """Keep only these languages. Clusters that lack one of them are dropped, so that languages stay parallel."""
    id_field: str = "id"
    """Field that names the item."""
    cluster_field: str | None = None
    """Field of what was sampled together (document, package): intervals are computed over clusters."""
    lang_field: str | None = None
    """Field that holds the language code."""
    licence: str = ""
    """Licence of the items, printed in the report."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to answer. ``fields`` is the whole row."""

    id: str
    cluster: str
    lang: str
    gold: Any
    fields: dict[str, Any] = field(default_factory=dict)
