"""Text of others inside a prompt of ours, marked so that it cannot pass for a part of the order.

The mark is a hash of the text itself: no text can hold its own mark, so none can close the fence early.
"""

from __future__ import annotations

import hashlib


def fenced(text: str, name: str, seed: int) -> str:
    """The text between two marks that name it; half a surrogate pair, which cannot be sent, becomes a question mark."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    mark = hashlib.sha256(f"{seed}\0{name}\0{text}".encode()).hexdigest()[:16]
    return f"<{name} {mark}>\n{text}\n</{name} {mark}>"
