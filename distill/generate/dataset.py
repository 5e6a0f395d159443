"""The data set: rows split by cluster into train and holdout, written as byte-reproducible Parquet."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from distill import prompts
from distill.records import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROW_GROUP = 10_000


def split(clusters: Iterable[str], share: float, seed: int) -> set[str]:
    """The clusters held out: those whose seeded hash lies under ``share``, so that a growing data set moves none.

    With a share and two clusters or more, neither side is left empty.
    """
    drawn = sorted({name: prompts.order(seed, f"holdout\0{name}") for name in clusters}.items(), key=lambda x: x[1])
    if not share or len(drawn) < 2:
        return set()
    held = sum(int.from_bytes(digest[:8], "big") < share * 2**64 for _, digest in drawn)
    return {name for name, _ in drawn[: min(max(held, 1), len(drawn) - 1)]}


def parquet(rows: Sequence[dict[str, Any]], rejected: bool = False) -> bytes:
    """The rows as a Parquet file, sorted by id and sample. Equal rows give equal bytes; nothing in it is a time.

    ``rejected`` adds the column ``reason``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    ordered = sorted(rows, key=lambda row: (row["id"], row["sample"]))
    text = pa.string()
    fields = {
        "id": text,
        "sample": pa.int32(),
        "cluster": text,
        "lang": text,
        "messages": pa.list_(pa.struct([("role", text), ("content", text)])),
        "answer": text,
        "reasoning": text,
        "teacher": text,
        "request_key": text,
        "score": pa.float64(),
        "meta": text,
    }
    if rejected:
        fields["reason"] = text
    table = pa.table({name: pa.array([row[name] for row in ordered], kind) for name, kind in fields.items()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=ROW_GROUP, compression="zstd", version="2.6", write_statistics=False)
    return buffer.getvalue()


def meta_text(row: dict[str, Any]) -> str:
    """The prompt row's fields as JSON text with sorted keys."""
    return canonical_json(row).decode("utf-8")
