"""The sentence on top: pass, fail or inconclusive, the money, and whether something humbler does as well.

The outcome is decided once; what is said of it is a pure function of (report, language).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evals.report.language import LANGUAGES, language
from evals.samples import WHOLE
from evals.stats import Estimate, superiority

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evals.report.language import Language


def verdict(report: Mapping[str, Any]) -> dict[str, Any]:
    """`outcome` against the reference, `gain` against the base, `humble` against the humble baseline, and the words.

    English words stand beside the outcomes, those of another language under its code.
    """
    arms, pairs = _by_name(report)
    candidate, reference = arms[report["candidate"]], arms[report["reference"]]
    humble = _best(arms, report["humble"])
    cheapest = _cheapest(arms, candidate, reference)
    decided = {
        "outcome": candidate["outcome"],
        "gain": superiority(_estimate(pairs[report["base"]])) if report["base"] in pairs else None,
        "humble": _humble(pairs, humble, report["margin"]) if humble else None,
        "cheapest": cheapest["name"] if cheapest else None,
    }
    others = {code: {**said(report, decided, code), "labels": labels(report, code)} for code in LANGUAGES[1:]}
    return decided | said(report, decided, LANGUAGES[0]) | others


def said(report: Mapping[str, Any], decided: Mapping[str, Any], code: str) -> dict[str, Any]:
    """`headline`, `parts` and `sentence` in one language. ``decided``: the outcomes of :func:`verdict`."""
    to, (arms, pairs) = language(code), _by_name(report)
    candidate, reference, outcome = arms[report["candidate"]], arms[report["reference"]], decided["outcome"]
    humble, base = _best(arms, report["humble"]), arms.get(report["base"])
    parts = [_quality(to, outcome, candidate, reference, pairs[reference["name"]]["difference"], report)]
    parts.append(_money(to, candidate, reference))
    if humble:
        parts.append(_humble_sentence(to, humble, candidate, str(decided["humble"])))
    if decided["cheapest"]:
        parts.append(_cheaper(to, arms[decided["cheapest"]], candidate, outcome))
    if leaked := sum((report["leaks"] or {}).get(kind, 0) for kind in ("exact", "near")):
        parts.append(to.say("verdict.leaked", n=to.number(leaked)))
    if broken := sum(n for reason, n in reference["rejects"].items() if reason not in WHOLE):
        parts.append(to.say("verdict.broken", n=to.number(broken), r=to.label(reference)))
    if decided["gain"] and base:
        found = _ends(to, pairs[report["base"]]["difference"])
        parts.append(to.say(f"verdict.gain_{decided['gain']}", base=to.label(base), **found))
    return {
        "headline": to.say(f"headline.{outcome}", **_names(to, candidate), r=to.label(reference)),
        "parts": parts,
        "sentence": " ".join(parts),
    }


def labels(report: Mapping[str, Any], code: str) -> dict[str, str]:
    """System -> what it is called in a language."""
    return {arm["name"]: language(code).label(arm) for arm in report["arms"]}


def cascade_sentence(best: Mapping[str, Any] | None, margin: float, code: str = "en") -> str:
    """What asking the teacher when the student is unsure gains. ``best``: a point of the curve, or None."""
    to = language(code)
    limit = to.say("verdict.margin", value=to.plain(100 * margin))
    if best is None:
        return to.say("cascade.none", margin=limit)
    if best["escalated"] == 0:
        return to.say("cascade.alone", margin=limit)
    cost = best["per_1000_requests"]
    money = "" if cost is None else to.say("cascade.money", cost=to.euros(cost))
    share, accuracy = to.percent(best["escalated"]), to.percent(best["accuracy"])
    return to.say("cascade.best", share=share, margin=limit, accuracy=accuracy, money=money)


def cap(text: str) -> str:
    """The first letter as a capital."""
    return text[:1].upper() + text[1:]


def points(value: float | None) -> str:
    """A difference in points of accuracy, signed, in English."""
    return language("en").points(value)


def percent(value: float) -> str:
    """A share as a percentage, in English."""
    return language("en").percent(value)


def euros(value: float) -> str:
    """EUR with three significant digits, in English."""
    return language("en").euros(value)


def interval(estimate: Mapping[str, Any]) -> str:
    """`[low, high]` in points, in English."""
    return f"[{points(estimate['low'])}, {points(estimate['high'])}]"


def _by_name(report: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(system -> arm, other system -> pair)."""
    return {arm["name"]: arm for arm in report["arms"]}, {pair["other"]: pair for pair in report["pairs"]}


def _estimate(pair: Mapping[str, Any]) -> Estimate:
    d = pair["difference"]
    low = d["low"] if d["low"] is not None else float("-inf")
    high = d["high"] if d["high"] is not None else float("inf")
    return Estimate(d["value"], low, high)


def _names(to: Language, arm: Any) -> dict[str, str]:
    return {"c": to.label(arm), "C": cap(to.label(arm))}


def _ends(to: Language, d: Mapping[str, Any]) -> dict[str, str]:
    return {"difference": to.points(d["value"]), "low": to.points(d["low"]), "high": to.points(d["high"])}


def _quality(to: Language, outcome: str, c: Any, r: Any, d: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    facts = to.say(
        "verdict.facts",
        own=to.percent(c["accuracy"]["value"]),
        other=to.percent(r["accuracy"]["value"]),
        items=to.number(report["method"]["items"]),
        **_ends(to, d),
    )
    margin = to.say("verdict.margin", value=to.plain(100 * report["margin"]))
    sentence = to.say(f"verdict.{outcome}", **_names(to, c), r=to.label(r), margin=margin, facts=facts)
    if outcome != "inconclusive" or not report.get("power"):
        return sentence
    return sentence + to.say("verdict.more", items=to.number(report["power"]["items_needed"]))


def _money(to: Language, c: Any, r: Any) -> str:
    own, other = _price(c), _price(r)
    if own is None or other is None:
        names = to.say("common.and").join(to.label(a) for a in (c, r) if _price(a) is None)
        return to.say("verdict.cost_unknown", names=names)
    facts = to.say("verdict.costs", own=to.euros(own), other=to.euros(other))
    if 0 < own < other:
        return to.say("verdict.cheaper", times=to.number(other / own, 1), facts=facts)
    if own > other > 0:
        return to.say("verdict.dearer", times=to.number(own / other, 1), facts=facts)
    return to.say("verdict.cost", facts=facts)


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


def _cheaper(to: Language, best: Any, candidate: Any, outcome: str) -> str:
    facts = to.say("verdict.instead_facts", best=to.label(best), price=to.euros(_price(best) or 0.0))
    if outcome != "pass":
        return to.say("verdict.instead", facts=facts)
    return to.say("verdict.cheapest", c=to.label(candidate), facts=facts)


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


def _humble_sentence(to: Language, humble: Any, c: Any, outcome: str) -> str:
    facts = to.say("verdict.humble_facts", humble=to.label(humble), value=to.percent(humble["accuracy"]["value"]))
    kind = {"beaten": "beaten", "equal": "needless" if humble["outcome"] == "pass" else "equal"}.get(outcome, "open")
    return to.say(f"verdict.humble_{kind}", facts=facts, c=to.label(c))
