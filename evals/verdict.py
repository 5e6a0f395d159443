"""The sentence on top: pass, fail or inconclusive, the money, and whether something humbler does as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evals.stats import Estimate, non_inferiority, superiority

if TYPE_CHECKING:
    from collections.abc import Mapping

MINUS = "\u2212"
NARROW = "\u00a0"  # a blank at which no line is broken


def verdict(report: Mapping[str, Any]) -> dict[str, Any]:
    """`outcome` against the reference, `gain` against the base, `humble` against the humble baseline, `sentence`."""
    arms = {arm["name"]: arm for arm in report["arms"]}
    pairs = {pair["other"]: pair for pair in report["pairs"]}
    candidate, reference = arms[report["candidate"]], arms[report["reference"]]
    difference = _estimate(pairs[reference["name"]])
    outcome = non_inferiority(difference, report["margin"])
    gain = superiority(_estimate(pairs[report["base"]])) if report["base"] in pairs else None
    humble = _best(arms, report["humble"])
    humble_outcome = _humble(pairs, humble, report["margin"]) if humble else None
    parts = [_quality(outcome, candidate, reference, pairs[reference["name"]]["difference"], report)]
    parts.append(_money(candidate, reference))
    if humble:
        parts.append(_humble_sentence(humble, candidate, str(humble_outcome)))
    cheapest = _cheapest(arms, candidate, reference)
    if cheapest:
        parts.append(_cheaper(cheapest, candidate, outcome))
    if leaked := sum((report["leaks"] or {}).get(kind, 0) for kind in ("exact", "near")):
        parts.append(f"WARNING: {leaked} of the items were in the training data, so these numbers are too good.")
    if gain and report["base"] in arms:
        parts.append(_gain_sentence(gain, arms[report["base"]], pairs[report["base"]]["difference"]))
    return {
        "outcome": outcome,
        "gain": gain,
        "humble": humble_outcome,
        "cheapest": cheapest["name"] if cheapest else None,
        "headline": HEADLINES[outcome].format(c=_cap(candidate["label"]), own=candidate["label"], r=reference["label"]),
        "parts": parts,
        "sentence": " ".join(parts),
    }


HEADLINES = {
    "pass": "{c} can stand in for {r}.",
    "fail": "{c} is not good enough to stand in for {r}.",
    "inconclusive": "Open: not enough items to tell whether {own} can stand in for {r}.",
}


def _estimate(pair: Mapping[str, Any]) -> Estimate:
    d = pair["difference"]
    low = d["low"] if d["low"] is not None else float("-inf")
    high = d["high"] if d["high"] is not None else float("inf")
    return Estimate(d["value"], low, high)


def _cap(text: str) -> str:
    return text[:1].upper() + text[1:]


def points(value: float | None) -> str:
    """A difference in points of accuracy, signed."""
    if value is None:
        return "unbounded"
    rounded = round(100 * value, 1) + 0.0
    return f"{'+' if rounded > 0 else MINUS if rounded < 0 else ''}{abs(rounded):.1f}"


def percent(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.1f}{NARROW}%".replace("-", MINUS)


def euros(value: float) -> str:
    """EUR with three significant digits, never in scientific notation."""
    if value == 0:
        return "0 EUR"
    from math import floor, log10

    digits = max(2 - floor(log10(abs(value))), 2 if abs(value) >= 1 else 0)
    return f"{value:,.{min(digits, 12)}f} EUR"


def interval(estimate: Mapping[str, Any]) -> str:
    """`[low, high]` in points."""
    return f"[{points(estimate['low'])}, {points(estimate['high'])}]"


def _quality(outcome: str, c: Any, r: Any, d: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    margin = f"{100 * report['margin']:g} points"
    facts = (
        f"{percent(c['accuracy']['value'])} against {percent(r['accuracy']['value'])}, "
        f"{points(d['value'])} points {interval(d)} on {report['method']['items']} items"
    )
    if outcome == "pass":
        return f"{_cap(c['label'])} loses less than {margin} against {r['label']}: {facts}."
    if outcome == "fail":
        return f"{_cap(c['label'])} loses more than {margin} against {r['label']}: {facts}."
    power = report.get("power") or {}
    more = f" About {power['items_needed']:,} items would settle it if they were equal." if power else ""
    return f"Whether {c['label']} loses less than {margin} against {r['label']} is open: {facts}.{more}"


def _money(c: Any, r: Any) -> str:
    own, other = c["cost"]["per_1000_requests"], r["cost"]["per_1000_requests"]
    if own is None or other is None:
        unknown = " and ".join(a["label"] for a, cost in ((c, own), (r, other)) if cost is None)
        return f"No saving is claimed: the cost of {unknown} is unknown."
    facts = f"{euros(own['value'])} against {euros(other['value'])} per 1,000 requests"
    if own["value"] < other["value"] and own["value"] > 0:
        return f"It costs {other['value'] / own['value']:.1f} times less: {facts}."
    if own["value"] > other["value"] > 0:
        return f"It costs {own['value'] / other['value']:.1f} times MORE: {facts}."
    return f"It costs {facts}."


def _price(arm: Any) -> float | None:
    cost = arm["cost"]["per_1000_requests"]
    return None if cost is None else float(cost["value"])


def _cheapest(arms: Mapping[str, Any], candidate: Any, reference: Any) -> Any | None:
    """The cheapest system that passes the same gate, when it is another one than the candidate."""
    passing = [a for a in arms.values() if a["outcome"] == "pass" or a is reference]
    priced = [a for a in passing if _price(a) is not None]
    if _price(candidate) is None or not priced:
        return None
    best = min(priced, key=lambda a: (_price(a), a is not candidate))
    others = [a for a in priced if a is not candidate and a is not reference]
    return best if best in others else None


def _cheaper(best: Any, candidate: Any, outcome: str) -> str:
    price = euros(best["cost"]["per_1000_requests"]["value"])
    facts = f"{best['label']} passes the same gate at {price} per 1,000 requests"
    if outcome != "pass":
        return f"Use it instead: {facts}."
    return f"Cheaper than {candidate['label']} and good enough: {facts}."


def _best(arms: Mapping[str, Any], names: list[str]) -> Any | None:
    found = [arms[name] for name in names if name in arms]
    # The rule that needs no gold answers comes first; gold-label rows are a reference, not an alternative.
    return found[0] if found else None


def _humble(pairs: Mapping[str, Any], humble: Any, margin: float) -> str | None:
    pair = pairs.get(humble["name"])
    if pair is None:
        return None
    d = _estimate(pair)  # candidate minus humble
    if d.low > 0:
        return "beaten"
    return "equal" if d.high < margin else "open"


def _humble_sentence(humble: Any, c: Any, outcome: str) -> str:
    facts = f"{humble['label']} reaches {percent(humble['accuracy']['value'])}"
    if outcome == "beaten":
        return f"The humble alternative is worse: {facts}."
    if outcome == "equal" and humble["outcome"] == "pass":
        return f"No language model is needed here: {facts} at almost no cost."
    if outcome == "equal":
        return f"The humble alternative does as well as {c['label']}, at almost no cost: {facts}."
    return f"The humble alternative may do: {facts}, not clearly worse than {c['label']}."


def _gain_sentence(gain: str, base: Any, d: Mapping[str, Any]) -> str:
    word = {"pass": "Distillation helped", "fail": "Distillation HARMED", "inconclusive": "No clear gain"}[gain]
    return f"{word}: {points(d['value'])} points {interval(d)} over {base['label']}."
