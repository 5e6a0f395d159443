"""Logs of inspect-ai, `.eval` (a zip of JSON) or `.json`, as rows of ours; inspect-ai itself is not needed."""

from __future__ import annotations

import json
import struct
import zipfile
from typing import TYPE_CHECKING, Any

from distill.errors import DataError
from distill.progress import say

if TYPE_CHECKING:
    from pathlib import Path

ZSTD = 93
LARGEST = 1 << 30
"""Bytes of one unpacked member: more is no log of an answer."""
GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}


def read(path: Path) -> list[dict[str, Any]]:
    """One row per item; an item asked several times has the mean of its scores. Raises DataError."""
    try:
        head, samples = _zipped(path) if path.suffix == ".eval" else _plain(path)
        rows = [_row(head, sample, f"{path}, sample {sample.get('id')}") for sample in samples]
    except OSError as error:
        raise DataError(f"cannot read: {error.strerror or error}", where=str(path)) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zipfile.BadZipFile) as error:
        raise DataError(f"not a log of inspect-ai: {str(error)[:100]}", where=str(path)) from None
    if head.get("status") not in (None, "success"):
        say(f"{path.name}: the log says {head['status']!r}: it may lack items")
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["id"], []).append(row)
    return [_merged(found) for found in grouped.values()]


def _plain(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    log = json.loads(path.read_text("utf-8"))
    if not isinstance(log, dict) or "eval" not in log:
        raise ValueError("no field 'eval'")
    return log, list(log.get("samples") or [])


def _zipped(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(header, samples). A log that was cut short has no header: its start is in the journal."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        head = "header.json" if "header.json" in names else "_journal/start.json"
        wanted = sorted(name for name in names if name.startswith("samples/") and name.endswith(".json"))
        found = [json.loads(_member(archive, name)) for name in (head, *wanted)]
    return found[0], found[1:]


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a member; Zstandard, which this Python's zipfile does not know, by pyarrow."""
    info = archive.getinfo(name)
    if info.file_size > LARGEST:
        raise ValueError(f"{name} is too large")
    if info.compress_type != ZSTD:
        return archive.read(info)
    import pyarrow as pa

    file = archive.fp
    assert file is not None
    file.seek(info.header_offset)
    fixed = file.read(30)
    lengths = struct.unpack("<HH", fixed[26:30])
    file.seek(sum(lengths), 1)
    packed = file.read(info.compress_size)
    try:
        data: bytes = pa.CompressedInputStream(pa.py_buffer(packed), "zstd").read(info.file_size + 1)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{name}: {error}") from None
    if len(data) != info.file_size:
        raise ValueError(f"{name} has another size than it says")
    return data


def _row(head: dict[str, Any], sample: dict[str, Any], where: str) -> dict[str, Any]:
    scores, metadata = sample.get("scores") or {}, sample.get("metadata") or {}
    output, failed = sample.get("output") or {}, sample.get("error") is not None
    usage, target = output.get("usage") or {}, sample.get("target")
    text = None if failed else str(output.get("completion") or "")
    row = {
        "id": str(sample["id"]),
        "task": str(head["eval"].get("task") or ""),
        "gold": str(target[0] if isinstance(target, list) and target else target),
        "prompt": _asked(sample.get("input")),
        "text": text,
        "reject": "missing" if failed else "",
        "correct": None if failed or not scores else _grade(next(iter(scores.values())), where),
        "latency_s": output.get("time"),
    }
    # With a cache in play, providers disagree on whether its tokens are a part of the input: then nothing is said.
    cached = usage.get("input_tokens_cache_read") or usage.get("input_tokens_cache_write")
    if usage and not cached:
        row["usage"] = {"prompt": usage.get("input_tokens"), "completion": usage.get("output_tokens")}
    return row | {name: metadata[name] for name in ("lang", "cluster") if isinstance(metadata.get(name), str)}


def _grade(score: dict[str, Any], where: str) -> float:
    value = score.get("value")
    if isinstance(value, str) and value in GRADES:
        return GRADES[value]
    if isinstance(value, bool | int | float) and 0 <= value <= 1:
        return float(value)
    raise DataError(f"the score {value!r:.40} is no number between 0 and 1", where=where)


def _asked(value: Any) -> str:
    """The question: a text, or the last message of a chat."""
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    return value if isinstance(value, str) else ""


def _merged(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The first of an item's epochs, with the mean of all their scores."""
    first = next((row for row in rows if row["text"] is not None), rows[0])
    return first | {"correct": sum(row["correct"] or 0.0 for row in rows) / len(rows)} if len(rows) > 1 else first
