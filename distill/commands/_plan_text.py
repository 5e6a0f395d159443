"""The plan for people: one block for each question."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from distill import catalog
from distill.energy import HOST_W, MFU, POWER_SHARE, PUE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console, RenderableType

PIPED_WIDTH = 110
OLD = ("stale", "expired")


def show(plan: dict[str, Any]) -> None:
    """Print the plan."""
    from rich.console import Console

    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=PIPED_WIDTH)
    found = plan["prompts"]
    skipped = f", {found['skipped']} broken rows skipped" if found["skipped"] else ""
    blocks: list[tuple[str, Sequence[RenderableType]]] = [
        (
            f"Plan of {plan['name']} ({plan['config_sha256'][:12]})",
            [f"{found['used']:,} prompts of {found['read']:,} rows in {found['path']}{skipped}"],
        ),
        ("Teacher", _teacher(plan)),
        ("Training", _training(plan)),
        ("Evaluation", _evaluation(plan["evaluation"])),
        ("Permission", _permission(plan)),
        ("EU AI Act: a general-purpose model?", _gpai(plan["gpai"])),
        ("Method", [plan["advice"]]),
        *([("Proof, on the first prompts", plan["proof"])] if plan["proof"] else []),
        ("Worth it?", _worth(plan["worth_it"])),
        *([("The run, beside its plan", [_actual(plan["actual"])])] if plan["actual"] else []),
    ]
    for title, parts in blocks:
        _block(console, title, parts)
    console.print("\nEstimates, not promises. Formulas and assumptions: --json", style="dim")


def _block(console: Console, title: str, parts: Sequence[RenderableType]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    console.print()
    console.print(Text(title, style="bold"))
    for part in parts:
        console.print(Padding(Text(part) if isinstance(part, str) else part, (0, 0, 0, 2), expand=False))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> RenderableType:
    """The first ``left`` columns to the left and foldable, the others to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for number, name in enumerate(head):
        table.add_column(name, justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


# -- teacher ----------------------------------------------------------------------------------------------------


def _teacher(plan: dict[str, Any]) -> list[RenderableType]:
    every, total = plan["teachers"], plan["teacher"]
    parts: list[RenderableType] = [
        _table(
            ("", "requests", "", "least", "expected", "at most"),
            [
                row
                for t in every
                for row in (
                    (t["route"], f"{t['asked']:,}", "input", *(f"{n:,}" for n in t["prompt"])),
                    ("", "", "output", *(f"{n:,}" for n in t["completion"])),
                )
            ],
        )
    ]
    repeated = total["requests"] - total["asked"]
    parts += [f"Tokens: {how}." for how in dict.fromkeys(t["how"] for t in every)]
    if repeated:
        parts.append(f"{repeated:,} requests are equal to another one and asked once.")
    if plan["not_counted"]:
        parts.append(f"Not counted: what is asked of {', '.join(plan['not_counted'])}.")
    return [*parts, *_cost(every, total), *_energy(every)]


def _cost(every: Sequence[dict[str, Any]], total: dict[str, Any]) -> list[RenderableType]:
    if not total["paid"]:
        return ["No token price: its seconds are measured by the run and priced with eval.serving."]
    table = _table(
        ("", "live", "in batch", "at worst", "its own examination"),
        [_euros(t["route"], t) for t in every] + ([_euros("together", total)] if len(every) > 1 else []),
    )
    notes = [_price(t) for t in every if t["paid"]]
    notes += [f"{t['route']}: batch is on, so the batch price is paid." for t in every if t["batch"]]
    cap = f"Cap: {eur(total['cap_eur'])}."
    if total["expected_eur"] is not None and total["cap_eur"] < total["expected_eur"]:
        cap += " That is below the expected cost: the run stops there and goes on with a higher one."
    return [table, *notes, cap]


def _euros(name: str, t: dict[str, Any]) -> tuple[str, ...]:
    batch = "no offer known" if t["batch_eur"] is None and t["live_eur"] is not None else eur(t["batch_eur"])
    return name, eur(t["live_eur"]), batch, eur(t["worst_case_eur"]), eur(t["exam_eur"])


def _price(t: dict[str, Any]) -> str:
    if t["price"] is None:
        return f"{t['route']}: the catalogue has no price of this model at this provider."
    age = {"stale": " OLD: check it.", "expired": " TOO OLD to plan with."}.get(t["price_age"], "")
    return f"{t['price']}; {t['price_source']}.{age}"


def _energy(every: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for t in every:
        energy = t["energy"]
        if energy["kwh"] is None:
            lines.append(f"Electricity of {t['route']}: unknown, {energy['how']}.")
            continue
        low, high = energy["g_co2e"] or (None, None)
        grams = "unknown" if low is None else f"{low:.2g}" if low == high else f"{low:.2g} to {high:.2g}"
        lines.append(
            f"Electricity: {energy['kwh']:.2g} kWh, {grams} g CO2e ({', '.join(energy['zones'])}); {energy['how']}."
        )
    return lines


# -- training and evaluation ------------------------------------------------------------------------------------


def _training(plan: dict[str, Any]) -> list[RenderableType]:
    work = plan["training"]
    if work is None:
        return ["The student's size is not known: no estimate of compute and memory."]
    zone = plan["zone"]
    return [
        f"{work['rows']:,} rows, {work['steps']:,} steps, {work['tokens']:,} tokens through "
        f"{work['student_params'] / 1e9:.3g}B parameters ({work['params_from']}), "
        f"{work['trainable_params'] / 1e6:,.3g}M of them trained: {work['flop']:.2g} FLOP, "
        f"{work['memory_bytes'] / 1e9:.2g} GB of memory.",
        _table(
            ("card", "", "time", "EUR", "kWh", "g CO2e"),
            [
                (
                    f"{gpu['count']} x {gpu['gpu']}",
                    "fits" if gpu["fits"] else "TOO SMALL",
                    _duration(gpu["hours"]),
                    "unknown" if gpu["eur"] is None else eur(gpu["eur"]).removesuffix(" EUR"),
                    f"{gpu['kwh']:.2g}",
                    _grams(gpu["g_co2e"], gpu["g_co2e_making"]),
                )
                for gpu in plan["gpus"]
            ],
        ),
        "Prices: " + "; ".join(_card_price(gpu) for gpu in plan["gpus"]) + ".",
        *work["formulas"],
        f"Time = compute / (cards x peak x {MFU:.0%}); electricity = time x cards x ({POWER_SHARE:.0%} of the card's "
        f"limit + {HOST_W} W) x PUE {PUE:g}; {zone['zone']}: {zone['g_per_kwh']:g} g CO2e/kWh "
        f"({zone['year'] or 'year unknown'}, {zone['source']}), and making the card, spread over three years.",
    ]


def _card_price(gpu: dict[str, Any]) -> str:
    old = f", OLD: more than {catalog.STALE_WARN_DAYS} days" if gpu["price_age"] in OLD else ""
    return f"{gpu['gpu']} {gpu['price'] or 'not known'}{old}"


def _grams(use: float | None, making: float | None) -> str:
    shown = ["unknown" if value is None else f"{value:.2g}" for value in (use, making)]
    return f"{shown[0]} + {shown[1]}"


def _evaluation(tasks: list[dict[str, Any]]) -> list[RenderableType]:
    if not tasks:
        return ["No tasks: nothing will be shown about the student. Add eval.tasks."]
    return [
        _table(
            ("task", "items", "clusters", "visible drop", "margin", "needs", ""),
            [
                (
                    task["task"],
                    f"{task['items']:,}",
                    f"{task['clusters']:,}",
                    f"{100 * task['visible_drop']['0.2']:.1f} points",
                    f"{100 * task['margin']:g} points",
                    f"{(needed := task['items_for_margin']['0.2']):,}",
                    "enough" if task["items"] >= needed else "TOO FEW",
                )
                for task in tasks
            ],
        ),
        "Visible drop, and items needed to pass the margin: when the two differ on 20 % of the items, with 80 % power. "
        "Large clusters count for fewer items.",
    ]


# -- permission, law, money -------------------------------------------------------------------------------------


def _permission(plan: dict[str, Any]) -> list[RenderableType]:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    policy = plan["policy"]
    hosts = f" ({', '.join(policy['hosts'])})" if policy["hosts"] else ""
    private = f"; confidential: only your own network{hosts}" if policy["confidential"] else ""
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False, show_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for v in plan["permission"]:
        lines = [f"{v['kind']}, {v['role']} {v['subject']}: {v['verdict'].replace('_', ' ')}: {v['why']}"]
        lines += [f"must: {catalog.OBLIGATIONS.get(code, code)}" for code in v["obligations"]]
        lines += [f"waived by {v['waiver']}"] if v["waiver"] else []
        lines += [f"unblocked by: {v['unblock']}"] if not v["passes"] else []
        lines += [f"read: {v['source']}"] if v["source"] else []
        mark = Text("ok", style="green") if v["passes"] else Text("NO", style="bold red")
        table.add_row(mark, Text("\n  ".join(lines)))
    head = f"Use: {policy['use']}; prompts may go to: {', '.join(policy['regions'])}{private}."
    return [head, table, "Not legal advice."]


def _gpai(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["The student's size is not known: the compute cannot be compared."]
    verdict = "ABOVE: you would become the provider of a general-purpose model" if found["new_provider"] else "below"
    return [
        f"Training {found['training_flop']:.1e} + teacher's answers {found['teacher_flop']:.1e} FLOP "
        f"(size: {found['teacher_size']})",
        f"= {100 * found['share']:.2g} % of {found['threshold_flop']:.1e} ({found['threshold']}): {verdict}.",
    ]


def _worth(found: dict[str, Any]) -> list[RenderableType]:
    fixed = found["student_eur_per_month"]
    lines: list[RenderableType] = [
        f"At {found['volume_per_month']:,} requests per month (--volume); one-off {eur(found['one_off_eur'])}, "
        "people not counted unless you do (--one-off-eur)."
    ]
    if fixed is None:
        lines.append("The student's machine has no price: state eval.serving.eur_per_hour to compare.")
    else:
        lines.append(
            f"The student's machine, always on: {eur(fixed)} per month; how much it carries, the run measures."
        )
    if found["against"]:
        lines.append(
            _table(
                ("against", "EUR/1000", "EUR/month", "cheaper from", "paid back"),
                [
                    (
                        rival["name"],
                        eur(rival["eur_per_1000"]).removesuffix(" EUR"),
                        eur(rival["eur_per_month"]).removesuffix(" EUR"),
                        _from(rival, fixed),
                        "unknown" if fixed is None else str(rival["pays_back_in_month"] or "never"),
                    )
                    for rival in found["against"]
                ],
            )
        )
        lines.append(
            "Cheaper from: the requests per month above which the student costs less. Paid back: in which month."
        )
        lines += _verdicts(found["against"], fixed)
    else:
        lines.append("No API price to compare with.")
    return [*lines, "Whether a cheap API is good enough, only an evaluation says: distill compare."]


def _from(rival: dict[str, Any], fixed: float | None) -> str:
    start = rival["from_requests_per_month"]
    return "unknown" if fixed is None else "never" if start is None else f"{start:,.0f}"


def _verdicts(rivals: Sequence[dict[str, Any]], fixed: float | None) -> list[str]:
    """One sentence: against whom a student pays at this volume."""
    if fixed is None:
        return []
    dearer = [rival["name"] for rival in rivals if not rival["cheaper_at_volume"]]
    if len(dearer) == len(rivals):
        return ["For the price alone: do not distil at this volume."]
    if dearer:
        return [f"For the price alone: do not distil at this volume if {' or '.join(dearer)} is good enough."]
    return ["For the price alone, the student is the cheapest at this volume."]


def _actual(rows: list[dict[str, Any]]) -> RenderableType:
    return _table(
        ("", "planned", "actual", ""),
        [
            (
                row["what"],
                f"{row['planned']:,.6g}",
                f"{row['actual']:,.6g}",
                "" if row["above"] is None else f"{row['above']:+.0%}",
            )
            for row in rows
        ],
    )


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min" if hours >= 1 / 60 else "under a minute"


def eur(value: float | None) -> str:
    """Euros with as many digits as matter; None is 'unknown'."""
    if value is None:
        return "unknown"
    return f"{value:,.2f} EUR" if value >= 0.1 or value == 0 else f"{value:.2g} EUR"
