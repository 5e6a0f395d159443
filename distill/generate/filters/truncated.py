"""Drop answers that were cut off: by the token limit, or by what is left open at their end."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from distill.generate.filters._base import FilterConfig

FENCE = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)
LISTED = re.compile(r"^\s*([-*+#>|•]|\d+[.)])")
GOES_ON = tuple(",:([{/&=–—")
ENDS = frozenset(".!?…;·。\"'»”“’)]}>`*_|%°")


class Config(FilterConfig):
    """What counts as cut off."""

    kind: Literal["truncated"] = "truncated"
    min_words: Annotated[int, Field(ge=1)] = 20
    """An answer of this many words or more must end like a sentence. Shorter ones may be a name or a label."""


def keep(rows: list[dict[str, Any]], config: Config) -> list[str]:
    """``token_limit``, ``open_code_block``, ``open_json``, ``mid_sentence`` or ""."""
    return [_judge(row["answer"].strip(), row.get("finish", ""), config) for row in rows]


def _judge(answer: str, finish: str, config: Config) -> str:
    if finish == "length":
        return "token_limit"
    if len(FENCE.findall(answer)) % 2:
        return "open_code_block"
    if answer.startswith(("{", "[")) and not answer.endswith(("}", "]")) and answer.count("{") > answer.count("}"):
        return "open_json"
    last = answer.rpartition("\n")[2]
    if answer.endswith(GOES_ON) and not LISTED.match(last):
        return "mid_sentence"
    if len(answer.split()) < config.min_words or LISTED.match(last) or not answer:
        return ""
    # A last line of a few words without a full stop is a signature or a heading, not a torn sentence.
    torn = answer[-1] not in ENDS and (answer[-1].isalnum() or answer[-1] == "-") and len(last.split()) >= 6
    return "mid_sentence" if torn else ""
