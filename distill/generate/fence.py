"""Text of others inside a prompt of ours, marked so that it cannot pass for a part of the order.

The mark is a hash of the text itself: no text can hold its own mark, so none can close the fence early. Markers of chat
templates, which an engine in this process would read as the end of a turn, are broken up.
"""

from __future__ import annotations

import hashlib
import re

MARKERS = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>|</?think>", re.IGNORECASE)


def fenced(text: str, name: str, seed: int) -> str:
    """The text between two marks that name it; half a surrogate pair, which cannot be sent, becomes a question mark."""
    text = MARKERS.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
    text = text.encode("utf-8", "replace").decode("utf-8")
    mark = hashlib.sha256(f"{seed}\0{name}\0{text}".encode()).hexdigest()[:16]
    return f"<{name} {mark}>\n{text}\n</{name} {mark}>"
