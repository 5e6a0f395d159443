"""What the licences ask: LICENSE, NOTICE and the texts that came with the base travel with the weights."""

from __future__ import annotations

import shutil
from importlib import resources
from typing import TYPE_CHECKING

from distill import catalog
from distill.errors import Refused
from distill.gates.licences import PERMISSIVE

if TYPE_CHECKING:
    from pathlib import Path

    from distill.release.record import Record

TEXTS = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "NOTICE", "NOTICE.txt", "COPYING", "USE_POLICY.md")


def refuse_conflict(base_licence: str | None, released: str) -> None:
    """Raise Refused when weights under terms of their own would be released under other terms."""
    if base_licence is None or base_licence.lower() == released.lower():
        return
    if base_licence.lower() not in PERMISSIVE:
        raise Refused(
            f"the base is under {base_licence!r}, which a student of it keeps; release.licence says {released!r}",
            where="release.licence",
            safe="the trained student",
            next=f"release.licence={base_licence}",
        )


def write(record: Record, bundle: Path) -> list[str]:
    """Write LICENSE, NOTICE and `licences/`; returns what a person still has to add."""
    released = record.settings["release"]["licence"]
    missing: list[str] = []
    came_with = [record.base.path / name for name in TEXTS if (record.base.path / name).is_file()]
    for path in came_with:
        target = bundle / "licences" / "base" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    text = next((p for p in came_with if p.name.startswith(("LICEN", "COPYING"))), None)
    if released.lower() == "apache-2.0":
        (bundle / "LICENSE").write_bytes((resources.files("distill.release") / "texts" / "apache-2.0.txt").read_bytes())
    elif text is not None and released.lower() == (record.base.licence or "").lower():
        shutil.copyfile(text, bundle / "LICENSE")
    else:
        missing.append(f"the full text of the licence {released}")
    if record.base.licence is None:
        missing.append(f"the licence of the base model {record.base_name}: its source states none")
    elif text is None and record.base.licence.lower() != "apache-2.0":
        missing.append(f"the text of the base model's licence {record.base.licence}: it did not come with the weights")
    (bundle / "NOTICE").write_text(notice(record, missing), "utf-8")
    return missing


def notice(record: Record, missing: list[str]) -> str:
    """The NOTICE file: what this is derived from, what was changed, and what is still to be added."""
    lines = [
        record.title,
        "",
        f"These weights are derived from {record.base_name} ({record.base.licence or 'licence not stated'}).",
        f"SHA-256 of the base weights: {record.base.sha256}",
        "They were changed: the model was trained on answers of the teacher named below, and exported.",
        "",
        *(f"Teacher: {name} ({count} answers)" for name, count in record.teachers.items()),
    ]
    if asked := obligations(record):
        lines += ["", "What the terms in this chain ask (from a dated catalogue; not legal advice):"]
        lines += [f"- {role}: {asks} ({source})" for role, asks, source in asked]
    if missing:
        lines += ["", "Not in this bundle, to be added by whoever passes it on:", *(f"- {item}" for item in missing)]
    return "\n".join(lines) + "\n"


def obligations(record: Record) -> list[tuple[str, str, str]]:
    """(role and rows, what they ask, where that was read) of each finding of the gates that rests on a text."""
    found = []
    for finding in record.permission:
        if finding["kind"] != "licence" or not (finding["rows"] or finding["obligations"] or finding["waiver"]):
            continue
        asks = [f"{code}: {catalog.OBLIGATIONS.get(code, 'see the text')}" for code in finding["obligations"]]
        waived = [f"taken upon them by {finding['waiver']}"] if finding["waiver"] else []
        role = f"{finding['role']} {', '.join(finding['rows'])}".strip()
        found.append((role, "; ".join([*asks, *waived]) or "nothing recorded", finding["source"] or "not read"))
    return found
