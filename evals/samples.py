"""Per-item records: the only truth a report is made of. Parquet or JSONL in, Parquet out, strictly paired.

A record that someone else wrote needs `id` and either `text` with `gold`, or `correct`. Anything that is not known
is None and stays unknown: it never becomes 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from distill.artifacts import write_bytes
from distill.errors import DataError
from evals.foreign import translated
from evals.tasks._base import normalised

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SILENT = ("empty", "null_content", "content_filter")
"""The system answered, and said nothing."""
WHOLE = ("", "truncated", *SILENT)
SUFFIXES = (".jsonl", ".parquet", ".eval", ".json")


@dataclass(frozen=True, slots=True)
class Sample:
    """What one system answered to one item. ``reject``: why the answer could not be used, "" when it could."""

    id: str
    task: str
    cluster: str
    lang: str
    gold: str
    prompt: str
    text: str
    predicted: str
    """The answer in the form that is compared; "" when it is no legal answer."""
    correct: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    latency_s: float | None = None
    finish: str = ""
    reject: str = ""
    request_key: str = ""
    cost_nano: int | None = None
    """Billionths of a euro."""
    confidence: float | None = None
    """Mean probability per token of the answer, 0..1."""
    slices: dict[str, str] = field(default_factory=dict)
    """Field -> value, by which the report tells items apart."""

    @property
    def tokens(self) -> int | None:
        """Prompt and completion tokens."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens

    @property
    def broken(self) -> bool:
        """Its call failed, or nothing was recorded: what the system would have said is not known."""
        return self.reject not in WHOLE

    @property
    def drawn_with(self) -> str:
        """What was sampled together: a declared cluster, also across tasks (one passage in many languages)."""
        return self.cluster if self.cluster != self.id else f"{self.task}\x1f{self.id}"


TYPES = {"correct": "float64", "latency_s": "float64", "confidence": "float64"} | dict.fromkeys(
    ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_nano"), "int64"
)


def write(path: Path, samples: Sequence[Sample], metadata: Mapping[str, Any]) -> None:
    """Write Parquet, one row per item; ``metadata`` goes into the file's schema as JSON under `alambic`."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f.name for f in fields(Sample)]
    schema = pa.schema(
        [(name, getattr(pa, TYPES.get(name, "string"))() if name in TYPES else pa.string()) for name in names]
    )
    table = pa.Table.from_pylist([_storable(asdict(s)) for s in samples], schema=schema)
    table = table.replace_schema_metadata({"alambic": json.dumps(metadata, sort_keys=True)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())


def _storable(row: dict[str, Any]) -> dict[str, Any]:
    """Text that UTF-8 can hold: a lone surrogate in an answer becomes its escape."""
    row = {**row, "slices": json.dumps(row["slices"], sort_keys=True) if row["slices"] else None}
    return {k: v.encode("utf-8", "backslashreplace").decode() if isinstance(v, str) else v for k, v in row.items()}


Score = Callable[[Mapping[str, Any]], float | None]


def read(path: Path, task: str = "", score: Score | None = None) -> list[Sample]:
    """Samples of a Parquet or JSONL file, ours or anyone's. Raises DataError with the row's number.

    ``score(row)`` is used where a row has no `correct`; where it says None, gold and text must be equal up to case,
    blanks and punctuation.
    """
    rows = translated(read_rows(path), path.name)
    if not rows:
        raise DataError("the file holds no rows", where=str(path))
    return [sample_of(row, f"{path}, row {n}", task, score) for n, row in enumerate(rows, start=1)]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows as they are in the file; logs of inspect-ai as rows of ours."""
    if path.suffix in (".eval", ".json"):
        from evals import inspect_logs

        return inspect_logs.read(path)
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            return list(pq.read_table(path).to_pylist())
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise DataError(f"cannot read: {error.strerror or error}", where=str(path)) from None
    except ValueError as error:
        raise DataError(f"not a readable {path.suffix} file: {str(error)[:120]}", where=str(path)) from None
    return [_json_row(line, f"{path}:{n}") for n, line in enumerate(lines, start=1) if line.strip()]


def _json_row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError("not JSON", where=where, next="one JSON object in each line") from None
    if not isinstance(row, dict):
        raise DataError("not a JSON object", where=where)
    return row


def same(gold: str, text: str) -> float:
    """1 when the texts are equal up to case, blanks and outer punctuation."""
    return float(normalised(text) != "" and normalised(text) == normalised(gold))


def sample_of(row: dict[str, Any], where: str, task: str = "", score: Score | None = None) -> Sample:
    """One record out of a row. A null answer is a missing one: it counts as wrong and is counted."""
    identity = row.get("id")
    if identity is None or identity == "":
        raise DataError("the field 'id' is missing", where=where, next="every row names its item")
    text, gold = row.get("text"), row.get("gold")
    reject = str(row.get("reject") or ("" if text is not None or "correct" in row else "missing"))
    if row.get("correct") is not None:
        correct = _number(row["correct"], "correct", where, high=1.0)
    elif "correct" in row:
        correct, reject = 0.0, reject or "missing"
    elif score and (found := score(row)) is not None:
        correct = found
    elif gold is None:
        raise DataError("needs 'correct', or 'text' with 'gold'", where=where)
    else:
        correct = same(str(gold), str(text)) if text is not None else 0.0
    if reject and reject != "truncated":
        correct = 0.0
    usage = row.get("usage") if isinstance(row.get("usage"), dict) else {}
    return Sample(
        id=str(identity),
        task=str(row.get("task") or task),
        cluster=str(row["cluster"]) if row.get("cluster") not in (None, "") else str(identity),
        lang=str(row.get("lang") or ""),
        gold="" if gold is None else str(gold),
        prompt=str(row.get("prompt") or ""),
        text="" if text is None else str(text),
        predicted=str(row["predicted"]) if row.get("predicted") is not None else normalised(str(text or "")),
        correct=correct,
        prompt_tokens=_count(row, usage, where, "prompt_tokens", "prompt"),
        completion_tokens=_count(row, usage, where, "completion_tokens", "completion"),
        cached_tokens=_count(row, usage, where, "cached_tokens", "cached"),
        latency_s=None if row.get("latency_s") is None else _number(row["latency_s"], "latency_s", where),
        finish=str(row.get("finish") or ""),
        reject=reject,
        request_key=str(row.get("request_key") or ""),
        cost_nano=_cost(row, where),
        confidence=None if row.get("confidence") is None else _number(row["confidence"], "confidence", where, 1.0),
        slices=_slices(row.get("slices"), where),
    )


def _slices(value: Any, where: str) -> dict[str, str]:
    """Field -> value; our own files hold it as JSON."""
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except ValueError:
            value = 0
    if not value and value != 0:
        return {}
    if not isinstance(value, dict):
        raise DataError(f"slices must be an object of fields, got {value!r:.60}", where=where)
    return {str(name): str(found) for name, found in value.items() if found is not None and found != ""}


def _number(value: Any, name: str, where: str, high: float = 1e15) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= high:  # NaN fails too
        raise DataError(f"{name} must be a number from 0 to {high:g}, got {value!r:.60}", where=where)
    return float(value)


def _count(row: dict[str, Any], usage: Any, where: str, *names: str) -> int | None:
    """The first of the names that the row or its usage holds: a whole number, 0 or more."""
    found = [
        source[name] for name in names for source in (row, usage) if source.get(name) is not None and name != "prompt"
    ]
    found = found or [usage[name] for name in names if usage.get(name) is not None]
    if not found:
        return None
    if isinstance(found[0], bool) or not isinstance(found[0], int) or found[0] < 0:
        raise DataError(f"{names[0]} must be a whole number, got {found[0]!r}", where=where)
    return int(found[0])


def _cost(row: dict[str, Any], where: str) -> int | None:
    """`cost_nano` as it is, or `cost` / `cost_eur` in euros."""
    if row.get("cost_nano") is not None:
        return round(_number(row["cost_nano"], "cost_nano", where))
    euros = row.get("cost_eur", row.get("cost"))
    return None if euros is None else round(_number(euros, "cost", where, 1e6) * 1e9)


def check_paired(arms: Mapping[str, Sequence[Sample]]) -> None:
    """Every arm has every item once, in any order. Raises DataError: a silent inner join would flatter someone."""
    first_name, *_ = arms
    keys: dict[str, set[tuple[str, str]]] = {}
    for name, samples in arms.items():
        keys[name] = {(s.task, s.id) for s in samples}
        if len(keys[name]) != len(samples):
            seen: set[tuple[str, str]] = set()
            twice = next(k for k in ((s.task, s.id) for s in samples) if k in seen or seen.add(k))  # type: ignore[func-returns-value]
            raise DataError(f"the item {twice[1]!r} occurs twice", where=name)
    for name, found in keys.items():
        missing, extra = keys[first_name] - found, found - keys[first_name]
        if missing or extra:
            example = sorted(missing or extra)[0][1]
            raise DataError(
                f"not the items of {first_name}: {len(missing)} missing, {len(extra)} more, for example {example!r}",
                where=name,
                next="answer the same items with every system; give an item without an answer the text null",
            )


def aligned(arms: Mapping[str, Sequence[Sample]]) -> dict[str, list[Sample]]:
    """The arms in the item order of the first one. Raises DataError when they are not paired."""
    check_paired(arms)
    order = [(s.task, s.id) for s in next(iter(arms.values()))]
    found = {name: {(s.task, s.id): s for s in samples} for name, samples in arms.items()}
    return {name: [found[name][key] for key in order] for name in arms}
