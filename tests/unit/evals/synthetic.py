"""A made-up evaluation: 60 packages in four languages, five systems. Everything follows from the seed."""

from __future__ import annotations

import random

from evals.analysis import Arm, Question, analyse
from evals.economics import Speed, self_hosted
from evals.money import Money
from evals.samples import Sample

LABELS = ("games", "sound", "video", "mail", "graphics", "fonts", "database", "science")
LANGUAGES = ("en", "fr", "de", "it")
SYSTEMS = {
    "teacher": ("the teacher", 0.81, 620.0, 95),
    "base": ("the untouched student", 0.03, 2100.0, 95),
    "base_forced": ("the untouched student held to the legal answers", 0.30, 2900.0, 95),
    "student": ("the student", 0.75, 2700.0, 95),
    "baseline": ("logistic regression on the teacher's labels", 0.60, 0.0, 0),
}


class Machine:
    """Stands for `config.Serving`."""

    eur_per_hour, utilisation, amortise_months, source = 0.05, 0.3, 12, "assumption of this example"


class Unpriced(Machine):
    """A machine whose price nobody stated."""

    eur_per_hour = None


def systems(seed=0, clusters=60, accuracies=None):
    """Samples of each system, correlated through the difficulty of the package and of the item."""
    rng = random.Random(seed)
    arms = {name: [] for name in SYSTEMS}
    for number in range(clusters):
        hard = rng.gauss(0, 0.6)
        gold = rng.choice(LABELS)
        for lang in LANGUAGES:
            here, trap = rng.gauss(0, 0.7), rng.choice([x for x in LABELS if x != gold])
            for name, (_, accuracy, _, tokens) in SYSTEMS.items():
                from statistics import NormalDist

                cut = NormalDist(0, (0.36 + 0.49 + 0.5) ** 0.5).inv_cdf((accuracies or {}).get(name, accuracy))
                right = hard + here + rng.gauss(0, 0.5**0.5) < cut
                wrong = "" if name == "base" else trap if rng.random() < 0.5 else rng.choice(LABELS)
                answer = gold if right else wrong if wrong != gold else trap
                text = answer or "I would say that this package belongs to <b>several</b> sections & more"
                arms[name].append(
                    Sample(
                        f"pkg{number}:{lang}",
                        "debian-sections",
                        f"pkg{number}",
                        lang,
                        gold,
                        f"Paket {number} ({lang}): un programme pour {gold}, <script>alert(1)</script>",
                        text,
                        answer,
                        float(right),
                        tokens + number % 7 if tokens else None,
                        3 if tokens else None,
                        reject="truncated" if name == "base" and not right else "",
                        confidence=min(0.999, max(0.05, 0.85 + 0.12 * right - 0.25 * rng.random()))
                        if name == "student"
                        else None,
                    )
                )
    return arms


def made(seed=0, priced=True, accuracies=None, **changes):
    """A complete report."""
    arms = []
    for name, samples in systems(seed, accuracies=accuracies).items():
        label, _, speed, tokens = SYSTEMS[name]
        count = len(samples)
        measured = Speed(count, tokens * count, 3 * count, (tokens + 3) * count / speed if speed else 0.05, 16, 2**30)
        costs = self_hosted(samples, measured, Machine()) if priced else None
        source = "0.05 EUR/h, 30 % utilised" if priced else "unknown"
        arms.append(
            Arm(
                name,
                label,
                samples,
                f"{name}-model",
                name == "base_forced",
                LABELS,
                measured,
                costs,
                cost_source=source,
                machine=Machine() if priced else None,
            )
        )
    bill = {
        "teacher_eur": 0.01,
        "training_eur": 0.006,
        "evaluation_eur": 0.002,
        "total_eur": 0.018,
        "known_eur": 0.018,
        "unknown": [],
        "training_seconds": 432.0,
        "evaluation_seconds": 90.0,
    }
    sets = [
        {"name": "debian-sections", "kind": "classification", "items": 240, "licence": "free", "choices": list(LABELS)}
    ]
    settings = {
        "candidate": "student",
        "reference": "teacher",
        "base": "base_forced",
        "humble": ("baseline",),
        "draws": 2000,
        "chance": 1 / 8,
        "examples": 12,
        "extra": {"kind": "run", "name": "synthetic", "gate": "none", "sets": sets},
        "money": Money(Machine() if priced else Unpriced(), bill, "a made-up processor, 2 cores"),
    }
    return analyse(arms, Question(**(settings | changes)))
