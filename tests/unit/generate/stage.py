"""The generate stage on a fake teacher, for the tests that run it as a whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from distill.artifacts import open_run
from distill.generate import run

if TYPE_CHECKING:
    from pathlib import Path

    from distill import config as configuration

REPLIES = ["First answer.", "Second answer.", "I'm sorry, but I can't help with that.", "<think>hm</think>Third."]


def write_prompts(path: Path, count: int = 40) -> None:
    """Rows r0, r1 ...; two rows make a cluster."""
    rows = [{"id": f"r{n}", "prompt": f"Question {n}?", "doc": f"d{n // 2}", "lang": "en"} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def generate(config: configuration.RunConfig, path: Path) -> dict:
    """Run the stage; everything it wrote."""
    with open_run(path) as folder:
        outputs = run.run(config, folder)
        assert all(output.exists() for output in outputs)
        tables = {f.stem: pq.read_table(f).to_pylist() for f in (path / "data").glob("*.parquet")}
        return {**tables, "card": json.loads(folder.data_card.read_text("utf-8")), "outputs": outputs}
