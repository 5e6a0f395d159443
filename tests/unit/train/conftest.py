"""A run folder with a small data set, made on the spot."""

from __future__ import annotations

import json

import pytest

from distill.artifacts import RunFolder
from distill.config import LIVE_METHODS, RunConfig, validate

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"]
SYSTEM = "Answer with the section of the package."


def records(count: int, first: int = 0) -> list[dict]:
    """Rows of different lengths under one system message."""
    return [
        {
            "id": f"r{n}",
            "cluster": f"c{n}",
            "lang": "en",
            "messages": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": " ".join(WORDS[: 1 + n % 5]) + f" {n}"},
            ],
            "answer": WORDS[n % 4],
            "reasoning": "because",
            "teacher": "fake",
            "request_key": f"key{n}",
            "meta": "{}",
        }
        for n in range(first, first + count)
    ]


def write_rows(path, rows) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)


def make_config(student, **train) -> RunConfig:
    """A configuration whose student is a local folder."""
    adapter = train.pop("adapter", {"r": 4, "alpha": 8})
    method = train.get("method", "sft")
    live = (
        {"kind": "transformers", "model": "path:none"} if method in LIVE_METHODS else {"kind": "fake", "model": "fake"}
    )
    teacher = train.pop("teacher", live)
    generate = {"signals_top_k": 4} if method == "offline_topk" else {}
    values = {
        "name": "t",
        "seed": train.pop("seed", 7),
        "prompts": {"path": "none.jsonl"},
        "teacher": teacher,
        "generate": generate,
        "student": {"model": f"path:{student}", "adapter": adapter, "max_length": train.pop("max_length", 256)},
        "train": {"lr": 1e-2, "batch_size": 6, "micro_batch_size": 2, "threads": 1, "checkpoint_every_s": 0} | train,
    }
    return validate(RunConfig, values, "test")


@pytest.fixture
def run_folder(tmp_path):
    """A run folder with 24 training rows and 4 held-out rows."""
    folder = RunFolder(tmp_path / "run")
    write_rows(folder.train_data, records(24))
    write_rows(folder.holdout_data, records(4, first=100))
    return folder


@pytest.fixture(scope="session")
def taught_teacher(tiny_teacher, tmp_path_factory):
    """A tiny teacher that knows the answers: all its weights were trained on them."""
    from distill.train import run

    folder = RunFolder(tmp_path_factory.mktemp("taught") / "run")
    write_rows(folder.train_data, records(24))
    run.run(make_config(tiny_teacher, adapter={"kind": "none"}, epochs=14, lr=1e-2, micro_batch_size=6), folder)
    return folder.student


def metrics(folder: RunFolder) -> list[dict]:
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]
