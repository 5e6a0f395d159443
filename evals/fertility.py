"""Tokens per word and EUR per 1,000 words, language by language: what a tokenizer makes of each.

Tokens of two tokenizers cannot be compared, and French or Greek takes more of them than English: words can. A word is a
longest run of letters, marks and digits (Unicode categories L, M, N), apostrophes between two letters included; a
hyphen ends it. Chinese, Japanese, Thai, Lao, Khmer, Burmese and Tibetan put no spaces between words: characters only.
"""

from __future__ import annotations

import math
import unicodedata
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from evals.analysis import Arm
    from evals.samples import Sample

APOSTROPHES = "'\u2019"
UNSPACED = (
    (0x0E00, 0x109F),  # Thai, Lao, Tibetan, Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),  # Han, extension A
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),  # Han, compatibility
    (0x20000, 0x3FFFF),  # Han, further extensions
)
FEWEST = 8
UNSURE = 0.1
"""Largest standard error of a slope, as a share of it."""

Cell = tuple[str, str]
"""Task and language."""


def words(text: str) -> int | None:
    """Words of a text; None where most letters are of a script without spaces."""
    found = runs = unspaced = 0
    inside = False
    for place, sign in enumerate(text):
        part = unicodedata.category(sign)[0] in "LMN"
        found += part
        unspaced += part and any(low <= ord(sign) <= high for low, high in UNSPACED)
        if part and not inside:
            runs += 1
        joins = inside and sign in APOSTROPHES and text[place + 1 : place + 2].isalpha()
        inside = part or joins
    return None if 2 * unspaced > found else runs


def bare(texts: Sequence[str]) -> list[str]:
    """The texts without what all of them begin or end with: the instruction in a template, no user's text.

    Cut back to the nearest blank, so that no word is cut in two. One text alone stays as it is.
    """
    if len(set(texts)) < 2:
        return list(texts)
    start = _upto_blank(texts)
    rest = [text[start:] for text in texts]
    end = _upto_blank([text[::-1] for text in rest])
    return [text[: len(text) - end] for text in rest]


def _upto_blank(texts: Sequence[str]) -> int:
    """Length of what all begin with, its last blank included."""
    low, high = min(texts), max(texts)  # the two that differ the earliest
    same = next((n for n, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return next((n for n in range(same, 0, -1) if low[n - 1].isspace()), 0)


def report(
    arms: Sequence[Arm], samples: Mapping[str, Sequence[Sample]], prices: Mapping[str, Mapping[str, Any]], first: str
) -> list[dict[str, Any]]:
    """One row per language: words of the items as ``first`` was asked them, and what each arm pays to read them.

    ``prices``: EUR per million tokens of each arm, `input` and `blended`. Tokens are counted by the arm's tokenizer
    where it is here, else the slope of its prompt tokens on its words says how many a further word takes. No row
    where no prompt is known.
    """
    if not any(sample.prompt for sample in samples[first]):
        return []
    found = {arm.name: _cells(samples[arm.name]) for arm in arms}
    rows = []
    for lang in sorted({lang for _, lang in found[first]}):
        counts = [_total(texts) for (_, tongue), (_, texts) in found[first].items() if tongue == lang]
        row: dict[str, Any] = {
            "lang": lang,
            "words": None if None in counts else sum(count or 0 for count in counts),
            "characters": sum(
                len(t) for (_, tongue), (_, texts) in found[first].items() if tongue == lang for t in texts
            ),
            "arms": {},
        }
        for arm in arms:
            mine = [cell for (_, tongue), cell in found[arm.name].items() if tongue == lang]
            row["arms"][arm.name] = _priced(per_word(arm, mine), prices[arm.name])
        rows.append(row)
    return rows


def _cells(samples: Sequence[Sample]) -> dict[Cell, tuple[list[Sample], list[str]]]:
    """(task, language) -> its samples and their users' texts."""
    tasks: dict[str, list[Sample]] = {}
    for sample in samples:
        tasks.setdefault(sample.task, []).append(sample)
    cells: dict[Cell, tuple[list[Sample], list[str]]] = {}
    for task, mine in tasks.items():
        for sample, text in zip(mine, bare([s.prompt for s in mine]), strict=True):
            rows, texts = cells.setdefault((task, sample.lang), ([], []))
            rows.append(sample)
            texts.append(text)
    return cells


def _total(texts: Iterable[str]) -> int | None:
    counts = [words(text) for text in texts]
    return None if None in counts else sum(count or 0 for count in counts)


def per_word(arm: Arm, cells: Sequence[tuple[Sequence[Sample], Sequence[str]]]) -> float | None:
    """Tokens per word of one language's texts; None where neither a tokenizer nor the records tell."""
    texts = [text for _, some in cells for text in some]
    total = _total(texts)
    if not total:
        return None
    if arm.count is not None:
        return sum(arm.count(text) for text in texts) / total
    known = [
        [(words(text) or 0, sample.prompt_tokens) for sample, text in zip(rows, some, strict=True)]
        for rows, some in cells
    ]
    if any(tokens is None for cell in known for _, tokens in cell):
        return None
    return slope([[(count, tokens or 0) for count, tokens in cell] for cell in known])


def slope(groups: Sequence[Sequence[tuple[float, float]]]) -> float | None:
    """Tokens that one more word takes, by least squares with a constant part of each group (its instruction).

    None with fewer than 8 items beyond the constants, without two lengths, or with a standard error above a tenth.
    """
    free = sum(len(group) - 1 for group in groups if group)
    xx = xy = yy = 0.0
    for group in groups:
        if not group:
            continue
        x, y = fmean(p[0] for p in group), fmean(p[1] for p in group)
        xx += sum((p[0] - x) ** 2 for p in group)
        xy += sum((p[0] - x) * (p[1] - y) for p in group)
        yy += sum((p[1] - y) ** 2 for p in group)
    if free < FEWEST or xx <= 0 or xy <= 0:
        return None
    found = xy / xx
    error = math.sqrt(max(0.0, yy - found * xy) / (free - 1) / xx)
    return found if error <= UNSURE * found else None


def _priced(tokens: float | None, price: Mapping[str, Any]) -> dict[str, float | None]:
    """A user's text is read, so that it costs input tokens; where only a blended price is known, that."""
    each = price["input"] if price["input"] is not None else price["blended"]
    eur = None if tokens is None or each is None else 1000 * tokens * each / 1e6
    return {"tokens_per_word": tokens, "eur_per_1000_words": eur}
