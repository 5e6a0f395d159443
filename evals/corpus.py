"""BLEU and chrF2 of a whole translation set: from counts summed over its items, so that a bootstrap can sum again.

BLEU: Papineni et al. 2002 with sacrebleu's 13a tokens and exponential smoothing (Post 2018); chrF2: Popovic 2015. Both
equal sacrebleu's corpus scores. Shapes: N items, B draws, K counts.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from distill.progress import say
from evals.bootstrap import percentile, resampled_totals
from evals.stats import cluster_codes, cluster_sums
from evals.tasks.translation import BETA, ORDER, ngrams

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from evals.samples import Sample

    Floats = NDArray[np.float64]

WORDS = 4


def scores(
    samples: Mapping[str, Sequence[Sample]], tasks: Sequence[str], candidate: str, reference: str, draws: int, seed: int
) -> list[dict[str, Any]]:
    """Per translation task: BLEU and chrF2 (0..100) of every system, and candidate minus reference, with intervals."""
    words = _tokenizer() if tasks else None
    found = []
    for task in tasks:
        part = {name: [s for s in rows if s.task == task] for name, rows in samples.items()}
        clusters = [s.drawn_with for s in part[reference]]
        metrics: dict[str, tuple[Callable[[Sample], list[float]], Callable[[Floats], Floats]]] = {
            "chrf": (lambda s: chrf_counts(s.text, s.gold), chrf)
        }
        if words:
            metrics["bleu"] = (lambda s: bleu_counts(words(s.text), words(s.gold)), bleu)
        row: dict[str, Any] = {"task": task, "n": len(clusters), "arms": {n: {"bleu": None} for n in part}}
        row["difference"] = {"bleu": None}
        for metric, (count, score) in metrics.items():
            drawn = {
                name: _drawn([count(s) for s in rows], score, clusters, draws, seed) for name, rows in part.items()
            }
            number = len(set(clusters))
            for name, (point, again) in drawn.items():
                row["arms"][name][metric] = _numbers(percentile(point, again, number).as_dict())
            (c, c_again), (r, r_again) = drawn[candidate], drawn[reference]
            row["difference"][metric] = _numbers(percentile(c - r, c_again - r_again, number).as_dict())
        found.append(row)
    return found


def _drawn(
    counts: Sequence[Sequence[float]],
    score: Callable[[Floats], Floats],
    clusters: Sequence[Any],
    draws: int,
    seed: int,
) -> tuple[float, Floats]:
    """(score of all items, score of each draw [B]): the same seed draws the same clusters for every system."""
    import numpy as np

    counts_NK = np.asarray(counts, dtype=np.float64)
    codes, number = cluster_codes(clusters)
    sums_CK = np.stack([cluster_sums(column, codes, number) for column in counts_NK.T], axis=1)
    return float(score(counts_NK.sum(0)[None])[0]), score(resampled_totals(sums_CK, draws, seed))


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no infinity: an open end is null."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _tokenizer() -> Callable[[str], list[str]] | None:
    """sacrebleu's 13a words, or None without sacrebleu: BLEU is then left out."""
    try:
        from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
    except ImportError:
        say("eval: BLEU is left out: pip install 'alambic[eval]'")
        return None
    cut = Tokenizer13a()
    return lambda text: list(cut(text.rstrip()).split())


def bleu_counts(text: Sequence[str], reference: Sequence[str]) -> list[float]:
    """Lengths of both, then right and all n-grams of each order: 10 numbers."""
    found: list[float] = [len(text), len(reference)]
    for n in range(1, WORDS + 1):
        ours, theirs = (
            Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for words in (text, reference)
        )
        found += [(ours & theirs).total(), ours.total()]
    return found


def bleu(totals_BK: Floats) -> Floats:
    """Corpus BLEU of summed counts, [B], 0..100."""
    import numpy as np

    length, wanted = totals_BK[:, 0], totals_BK[:, 1]
    right_BN, all_BN = totals_BK[:, 2::2], totals_BK[:, 3::2]
    log, halves = np.zeros(len(totals_BK)), np.ones(len(totals_BK))
    with np.errstate(divide="ignore", invalid="ignore"):
        for n in range(WORDS):
            none = right_BN[:, n] == 0
            halves = np.where(none, halves * 2, halves)
            share = np.where(none, 1 / (halves * all_BN[:, n]), right_BN[:, n] / all_BN[:, n])
            log += np.log(share) / WORDS
        short = np.where(length < wanted, np.exp(1 - wanted / length), 1.0)
        found = 100 * short * np.exp(log)
    return np.where((right_BN[:, 0] == 0) | (all_BN == 0).any(1), 0.0, found)


def chrf_counts(text: str, reference: str) -> list[float]:
    """Of each order: n-grams of the answer, of the reference, and shared: 18 numbers."""
    ours, theirs = "".join(text.split()), "".join(reference.split())
    found: list[float] = []
    for n in range(1, ORDER + 1):
        mine, wanted = ngrams(ours, n), ngrams(theirs, n)
        # An order that one of the two does not reach tells nothing about the other, as in sacrebleu.
        found += [mine.total() if wanted else 0, wanted.total(), (mine & wanted).total()]
    return found


def chrf(totals_BK: Floats) -> Floats:
    """Corpus chrF2 of summed counts, [B], 0..100."""
    import numpy as np

    mine, wanted, shared = (totals_BK[:, k::3] for k in range(3))
    known = (mine > 0) & (wanted > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(known, shared / mine, 0).sum(1) / known.sum(1)
        recall = np.where(known, shared / wanted, 0).sum(1) / known.sum(1)
        found = 100 * (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)
    return np.where(np.isfinite(found), found, 0.0)
