"""A byte-level BPE tokenizer.json as the lists a GGUF file holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5

# How text is cut before merging -> llama.cpp's name for it. Another way of cutting would give other tokens, so only
# what is known exactly is written; both spellings of the same cut are listed where model families differ.
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


@dataclass(frozen=True)
class Vocabulary:
    """Lists by token id; ``splitter`` is llama.cpp's name of how text is cut."""

    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    splitter: str


def read(path: Path, size: int) -> Vocabulary:
    """The vocabulary of a tokenizer.json, filled up to ``size`` ids. ConfigError for a kind that is not supported."""
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    model = values["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        kind = "SentencePiece" if model.get("byte_fallback") else model.get("type")
        raise ConfigError(
            f"a {kind} tokenizer is not written as GGUF here; supported: byte-level BPE", where="release.targets"
        )
    splitter = _splitter(values.get("pre_tokenizer") or {})
    tokens: dict[int, tuple[str, int]] = {number: (token, NORMAL) for token, number in model["vocab"].items()}
    for added in values.get("added_tokens", []):
        tokens[added["id"]] = (added["content"], CONTROL if added.get("special") else USER_DEFINED)
    listed = [tokens.get(number, (f"[PAD{number}]", UNUSED)) for number in range(max(size, max(tokens) + 1))]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model.get("merges", [])]
    return Vocabulary(tuple(token for token, _ in listed), tuple(kind for _, kind in listed), tuple(merges), splitter)


def _splitter(value: dict[str, Any]) -> str:
    steps = value.get("pretokenizers", [value])
    patterns = [step["pattern"].get("Regex") for step in steps if step.get("type") == "Split"]
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True) and not steps[0].get("add_prefix_space"):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and steps[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
        if patterns == [QWEN2]:
            return "qwen2"
        if patterns == [LLAMA3]:
            return "llama-bpe"
    raise ConfigError(
        f"the tokenizer cuts text in a way that has no known name in llama.cpp ({', '.join(map(str, kinds))})",
        where="release.targets",
        next="leave the target gguf out",
    )
