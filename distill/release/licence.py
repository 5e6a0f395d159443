"""What the licences ask: LICENSE, NOTICE and the texts that came with the base travel with the weights."""

from __future__ import annotations

import shutil
from importlib import resources
from typing import TYPE_CHECKING

from distill import catalog
from distill.errors import Refused

if TYPE_CHECKING:
    from pathlib import Path

    from distill.catalog.rows import LicenceRow
    from distill.release.record import Record

PERMISSIVE = frozenset({"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "cc0-1.0", "cc-by-4.0"})
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
    rows = obligations(record)
    if rows:
        lines += ["", "What the terms in this chain ask (from a dated catalogue; not legal advice):"]
        for role, row in rows:
            asks = ", ".join(row.obligations) or "nothing recorded"
            lines.append(f"- {role}: {row.id}: {asks} (read {row.as_of}: {row.source})")
    if missing:
        lines += ["", "Not in this bundle, to be added by whoever passes it on:", *(f"- {item}" for item in missing)]
    return "\n".join(lines) + "\n"


def obligations(record: Record) -> list[tuple[str, LicenceRow]]:
    """(role, dated row of the catalogue) for the base and the teacher, as far as the catalogue knows them."""
    chain = [(f"base {record.base_name}", record.base_name), (f"teacher {record.teacher_name}", record.teacher_name)]
    found = [(role, _row(model)) for role, model in chain]
    return [(role, row) for role, row in found if row is not None]


def _row(model: str) -> LicenceRow | None:
    best = max(catalog.licences(), key=lambda row: row.fit(model), default=None)
    return best if best is not None and best.fit(model) else None
