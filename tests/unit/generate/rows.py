"""Candidate rows for the tests of filters and verifiers."""

from __future__ import annotations

from typing import Any


def row(answer: str, prompt: str = "A question?", number: int = 0, **fields: Any) -> dict[str, Any]:
    """A row as the generate stage makes it."""
    return {
        "id": f"r{number}",
        "sample": 0,
        "cluster": f"c{number}",
        "lang": "",
        "messages": [{"role": "user", "content": prompt}],
        "answer": answer,
        "reasoning": "",
        "finish": "stop",
        "reject": "",
        "teacher": "m",
        "request_key": f"{number:064x}",
        "meta": {},
        **fields,
    }
