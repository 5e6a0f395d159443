"""Student first, teacher when unsure, for a bundle: the evaluation's threshold and a router that applies it."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from distill.errors import DataError
from distill.release.record import public

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from distill.artifacts import RunFolder
    from distill.release.targets._base import Job

FOLDER = "serve"
SERVERS = ("vllm", "llamacpp")
"""Targets whose servers say how likely each token was."""


def write(job: Job, folder: RunFolder, targets: Iterable[str]) -> tuple[str, ...]:
    """Write `serve/cascade.json` and `serve/router.py`, where the run has a cascade and a server for it; the paths."""
    from distill.release import cascade_router

    if not folder.cascade_json.is_file() or not set(targets) & set(SERVERS):
        return ()
    try:
        facts = dict(json.loads(folder.cascade_json.read_text("utf-8")))
    except ValueError:
        raise DataError("not JSON", where=str(folder.cascade_json), next="distill eval writes it anew") from None
    place = job.bundle / FOLDER
    text = json.dumps({**facts, **served(job, facts)}, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (place / "cascade.json").write_text(text + "\n", "utf-8")
    shutil.copyfile(str(cascade_router.__file__), place / "router.py")
    return f"{FOLDER}/cascade.json", f"{FOLDER}/router.py"


def served(job: Job, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What only the release knows: the name the bundle's server answers to, and where the teacher was asked."""
    assert job.record is not None
    teacher = job.record.settings["teacher"]
    address = teacher.get("base_url") or ""
    return {
        "models": public(facts["models"]),
        "serve": {
            "student": job.name,
            "teacher": teacher.get("model") or "",
            "teacher_url": address if address.startswith("http") else "",
            "teacher_key_env": teacher.get("api_key_env") or "",
        },
    }
