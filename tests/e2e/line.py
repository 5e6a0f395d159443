"""A whole run on a tiny model and a fake teacher: seconds, no download. Shared by the end-to-end tests."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LANGUAGES = ("en", "fr")
LABELS = ("red", "blue")
THINGS = {
    "red": ("rose", "brick", "cherry", "ruby", "tomato", "fire"),
    "blue": ("sky", "sea", "jeans", "ink", "whale", "ice"),
}

CONFIG = """
name: tiny
seed: 3
prompts:
  path: train.jsonl
  system: "Name the colour. Answer with one word: red or blue."
  template: "{{ thing }} ({{ lang }})"
  cluster_field: thing
  lang_field: lang
  choices: [red, blue]
teacher: {kind: fake, model: fake-1}
generate: {max_new_tokens: 8, holdout: 0.2}
student:
  model: "path:student"
  dtype: float32
  adapter: {r: 4, alpha: 8}
train: {lr: 1e-2, epochs: 2, batch_size: 8, micro_batch_size: 4, checkpoint_every_s: 0, threads: 1}
eval:
  tasks:
    - {kind: classification, path: test.jsonl, cluster_field: thing, lang_field: lang, gold_field: label}
  draws: 1000
  serving: {eur_per_hour: 0.05, utilisation: 0.5, source: "a test"}
release: {version: 0.1.0, summary: "Names colours."}
"""


def rows(split: str, number: int = 24) -> list[dict[str, str]]:
    """Parallel rows: every thing in every language."""
    made = []
    for index in range(number // len(LANGUAGES)):
        label = LABELS[index % len(LABELS)]
        names = THINGS[label]
        thing = f"{names[index // 2 % len(names)]} {split} {index}"
        made += [{"id": f"{thing}:{lang}", "thing": thing, "lang": lang, "label": label} for lang in LANGUAGES]
    return made


def write_run(folder: Path, student: Path, text: str = CONFIG) -> Path:
    """Data, configuration and a link to the student in ``folder``; the configuration's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        lines = "".join(json.dumps(row) + "\n" for row in rows(split))
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    if not (folder / "student").exists():
        (folder / "student").symlink_to(student)
    (folder / "run.yaml").write_text(text, encoding="utf-8")
    return folder / "run.yaml"


def distill(*argv: str, cwd: Path, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in its own process."""
    return subprocess.run(
        [sys.executable, "-m", "distill", *argv],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
    )


def sends(db: Path) -> dict[str, int]:
    """How often each request key was sent."""
    return dict(
        _rows(db, "SELECT lower(hex(key)), COUNT(*) FROM attempt JOIN request ON request.id = request_id GROUP BY key")
    )


def answered(db: Path) -> set[str]:
    """Keys with a committed answer."""
    joined = "response JOIN attempt ON attempt.id = attempt_id JOIN request ON request.id = request_id"
    return {key for (key,) in _rows(db, f"SELECT lower(hex(key)) FROM {joined}")}


def _rows(db: Path, query: str) -> list[tuple]:
    if not db.exists():
        return []
    with sqlite3.connect(f"file:{db}?mode=ro", uri=True) as connection:
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError:  # killed before the tables were made
            return []
