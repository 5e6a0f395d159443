"""What the run knows of itself, read from its own files: everything a paper says comes from here."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from distill.artifacts import sha256_file
from distill.errors import DataError, IntegrityError
from distill.records import Message
from distill.release.words import words

if TYPE_CHECKING:
    from pathlib import Path

    from distill.artifacts import RunFolder
    from distill.catalog.route import Route
    from distill.config import RunConfig
    from distill.models import Resolved

UNJUDGED = "This run has no evaluation."
OWN_HOST = re.compile(r"^(localhost|[\d.]+|\[.*|[^.]+|.*\.(local|internal|lan|home\.arpa))$")


@dataclass(frozen=True)
class Record:
    """One run, as its files tell it."""

    name: str
    version: str
    settings: dict[str, Any]
    """Resolved configuration without local paths and private addresses."""
    base: Resolved
    student: dict[str, Any]
    """student/student.json"""
    data: dict[str, Any]
    """data/card.json"""
    report: dict[str, Any]
    """eval/report.json"""
    versions: dict[str, str]
    git_revision: str | None
    config_sha256: str
    rows: int
    """Rows of data/train.parquet."""
    languages: tuple[str, ...]
    """As declared in the configuration, else as found in the data, the most frequent first."""
    teachers: dict[str, int]
    """Teacher -> answers of it in the training data."""
    asked: dict[str, Any]
    """`prompts` as the student is asked: its system message, worked examples, template."""
    route: Route
    """Where the teacher was asked."""
    permission: list[dict[str, Any]]
    """What the gates found about every part of the chain (see distill.gates)."""
    data_hashes: dict[str, str]
    """File of the data stage -> SHA-256."""

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name}-{self.version}"

    @property
    def base_name(self) -> str:
        """Official id of the base model where the catalogue knows it."""
        from distill.catalog import route

        found = route.official(self.settings["student"]["model"])
        return self.base.name if ":" in found else found

    @property
    def head(self) -> tuple[Message, ...]:
        """What stands before every question: the system message and the worked examples."""
        asked = self.asked
        system = (Message("system", asked["system"]),) if asked["system"] else ()
        turns = (
            m for e in asked["examples"] for m in (Message("user", e["user"]), Message("assistant", e["assistant"]))
        )
        return (*system, *turns)

    @property
    def teacher_name(self) -> str:
        """Official id of the teacher, as far as the catalogue knows it."""
        return str(public(self.route.official_model))

    @property
    def verdict(self) -> str:
        """The evaluation's one sentence, or a sentence that says there is none."""
        return self.verdict_in("en")

    def verdict_in(self, language: str) -> str:
        """The same in another language. English where a report of an earlier version has no other."""
        said = self.report.get("verdict", {})
        return str(said.get(language, {}).get("sentence") or said.get("sentence") or words(language)(UNJUDGED))

    def labels_in(self, language: str) -> dict[str, str]:
        """System of the evaluation -> what it is called in a language."""
        known = self.report.get("verdict", {}).get(language, {}).get("labels", {})
        arms = self.report.get("arms", [])
        return {arm["name"]: known.get(arm["name"]) or arm.get("label") or arm["name"] for arm in arms}


def read(config: RunConfig, folder: RunFolder, base: Resolved) -> Record:
    """Read every record of the run. Raises DataError for a file that is missing or damaged, Refused by a gate."""
    student = _json(folder.student / "student.json", required=True)
    if student.get("base_sha256") not in (None, base.sha256):
        raise IntegrityError(
            f"not the base that was trained: {base.sha256[:12]}, trained on {str(student['base_sha256'])[:12]}",
            where=str(base.path),
            next="bring the old weights back, or train again",
        )
    from distill import gates
    from distill.catalog import route

    made = _json(folder.config)
    languages, teachers, rows = _counts(folder.train_data)
    return Record(
        name=config.name,
        version=config.release.version,
        settings=public(config.resolved()),
        base=base,
        student=public(student),
        data=public({name: value for name, value in _json(folder.data_card).items() if name != "permission"}),
        report=_json(folder.report_json),
        versions=made.get("versions", {}),
        git_revision=made.get("git_revision"),
        config_sha256=config.hash(),
        rows=rows,
        languages=config.release.languages or languages,
        teachers=teachers,
        data_hashes={f"data/{f.name}": sha256_file(f) for f in (folder.train_data, folder.holdout_data) if f.is_file()},
        asked=public(config.student_prompts().model_dump(mode="json")),
        route=route.route_of(config.teacher),
        permission=gates.as_json(gates.check(config)),
    )


def _json(path: Path, required: bool = False) -> dict[str, Any]:
    if not path.is_file():
        if required:
            raise DataError("missing", where=str(path), next="distill train, then distill eval")
        return {}
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise DataError("not a JSON object", where=str(path), next="run the stage that writes it again")
    return value


def _counts(path: Path) -> tuple[tuple[str, ...], dict[str, int], int]:
    """(languages, teacher -> answers, rows) of the training data."""
    if not path.is_file():
        return (), {}, 0
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["lang", "teacher"])
    langs = Counter(lang for lang in table["lang"].to_pylist() if lang)
    teachers = Counter(public(str(teacher)) for teacher in table["teacher"].to_pylist() if teacher)
    order = sorted(langs, key=lambda lang: (-langs[lang], lang))
    return tuple(order), dict(sorted(teachers.items())), table.num_rows


def public(value: Any, key: str = "") -> Any:
    """The same value as a stranger may see it: of a local path the last part, of a private address nothing."""
    if isinstance(value, dict):
        return {name: public(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [public(item, key) for item in value]
    if not isinstance(value, str):
        return value
    if key == "base_url" or value.startswith(("http://", "https://")):
        return _public_url(value)
    if value.startswith("path:"):
        return f"path:{value.removeprefix('path:').rstrip('/').rpartition('/')[2]}"
    if key in ("path", "previous", "sign_key", "sign_certificate") or (
        value.startswith(("/", "~/", "../", "./")) and "\n" not in value and " " not in value
    ):
        return value.rstrip("/").rpartition("/")[2]
    return value


def _public_url(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if OWN_HOST.match(host):
        return "(private address)"
    return parts._replace(netloc=host + (f":{parts.port}" if parts.port else ""), query="", fragment="").geturl()
