"""YAML 1.2 as plain values: ``no`` is text, ``2e-4`` is a number; no tags, anchors, duplicate keys or deep nesting."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from distill.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 1_000_000
MAX_DEPTH = 32


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML 1.2 mapping as plain values. Raises ConfigError for anything else."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot read: {error.strerror}", where=str(path), next="distill init writes a starter file"
        ) from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"larger than {MAX_BYTES:,} bytes", where=str(path))
    try:
        values = parse_yaml(data.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8 text (byte {error.start})", where=str(path)) from None
    if not isinstance(values, dict):
        raise ConfigError("expected a mapping of settings", where=str(path), next="distill init writes a starter file")
    return values


def parse_yaml(text: str, where: str) -> Any:
    """YAML 1.2 scalars, sequences and mappings with text keys; no tags, anchors, duplicates, or deep nesting."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

    yaml = YAML(typ="safe", pure=True)
    yaml.allow_duplicate_keys = False
    try:
        depth = 0
        for event in yaml.parse(io.StringIO(text)):
            if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
                raise ConfigError("anchors and aliases are not allowed", where=_mark(where, event.start_mark))
            if (
                isinstance(event, ScalarEvent | CollectionStartEvent)
                and getattr(event, "ctag", None)
                and str(event.ctag) not in ("None", "")
            ):
                raise ConfigError(f"the tag {event.ctag} is not allowed", where=_mark(where, event.start_mark))
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ConfigError(f"nested deeper than {MAX_DEPTH}", where=_mark(where, event.start_mark))
        return _plain(YAML(typ="safe", pure=True).load(io.StringIO(text)), where)
    except MarkedYAMLError as error:
        problem = " ".join(str(error.problem or "not YAML").split()[:20])
        raise ConfigError(problem, where=_mark(where, error.problem_mark)) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"not YAML: {str(error)[:200]}", where=where) from None


def _mark(where: str, mark: Any) -> str:
    return f"{where}:{mark.line + 1}:{mark.column + 1}" if mark is not None else where


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ConfigError(f"the key {key!r} is not text", where=where)
        return {key: _plain(item, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, where) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)  # a date stays the text it was written as


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set ``a.b.c=value`` in place; the value is YAML. Raises ConfigError."""
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(
            f"expected key=value, got {override!r}", where="command line", next="for example: train.lr=2e-5"
        )
    target = values
    for key in keys[:-1]:
        child = target.setdefault(key, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{path}: {key} is not a mapping", where="command line")
        target = child
    target[keys[-1]] = parse_yaml(text, f"command line, {path}") if text.strip() else None
