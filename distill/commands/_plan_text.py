"""The plan for people: one block for each question."""

from __future__ import annotations

import sys
from typing import Any

from distill import catalog
from distill.commands._estimate import MFU


def show(plan: dict[str, Any]) -> None:
    """Print the plan."""
    for title, lines in (
        (f"plan of {plan['name']} ({plan['config_sha256'][:12]})", _prompts(plan)),
        ("teacher", _teacher(plan["teacher"])),
        ("training", _training(plan)),
        ("evaluation", _evaluation(plan["evaluation"])),
        ("permission", _permission(plan)),
        ("EU AI Act, general-purpose model?", _gpai(plan["gpai"])),
        ("method", [plan["advice"]]),
        ("worth it?", _worth(plan["worth_it"])),
        *([("the run, beside its plan", _actual(plan["actual"]))] if plan["actual"] else []),
    ):
        print(f"\n{_bold(title)}")
        for line in lines:
            print(f"  {line}")
    print("\nestimates, not promises; formulas and assumptions: --json")


def _bold(text: str) -> str:
    return f"\033[1m{text}\033[0m" if sys.stdout.isatty() else text


def _prompts(plan: dict[str, Any]) -> list[str]:
    found = plan["prompts"]
    skipped = f", {found['skipped']} broken rows skipped" if found["skipped"] else ""
    return [f"{found['used']:,} prompts of {found['read']:,} rows in {found['path']}{skipped}"]


def _teacher(t: dict[str, Any]) -> list[str]:
    repeated = t["requests"] - t["asked"]
    lines = [
        f"{t['route']}: {t['asked']:,} requests" + (f" ({repeated:,} equal ones are asked once)" if repeated else ""),
        f"input   {t['prompt'][1]:>13,} tokens expected, at most {t['prompt'][2]:,} ({t['how']})",
        f"output  {t['completion'][1]:>13,} tokens expected, at most {t['completion'][2]:,}",
    ]
    if not t["paid"]:
        return [*lines, "cost    no token price; its seconds are measured at run time and priced with eval.serving"]
    if t["price"] is None:
        return [*lines, "cost    unknown: the catalogue has no price of this model at this provider"]
    age = {"stale": "  OLD: check it", "expired": "  TOO OLD to plan with"}.get(t["price_age"], "")
    lines += [
        f"price   {t['price']}{age}",
        f"cost    {eur(t['expected_eur'])} expected, {eur(t['worst_case_eur'])} at worst; cap {eur(t['cap_eur'])}",
        f"batch   {eur(t['batch_eur'])} expected at the provider's batch rate"
        if t["batch_eur"] is not None
        else "batch   no batch price known",
    ]
    if t["exam_eur"]:
        lines.append(f"        + {eur(t['exam_eur'])} for the teacher's own examination")
    if t["cap_eur"] < t["expected_eur"]:
        lines.append(
            "        the cap is below the expected cost: the run will stop there and can go on with a higher one"
        )
    return lines


def _training(plan: dict[str, Any]) -> list[str]:
    work = plan["training"]
    if work is None:
        return ["the student's size is not known: no estimate of compute and memory"]
    lines = [
        f"{work['rows']:,} rows, {work['steps']:,} steps, {work['tokens']:,} tokens through "
        f"{work['student_params'] / 1e9:.3g}B parameters ({work['params_from']}), "
        f"{work['trainable_params'] / 1e6:,.3g}M of them trained",
        f"compute {work['flop']:.2e} FLOP, memory about {work['memory_bytes'] / 1e9:.2g} GB",
    ]
    for gpu in plan["gpus"]:
        cost = f"{eur(gpu['eur'])} at {gpu['price']}" if gpu["eur"] is not None else "price unknown"
        fit = "fits" if gpu["fits"] else "DOES NOT FIT"
        lines.append(
            f"{gpu['count']} x {gpu['gpu']:<10} {fit}, {_duration(gpu['hours'])}, {cost}, "
            f"{gpu['kwh']:.2g} kWh, {gpu['g_co2e']:.2g} g CO2e"
        )
    zone = plan["zone"]
    lines.append(
        f"electricity {zone['zone']}: {zone['g_per_kwh']:g} g CO2e/kWh "
        f"({zone['year'] or 'year unknown'}, {zone['source']}); cards at {MFU:.0%} of their peak"
    )
    return lines


def _evaluation(tasks: list[dict[str, Any]]) -> list[str]:
    if not tasks:
        return ["no tasks: nothing will be shown about the student. Add eval.tasks"]
    lines = []
    for task in tasks:
        drop, needed = task["visible_drop"]["0.2"], task["items_for_margin"]["0.2"]
        enough = "enough" if task["items"] >= needed else "TOO FEW"
        lines += [
            f"{task['task']}: {task['items']:,} items in {task['clusters']:,} clusters: shows a drop of "
            f"{100 * drop:.1f} points or more",
            f"  to pass a margin of {100 * task['margin']:g} points, an equal student needs {needed:,} items: {enough}",
        ]
    return [*lines, "if the two differ on 20 % of the items; 80 % power; large clusters count for fewer items"]


def _permission(plan: dict[str, Any]) -> list[str]:
    policy = plan["policy"]
    lines = [f"use: {policy['use']}; prompts may go to: {', '.join(policy['regions'])}"]
    for v in plan["permission"]:
        mark = "ok " if v["passes"] else "NO "
        lines.append(f"{mark} {v['kind']}, {v['role']} {v['subject']}: {v['verdict'].replace('_', ' ')}: {v['why']}")
        lines += [f"      must: {catalog.OBLIGATIONS.get(code, code)}" for code in v["obligations"]]
        if v["waiver"]:
            lines.append(f"      waived by {v['waiver']}")
        if not v["passes"]:
            lines.append(f"      unblocked by: {v['unblock']}")
        if v["source"]:
            lines.append(f"      read: {v['source']}")
    return [*lines, "not legal advice"]


def _gpai(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["the student's size is not known: the compute cannot be compared"]
    verdict = "ABOVE: you would become the provider of a general-purpose model" if found["new_provider"] else "below"
    return [
        f"training {found['training_flop']:.1e} + teacher's answers {found['teacher_flop']:.1e} FLOP "
        f"(size: {found['teacher_size']})",
        f"= {100 * found['share']:.2g} % of {found['threshold_flop']:.1e} ({found['threshold']}): {verdict}",
    ]


def _worth(found: dict[str, Any]) -> list[str]:
    fixed = found["student_eur_per_month"]
    lines = [
        f"at {found['volume_per_month']:,} requests per month (--volume); one-off {eur(found['one_off_eur'])}, "
        "people not counted unless you do (--one-off-eur)"
    ]
    if fixed is None:
        lines.append("the student's machine has no price: state eval.serving.eur_per_hour to compare")
    else:
        lines.append(f"the student's machine, always on: {eur(fixed)} per month; how much it carries, the run measures")
    for rival in found["against"]:
        lines.append(f"{rival['name']}: {eur(rival['eur_per_1000'])} per 1000, {eur(rival['eur_per_month'])} per month")
        if fixed is not None:
            lines.append(f"  {_verdict(rival)}")
    if not found["against"]:
        lines.append("no API price to compare with")
    return [*lines, "whether a cheap API is good enough, only an evaluation says: distill compare"]


def _actual(rows: list[dict[str, Any]]) -> list[str]:
    return [
        f"{row['what']:<24} planned {row['planned']:>14,.6g}   actual {row['actual']:>14,.6g}"
        + (f"   {row['above']:+.0%}" if row["above"] is not None else "")
        for row in rows
    ]


def _verdict(rival: dict[str, Any]) -> str:
    start = rival["from_requests_per_month"]
    if start is None:
        return "do not distil for the price: a request costs nothing there"
    if rival["cheaper_at_volume"]:
        month = rival["pays_back_in_month"]
        return f"the student is cheaper from {start:,.0f} requests per month on; paid back in month {month} at yours"
    return f"do not distil for the price at this volume: the student is cheaper from {start:,.0f} requests per month on"


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min" if hours >= 1 / 60 else "under a minute"


def eur(value: float | None) -> str:
    """Euros with as many digits as matter; None is 'unknown'."""
    if value is None:
        return "unknown"
    return f"{value:,.2f} EUR" if value >= 0.1 or value == 0 else f"{value:.2g} EUR"
