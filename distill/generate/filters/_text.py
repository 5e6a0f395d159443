"""What the text filters agree on: what a word is, and when two texts are the same."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from distill.folding import folded

WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words, folded; punctuation and spacing do not count."""
    return WORD.findall(folded(text))


def fingerprint(parts: list[str]) -> bytes:
    """Sixteen bytes that stand for these words in this order."""
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def question(row: dict[str, Any]) -> str:
    """The text of the row's last user turn."""
    return str(next((turn["content"] for turn in reversed(row["messages"]) if turn["role"] == "user"), ""))


def conversation(row: dict[str, Any]) -> str:
    """All that was sent, system message included."""
    return "\n".join(str(turn["content"]) for turn in row["messages"])
