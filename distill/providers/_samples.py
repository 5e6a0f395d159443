"""One response with several choices, as one response for each: every sample is a row of its own in the store."""

from __future__ import annotations

import json
from typing import Any


def apart(raw: bytes, wanted: int) -> list[bytes]:
    """At most ``wanted`` bodies with one choice each; their usages add up to that of the response.

    The prompt was paid once, so the first body has all of it. Bytes that cannot be taken apart come back whole.
    """
    try:
        body = json.loads(raw)
        choices = body["choices"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return [raw]
    if not isinstance(choices, list) or not choices or body.get("error"):
        return [raw]
    choices = choices[:wanted]
    usages = _shares(body.get("usage"), len(choices))
    return [
        json.dumps(body | {"choices": [choice], "usage": usage}, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "surrogatepass"
        )
        for choice, usage in zip(choices, usages, strict=True)
    ]


def _shares(usage: Any, count: int) -> list[Any]:
    """``usage`` in ``count`` parts. What is no usage is left to the parser, which knows what to do with it."""
    if not isinstance(usage, dict) or not isinstance(total := usage.get("completion_tokens"), int) or total < 0:
        return [usage] * count
    size, more = divmod(total, count)
    first = usage | {"completion_tokens": size + (more > 0)}
    return [
        first if number == 0 else {"prompt_tokens": 0, "completion_tokens": size + (number < more)}
        for number in range(count)
    ]
