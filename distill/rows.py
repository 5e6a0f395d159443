"""Files of rows: JSONL, CSV, TSV, Parquet, folders of Parquet files and folders saved by ``datasets``.

One bad row never hides the next.
"""

from __future__ import annotations

import csv
import datetime
import decimal
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_FIELD = 64_000_000
MAX_DEPTH = 64
Bad = list[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Row:
    """A row's fields as JSON values, and the line it begins on (in binary files: its number)."""

    line: int
    fields: dict[str, Any]


def files(path: Path) -> list[Path]:
    """The files that ``path`` is made of, sorted: what a hash of the data must cover."""
    return sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]


def read(path: Path) -> tuple[list[Row], Bad]:
    """(good rows, [(line, reason)]). Raises DataError when the file as a whole cannot be read."""
    try:
        if path.is_dir():
            parts = sorted(path.glob("*.parquet"))
            return _joined([_parquet(part) for part in parts]) if parts else _saved_dataset(path)
        readers: dict[str, Callable[[Path], tuple[list[Row], Bad]]] = {
            ".jsonl": _jsonl,
            ".ndjson": _jsonl,
            ".csv": lambda p: _csv(p, ","),
            ".tsv": lambda p: _csv(p, "\t"),
            ".parquet": _parquet,
        }
        reader = readers.get(path.suffix.lower())
        if reader is None:
            path.stat()
            raise DataError(f"unknown kind of file; known: {', '.join(readers)}, a saved dataset", where=str(path))
        return reader(path)
    except OSError as error:
        raise DataError(f"cannot read: {error.strerror or error}", where=str(path)) from None


# -- text files ----------------------------------------------------------------------------------------------------


def _jsonl(path: Path) -> tuple[list[Row], Bad]:
    rows: list[Row] = []
    bad: Bad = []
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            data = raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw
            if not data.strip():
                continue
            try:
                rows.append(Row(line, _object(data)))
            except ValueError as error:
                bad.append((line, _reason(error)))
            except RecursionError:
                bad.append((line, "nested too deeply"))
    return rows, bad


def _object(data: bytes) -> dict[str, Any]:
    value = json.loads(data.decode("utf-8"), parse_constant=_constant, object_pairs_hook=_unique)
    if not isinstance(value, dict):
        raise ValueError(f"expected an object {{...}}, got {type(value).__name__}")
    return {name: plain(item) for name, item in value.items()}


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} appears twice")
    return fields


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} (column {error.colno})"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text (byte {error.start} of the line)"
    return str(error)


def _csv(path: Path, delimiter: str) -> tuple[list[Row], Bad]:
    rows: list[Row] = []
    bad: Bad = []
    before = csv.field_size_limit(MAX_FIELD)
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            names = _header(reader, path)
            while True:
                line = reader.line_num + 1
                try:
                    values = next(reader, None)
                except csv.Error as error:
                    bad.append((line, f"not CSV: {error}"))
                    continue
                if values is None:
                    return rows, bad
                _csv_row(names, values, line, rows, bad)
    finally:
        csv.field_size_limit(before)


def _header(reader: Any, path: Path) -> list[str]:
    try:
        names = [_valid(name) for name in next(reader, [])]
    except (csv.Error, ValueError) as error:
        raise DataError(f"the header cannot be read: {error}", where=f"{path}:1") from None
    if len(set(names)) < len(names) or "" in names:
        raise DataError("the header has an empty or a repeated column name", where=f"{path}:1")
    return names


def _csv_row(names: list[str], values: list[str], line: int, rows: list[Row], bad: Bad) -> None:
    if not values:
        return
    if len(values) != len(names):
        bad.append((line, f"{len(values)} fields, the header has {len(names)}"))
        return
    try:
        rows.append(Row(line, {name: plain(value) for name, value in zip(names, values, strict=True)}))
    except ValueError:
        bad.append((line, "not UTF-8 text"))


# -- binary files --------------------------------------------------------------------------------------------------


def _parquet(path: Path) -> tuple[list[Row], Bad]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return _table(pq.read_table(path))
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"not a Parquet file: {str(error)[:120]}", where=str(path)) from None


def _joined(parts: list[tuple[list[Row], Bad]]) -> tuple[list[Row], Bad]:
    """The rows of several files, numbered through."""
    rows: list[Row] = []
    bad: Bad = []
    for more, wrong in parts:
        before = len(rows) + len(bad)
        rows += [Row(before + row.line, row.fields) for row in more]
        bad += [(before + line, reason) for line, reason in wrong]
    return rows, bad


def _saved_dataset(path: Path) -> tuple[list[Row], Bad]:
    """A folder of ``datasets.Dataset.save_to_disk``: Arrow streams listed in ``state.json``."""
    import pyarrow as pa

    if (path / "dataset_dict.json").is_file():
        splits = sorted(f.name for f in path.iterdir() if f.is_dir())
        raise DataError(f"holds several splits; name one: {', '.join(splits)}", where=str(path))
    try:
        state = json.loads((path / "state.json").read_text("utf-8"))
        names = [path / item["filename"] for item in state["_data_files"]]
        tables = [pa.ipc.open_stream(name.read_bytes()).read_all() for name in names if name.parent == path]
        return _table(pa.concat_tables(tables))
    except FileNotFoundError:
        raise DataError(
            "neither a file of rows, nor a folder of Parquet files, nor one written by save_to_disk", where=str(path)
        ) from None
    except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise DataError(f"not a saved dataset: {str(error)[:120]}", where=str(path)) from None


def _table(table: Any) -> tuple[list[Row], Bad]:
    rows: list[Row] = []
    bad: Bad = []
    for number, fields in enumerate(table.to_pylist(), start=1):
        try:
            rows.append(Row(number, {name: plain(value) for name, value in fields.items()}))
        except ValueError as error:
            bad.append((number, str(error)))
    return rows, bad


def plain(value: Any, depth: int = 0) -> Any:
    """The value as strict JSON: finite numbers, valid text, dates as ISO text. Raises ValueError."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, str):
        return _valid(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number")
        return value
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_valid(str(name)): plain(item, depth + 1) for name, item in value.items()}
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    raise ValueError(f"a value of type {type(value).__name__} has no place in a prompt")


def _valid(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"not valid Unicode: a lone surrogate at character {error.start}") from None
    return text
