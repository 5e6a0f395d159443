"""When two texts are the same to a reader: one form of case, apostrophes, blanks and compatibility characters."""

from __future__ import annotations

import unicodedata

_SAME = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'", "ş": "ș", "ţ": "ț", "\u00ad": ""})


def folded(text: str) -> str:
    """Compatibility-normalised, without case, one kind of apostrophe, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().translate(_SAME).split())
