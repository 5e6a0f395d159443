"""The one-off bill of a distillation: teacher, training and this evaluation. EUR; a part that is unknown stays None.

What was bought is read from the ledger, so that rejected answers, repeated sends and sends without an answer are in
it; machines cost their seconds at the stated price per hour. Work of people and other runs are not in it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill import costs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from distill.artifacts import RunFolder
    from distill.config import RunConfig, Serving
    from distill.query.store import Store
    from evals.analysis import Arm


@dataclass(frozen=True, slots=True)
class Paid:
    """What the ledger says, and which of its requests were the evaluation's beside those of the arms."""

    charges: Mapping[str, int | None]
    """Request key -> nano-EUR of all its sends, None without a price (``Store.charges``)."""
    judging: Mapping[str, bool]
    """Request key of its judges -> whether they are billed by tokens."""
    loading: Collection[str] = ()
    """Keys of the load sweep."""

    @classmethod
    def of(cls, store: Store, judging: Mapping[str, bool]) -> Paid:
        """As the store stands now."""
        charges = store.charges()
        return cls(charges, dict(judging), loading(store, charges))


def one_off(
    config: RunConfig, folder: RunFolder, arms: Sequence[Arm], paid: Paid, load: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The parts, their sum, and the sum of those that are known. ``load``: the report's, for the time it took."""
    asked = {s.request_key for arm in arms for s in arm.samples if s.request_key}
    asked |= {key for arm in arms for key in arm.ballots} | set(paid.judging) | set(paid.loading)
    teacher = _teacher(config, folder, {key: nano for key, nano in paid.charges.items() if key not in asked})
    student = _facts(folder.student / "student.json")
    training = _training(student, config.eval.serving)
    swept = {arm["name"]: sum(level["seconds"] for level in arm["levels"]) for arm in (load or {}).get("arms", ())}
    evaluation = _evaluation(arms, paid, asked, swept)
    parts = {"teacher_eur": teacher, "training_eur": training, "evaluation_eur": evaluation}
    totals = {name: part[0] for name, part in parts.items()}
    whole = [eur for eur in totals.values() if eur is not None]
    return {
        **totals,
        "total_eur": sum(whole) if len(whole) == len(parts) else None,
        "known_eur": sum(known for _, known in parts.values()),
        "unknown": [name.removesuffix("_eur") for name, eur in totals.items() if eur is None],
        "training_seconds": student.get("seconds"),
        "evaluation_seconds": sum(
            arm.speed.seconds + swept.get(arm.name, 0.0) for arm in arms if arm.speed and arm.price is None
        ),
    }


def loading(store: Store, keys: Iterable[str]) -> set[str]:
    """Those requests that a sweep of load sent: it marks them in the provider's identity."""
    found = set()
    for key in keys:
        canonical = store.canonical(key) or b""
        if b'"load"' in canonical and "load" in json.loads(canonical)["provider"]:
            found.add(key)
    return found


Part = tuple["float | None", float]
"""EUR of a part, and what of it is known."""


def billed(charges: Mapping[str, int | None], keys: Collection[str]) -> float:
    """EUR that these requests were charged, where they have a price."""
    return costs.eur(sum(charges.get(key) or 0 for key in keys))


def _teacher(config: RunConfig, folder: RunFolder, charges: Mapping[str, int | None]) -> Part:
    """Everything that is not the evaluation's: teachers, judges of the data, writers of prompts, earlier rounds."""
    paid, card = billed(charges, charges), _facts(folder.data_card)
    if not card:
        return None, paid
    spent = card.get("spent") or {"answers": card.get("cost") or {}}
    free = [part for part, cost in spent.items() if cost.get("eur") is None]
    if not free and all(nano is not None for nano in charges.values()):
        return paid, paid
    hours = _hours(config, card) if free == ["answers"] and len(card.get("teachers") or [0]) == 1 else None
    return (None, paid) if hours is None else (paid + hours, paid + hours)


def _hours(config: RunConfig, card: Mapping[str, Any]) -> float | None:
    """EUR of the machine on which the only teacher answered; None for a fake, or where price or speed are unknown."""
    serving = config.eval.serving if config.teacher.kind == "transformers" else config.eval.teacher_serving
    speed = card.get("speed") or {}
    if config.teacher.kind == "fake" or serving is None or serving.eur_per_hour is None or not speed.get("answers"):
        return None
    # A resumed stage timed a part of the answers; all of them took as long each.
    return float(speed["seconds"] / speed["answers"] * card["answers"] * serving.eur_per_hour / 3600)


def _training(student: Mapping[str, Any], serving: Serving) -> Part:
    """Seconds of the training at its own price per hour, else at that of the serving machine."""
    rate = serving.eur_per_hour if student.get("eur_per_hour") is None else student["eur_per_hour"]
    if student.get("seconds") is None or rate is None:
        return None, 0.0
    eur = float(student["seconds"] * rate / 3600)
    return eur, eur


def _evaluation(arms: Sequence[Arm], paid: Paid, asked: Collection[str], swept: Mapping[str, float]) -> Part:
    """What the ledger charged for the arms and judges, and the seconds of those on a machine."""
    hours = [_machine(arm, swept.get(arm.name, 0.0)) for arm in arms if arm.price is None]
    known = billed(paid.charges, asked) + sum(eur for eur in hours if eur is not None)
    return (None if None in hours or not all(paid.judging.values()) else known), known


def _machine(arm: Arm, swept_s: float) -> float | None:
    """EUR of the machine while it answered, voted and was put under load, at the full price: nobody else used it."""
    if arm.machine is None or arm.machine.eur_per_hour is None or arm.speed is None:
        return None
    if arm.voted and arm.voted_costs is None:
        return None
    # The cost of votes is that of a request to come: over the share of the time in which the machine works.
    votes = sum(arm.voted_costs or ()) / costs.NANO * arm.machine.utilisation
    return (arm.speed.seconds + swept_s) * arm.machine.eur_per_hour / 3600 + votes


def _facts(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}
