"""The one-off bill of a distillation: teacher, training and this evaluation. EUR; a part that is unknown stays None.

What was bought is read from the ledger, so that rejected answers, repeated sends and sends without an answer are in
it; machines cost their seconds at the stated price per hour. Work of people and other runs are not in it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from distill import costs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from distill.artifacts import RunFolder
    from distill.config import RunConfig, Serving
    from distill.query.store import Store
    from evals.analysis import Arm


def one_off(
    config: RunConfig,
    folder: RunFolder,
    arms: Sequence[Arm],
    charges: Mapping[str, int | None],
    judging: Mapping[str, bool],
    loading: Collection[str] = (),
) -> dict[str, Any]:
    """The parts, their sum, and the sum of those that are known.

    ``charges``: request key -> nano-EUR of all its sends, None without a price (``Store.charges``). ``judging``:
    request key of the evaluation's judges -> whether they are billed by tokens. ``loading``: keys of the load sweep.
    """
    asked = {s.request_key for arm in arms for s in arm.samples if s.request_key} | set(judging) | set(loading)
    teacher = _teacher(config, folder, {key: nano for key, nano in charges.items() if key not in asked})
    student = _facts(folder.student / "student.json")
    training = _training(student, config.eval.serving)
    evaluation = _evaluation(arms, charges, asked, all(judging.values()))
    parts = {"teacher_eur": teacher, "training_eur": training, "evaluation_eur": evaluation}
    totals = {name: part[0] for name, part in parts.items()}
    whole = [eur for eur in totals.values() if eur is not None]
    return {
        **totals,
        "total_eur": sum(whole) if len(whole) == len(parts) else None,
        "known_eur": sum(known for _, known in parts.values()),
        "unknown": [name.removesuffix("_eur") for name, eur in totals.items() if eur is None],
        "training_seconds": student.get("seconds"),
        "evaluation_seconds": sum(arm.speed.seconds for arm in arms if arm.speed and arm.price is None),
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


def _evaluation(
    arms: Sequence[Arm], charges: Mapping[str, int | None], asked: Collection[str], judges_are_billed: bool
) -> Part:
    """What the ledger charged for the arms and judges, and the seconds of those on a machine."""
    hours = [_seconds(arm) for arm in arms if arm.price is None]
    known = billed(charges, asked) + sum(eur for eur in hours if eur is not None)
    return (None if None in hours or not judges_are_billed else known), known


def _seconds(arm: Arm) -> float | None:
    """EUR of the machine while it answered, at the full price: nobody else used it."""
    if arm.machine is None or arm.machine.eur_per_hour is None or arm.speed is None:
        return None
    return arm.speed.seconds * arm.machine.eur_per_hour / 3600


def _facts(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}
