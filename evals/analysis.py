"""From per-item records to the report: pure, seeded, and the same for `distill eval` and `distill compare`."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distill import languages
from evals import corpus, fertility, fidelity, likelihood, money, objective, stats
from evals.bootstrap import Draws, bootstrap
from evals.deferral import Deferral
from evals.samples import aligned
from evals.slices import sliced
from evals.tasks.classification import confusion, macro_f1
from evals.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from distill.config import Serving
    from evals.economics import Speed
    from evals.likelihood import Reading
    from evals.meter import Spent
    from evals.money import Money
    from evals.samples import Sample
    from evals.stats import Estimate


@dataclass(frozen=True)
class Arm:
    """One system and what it answered."""

    name: str
    label: str
    samples: Sequence[Sample]
    model: str = ""
    held: bool = False
    """Held to the legal answers while it wrote."""
    legal: tuple[str, ...] = ()
    """The legal answers, when there is a list."""
    speed: Speed | None = None
    costs: tuple[float, ...] | None = None
    """nano-EUR of each sample."""
    price: dict[str, Any] | None = None
    """`{"input", "output"}` EUR per million tokens, `source`, `as_of`."""
    cost_source: str = ""
    machine: Serving | None = None
    """The machine whose seconds are its cost; None where answers are billed, or nobody knows."""
    note: str = ""
    readings: dict[tuple[str, str], Reading] = field(default_factory=dict)
    """(task, id) -> how likely it found a given text."""
    voted: Sequence[Sample] = ()
    """The answer that most of several sampled ones gave, with the share that agree as its confidence."""
    voted_costs: tuple[float, ...] | None = None
    """nano-EUR of all the sampled answers of each item."""
    ballots: tuple[str, ...] = ()
    """Request keys of the sampled answers."""
    count: Callable[[str], int] | None = None
    """Tokens of a text, by its own tokenizer; None where that is not here."""
    spent: Spent | None = None
    """Electricity while it answered, where this machine's counters were read."""


@dataclass(frozen=True)
class Question:
    """What is compared with what."""

    candidate: str
    reference: str
    base: str | None = None
    humble: tuple[str, ...] = ()
    """Arms that are no language model."""
    margin: float = 0.05
    draws: int = 10_000
    seed: int = 0
    examples: int = 50
    translations: tuple[str, ...] = ()
    """Tasks that have BLEU and chrF2 of the whole set."""
    texts: tuple[str, ...] | None = None
    """Tasks whose answers are text; None where only the answers can tell."""
    chance: float = 0.0
    """Share of right answers by guessing."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further parts of the report: name, tasks, load."""
    money: Money | None = None
    """The one-off bill and the machine, where there was a distillation."""


def analyse(arms: Sequence[Arm], question: Question) -> dict[str, Any]:
    """The report as JSON values. Raises DataError when the arms did not answer the same items."""
    samples = aligned({arm.name: arm.samples for arm in arms})
    load = question.extra.get("load")
    arms = [objective.repriced(arm, load) for arm in arms]
    costs = {arm.name: _costs_of(arm, samples[arm.name]) for arm in arms}
    first = samples[question.reference]
    clusters = [s.drawn_with for s in first]
    columns: dict[str, Any] = {f"score:{name}": [s.correct for s in rows] for name, rows in samples.items()}
    columns |= {f"cost:{name}": values for name, values in costs.items() if values is not None}
    deferral = Deferral.of(arms, samples, costs, clusters, question)
    columns |= deferral.columns() if deferral else {}
    drawn = bootstrap(columns, clusters, question.draws, question.seed)
    pairs = _pairs(question.candidate, samples, clusters)
    report: dict[str, Any] = {
        **_roles(question),
        "arms": [_arm(arm, samples[arm.name], first, costs[arm.name], clusters, drawn, question) for arm in arms],
        "pairs": pairs,
        **sliced(samples, clusters, question.candidate, question.reference),
        "fidelity": fidelity.statement(samples[question.candidate], first, clusters, _texts(question, first)),
        "calibration": fidelity.calibration(samples[question.candidate], clusters),
        "cascade": deferral.report(drawn) if deferral else None,
        "economics": None,
        "load": None,
        "energy": None,
        "judges": [],
        "likelihood": likelihood.report(arms, question.candidate, question.reference, question.draws, question.seed),
        "corpus": corpus.scores(
            samples, question.translations, question.candidate, question.reference, question.draws, question.seed
        ),
        "sets": [],
        "leaks": None,
        "items": fidelity.listed(samples[question.candidate], first, question.examples),
        "power": _power(pairs, question, len(set(clusters)), len(first)),
        "method": _method(samples, clusters, question),
    }
    paid = {arm["name"]: arm["cost"]["per_mtok"] for arm in report["arms"]}
    report["words"] = fertility.report(arms, samples, paid, question.reference) or None
    report |= question.extra
    if question.money is not None:
        roles = question.candidate, question.reference
        report["economics"] = money.economics(question.money, arms, report["arms"], roles, question.humble, drawn, load)
    report["verdict"] = verdict(report)
    return report


def _roles(question: Question) -> dict[str, Any]:
    """What is compared with what."""
    return {
        "schema": 1,
        "candidate": question.candidate,
        "reference": question.reference,
        "base": question.base,
        "humble": list(question.humble),
        "margin": question.margin,
    }


def _pairs(candidate: str, samples: Mapping[str, Sequence[Sample]], clusters: Sequence[str]) -> list[dict[str, Any]]:
    """The candidate against each other system, p-values adjusted by Holm."""
    pairs = [_pair(candidate, other, samples, clusters) for other in samples if other != candidate]
    for pair, adjusted in zip(pairs, stats.holm([p["p"] for p in pairs]), strict=True):
        pair["p_holm"] = adjusted
    return pairs


def _texts(question: Question, reference: Sequence[Sample]) -> Sequence[str]:
    """The tasks whose answers are text: as told, else those where half of the reference's answers have 8 words."""
    if question.texts is not None:
        return question.texts
    long: dict[str, list[bool]] = {}
    for sample in reference:
        long.setdefault(sample.task, []).append(len(sample.text.split()) >= languages.MIN_WORDS)
    return [task for task, found in long.items() if 2 * sum(found) >= len(found)]


def _costs_of(arm: Arm, samples: Sequence[Sample]) -> list[float] | None:
    """The arm's costs in the order of ``samples``."""
    if arm.costs is None:
        return None
    found = {(s.task, s.id): cost for s, cost in zip(arm.samples, arm.costs, strict=True)}
    return [found[s.task, s.id] for s in samples]


def _method(samples: Mapping[str, Sequence[Sample]], clusters: Sequence[str], question: Question) -> dict[str, Any]:
    """How many items, and how the intervals were made."""
    binary = all(s.correct in (0, 1) for rows in samples.values() for s in rows)
    return {
        "metric": "accuracy" if binary else "score",
        "items": len(clusters),
        "clusters": len(set(clusters)),
        "confidence": stats.CONFIDENCE,
        "draws": question.draws,
        "seed": question.seed,
        "chance": question.chance,
    }


def _arm(
    arm: Arm,
    samples: Sequence[Sample],
    first: Sequence[Sample],
    costs: Sequence[float] | None,
    clusters: Sequence[str],
    drawn: Draws,
    q: Question,
) -> dict[str, Any]:
    score, reference = f"score:{arm.name}", f"score:{q.reference}"
    compared = arm.name != q.reference
    difference = stats.paired_difference([s.correct for s in samples], [s.correct for s in first], clusters)
    latencies = [s.latency_s for s in samples if s.latency_s is not None]
    return {
        "name": arm.name,
        "label": arm.label,
        "model": arm.model,
        "held": arm.held,
        "note": arm.note,
        "n": len(samples),
        "right": sum(s.correct >= 0.5 for s in samples),
        "rejects": dict(sorted(Counter(s.reject for s in samples if s.reject).items())),
        "legal": sum(bool(s.predicted) for s in samples) / len(samples) if arm.legal else None,
        "accuracy": stats.accuracy([s.correct for s in samples], clusters).as_dict(),
        "macro_f1": macro_f1([s.gold for s in samples], [s.predicted for s in samples]) if arm.legal else None,
        "confusion": confusion([s.gold for s in samples], [s.predicted for s in samples]) if arm.legal else None,
        "difference": _dict(difference) if compared else None,
        "outcome": _outcome(samples, first, clusters, q.margin) if compared else None,
        "retention": _dict(drawn.ratio(score, reference)) if compared else None,
        "retention_above_chance": _dict(drawn.ratio(score, reference, q.chance)) if compared and q.chance else None,
        "recovered_gap": (
            _dict(drawn.recovered_gap(score, f"score:{q.base}", reference))
            if compared and q.base and arm.name != q.base
            else None
        ),
        "tokens": _tokens(samples),
        "latency": (
            {f"p{p}": stats.quantile(latencies, p / 100) for p in (50, 95)} if len(latencies) == len(samples) else None
        ),
        "speed": arm.speed.as_dict() if arm.speed else None,
        "cost": money.cost(arm, samples, costs, drawn, q.extra.get("load")),
    }


def _outcome(
    samples: Sequence[Sample], reference: Sequence[Sample], clusters: Sequence[str], margin: float
) -> stats.Outcome:
    ours, theirs = [s.correct for s in samples], [s.correct for s in reference]
    return stats.cautious(ours, theirs, [s.broken for s in reference], clusters, margin)


def _dict(estimate: Estimate | None) -> dict[str, float | None] | None:
    """JSON has no infinity: an open end is null."""
    return None if estimate is None else estimate.finite()


def _tokens(samples: Sequence[Sample]) -> dict[str, float] | None:
    """Mean prompt and completion tokens per request; None when one is unknown."""
    if any(s.tokens is None for s in samples):
        return None
    n = len(samples)
    return {
        "prompt": sum(s.prompt_tokens or 0 for s in samples) / n,
        "completion": sum(s.completion_tokens or 0 for s in samples) / n,
    }


def _pair(
    candidate: str, other: str, samples: Mapping[str, Sequence[Sample]], clusters: Sequence[str]
) -> dict[str, Any]:
    """Candidate minus other, on the same items."""
    c, o = samples[candidate], samples[other]
    difference = stats.paired_difference([s.correct for s in c], [s.correct for s in o], clusters)
    lost = sum(a.correct < 0.5 <= b.correct for a, b in zip(c, o, strict=True))
    gained = sum(b.correct < 0.5 <= a.correct for a, b in zip(c, o, strict=True))
    test = stats.mcnemar(lost, gained)
    return {
        "candidate": candidate,
        "other": other,
        "difference": _dict(difference),
        "se": difference.se if difference.se is not None and math.isfinite(difference.se) else None,
        "df": difference.df,
        "lost": lost,
        "gained": gained,
        "p": stats.p_value(difference),
        "mcnemar": {"exact": test.exact, "mid": test.mid, "valid": len(set(clusters)) == len(clusters)},
    }


def _power(pairs: Sequence[dict[str, Any]], question: Question, clusters: int, items: int) -> dict[str, Any] | None:
    """What this number of items can show: the detectable difference, and the items an equal student would need."""
    pair = next((p for p in pairs if p["other"] == question.reference), None)
    if pair is None or not pair["se"]:
        return None
    size = stats.detectable(pair["se"])
    factor = (size / question.margin) ** 2
    return {
        "detectable": size,
        "clusters_needed": math.ceil(clusters * factor),
        "items_needed": math.ceil(items * factor),
    }
