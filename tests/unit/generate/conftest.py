"""A folder to generate in."""

from __future__ import annotations

import json

import pytest

from distill import config as configuration
from tests.unit.generate.stage import REPLIES, write_prompts


@pytest.fixture
def work(tmp_path):
    """A folder with prompts.jsonl, and a function that loads a configuration with some values changed.

    A section's values are added to the usual ones; a value of None takes one away.
    """
    write_prompts(tmp_path / "prompts.jsonl")
    (tmp_path / "student").mkdir()
    (tmp_path / "student/README.md").write_text("---\nlicense: apache-2.0\n---\n")

    def load(**sections) -> configuration.RunConfig:
        values = {
            "name": "r",
            "seed": 1,
            "prompts": {"path": "prompts.jsonl", "cluster_field": "doc", "lang_field": "lang"},
            "teacher": {"kind": "fake", "replies": REPLIES},
            "generate": {"max_reject_rate": 0.9},
            "student": {"model": "path:student"},
        }
        for section, changes in sections.items():
            if isinstance(changes, dict):
                merged = {**values.get(section, {}), **changes}
                values[section] = {name: value for name, value in merged.items() if value is not None}
            else:
                values[section] = changes
        (tmp_path / "c.yaml").write_text(json.dumps(values), "utf-8")
        return configuration.load(tmp_path / "c.yaml")

    return tmp_path, load
