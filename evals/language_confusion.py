"""Answers in another language than asked for: of the whole answer, and of single lines of it.

Marchisio et al. 2024 (arXiv 2406.20052) call it language confusion. Their classifier is not used: distill/languages.py
speaks up only when the evidence is clear, so that the shares are lower bounds.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, Any

from distill import languages
from evals.stats import accuracy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evals.samples import Sample

SCRIPTS = {"el": "GREEK", "bg": "CYRILLIC"}
LETTERS = 20
"""Fewer letters of another script may be a name."""


def confusion(
    candidate: Sequence[Sample], reference: Sequence[Sample], clusters: Sequence[Any], texts: Sequence[str]
) -> dict[str, Any] | None:
    """Of both systems: answers whose language can be told, and those that are (or hold a line) in another.

    ``texts``: the tasks whose answers are text. None when no answer of either system is long enough to tell.
    """
    index = [n for n, sample in enumerate(reference) if sample.task in texts]
    wanted = {n: asked_for(reference[n]) for n in index}
    found = {
        who: _rates([rows[n] for n in index], [wanted[n] for n in index], [clusters[n] for n in index])
        for who, rows in (("candidate", candidate), ("reference", reference))
    }
    return found if any(rates["checked"] for rates in found.values()) else None


def asked_for(sample: Sample) -> str:
    """Code of the language the answer should have: the item's, unless its gold answer is clearly in another one.

    "" when neither tells. A translation is asked for in the language of its gold, not of its item.
    """
    if not sample.lang:
        return languages.language_of(sample.gold)
    return languages.other_language(sample.gold, sample.lang) or sample.lang


def _rates(samples: Sequence[Sample], wanted: Sequence[str], clusters: Sequence[Any]) -> dict[str, Any]:
    checked = [n for n, sample in enumerate(samples) if checkable(sample.text, wanted[n])]
    whole = [in_another(samples[n].text, wanted[n]) for n in checked]
    lines = [
        other or any(in_another(line, wanted[n]) for line in lines_of(samples[n].text))
        for n, other in zip(checked, whole, strict=True)
    ]
    inside = [clusters[n] for n in checked]
    return {
        "checked": len(checked),
        "wrong": sum(whole),
        "share": accuracy(whole, inside).as_dict() if checked else None,
        "wrong_line": sum(lines),
        "share_line": accuracy(lines, inside).as_dict() if checked else None,
    }


def checkable(text: str, wanted: str) -> bool:
    """Whether the language of a text can be told: enough words, or enough letters of a script of its own."""
    if not wanted or not languages.known(wanted):
        return False
    return len(languages.words_of(text)) >= languages.MIN_WORDS or foreign_script(text, wanted)


def in_another(text: str, wanted: str) -> bool:
    """Whether a text is clearly in another language, or in a script that the language does not use."""
    return foreign_script(text, wanted) or bool(languages.other_language(text, wanted))


def foreign_script(text: str, wanted: str) -> bool:
    """Most letters, and at least LETTERS of them, belong to another script: no word list is needed for that."""
    letters = [char for char in languages.CODE.sub(" ", text) if char.isalpha()]
    own = SCRIPTS.get(wanted[:2].lower(), "LATIN")
    scripts = Counter("own" if char < "\x80" and own == "LATIN" else _script(char) for char in letters)
    strange = len(letters) - scripts["own"] - scripts[own]
    return strange >= LETTERS and 2 * strange > len(letters)


def _script(char: str) -> str:
    """First word of the letter's Unicode name: LATIN, GREEK, CYRILLIC, CJK, ARABIC ..."""
    return unicodedata.name(char, "").partition(" ")[0]


def lines_of(text: str) -> list[str]:
    """The lines of a text, code blocks left out."""
    return [line for line in languages.CODE.sub(" ", text).splitlines() if line.strip()]
