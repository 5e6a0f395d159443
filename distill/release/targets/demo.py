"""A page for the client: the student answers, the teacher beside it where there is a key, costs and energy count up."""

from __future__ import annotations

import json
import re
import shutil
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from distill.errors import ConfigError
from distill.release.measured import eur_per_1000, side_arm, wh_per_1000
from distill.release.targets._base import Export, Job, TargetConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

NEEDS: tuple[str, ...] = ()
FOLDER = "demo"
MARK = re.compile("\u27e8(.*?)\u27e9")


class Config(TargetConfig):
    """Page and small server. Behind it runs `llamacpp` or `vllm` of the same bundle, or a server that is named."""

    kind: str = "demo"
    """`demo`."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8765
    """Where it listens, on 127.0.0.1."""
    examples: tuple[dict[str, str], ...] = ()
    """Inputs to choose from, each with a text for every field of the student's template. The client sees them."""


def export(job: Job, config: Config) -> Export:
    """Write `demo/`: `serve.py` (Python's standard library only), the page, and `demo.json` with the run's figures."""
    from distill.release import demo_server

    folder = job.bundle / FOLDER
    folder.mkdir()
    shutil.copyfile(str(demo_server.__file__), folder / "serve.py")
    for page in (resources.files("distill.release") / "texts" / "demo").iterdir():
        if page.is_file():
            (folder / page.name).write_bytes(page.read_bytes())
    text = json.dumps(facts(job, config), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / "demo.json").write_text(text, "utf-8")
    files = sorted(f.relative_to(job.bundle).as_posix() for f in folder.iterdir())
    return Export(tuple(files), facts={"folder": FOLDER})


def facts(job: Job, config: Config) -> dict[str, Any]:
    """demo.json: how each model is asked, and what an answer costs by the run's own measurements; None = not known."""
    record = job.record
    assert record is not None
    settings, teacher = record.settings, record.settings["teacher"]
    lesson = settings["prompts"]
    shapes = [shape_of(template) for template in (record.asked["template"], lesson["template"])]
    fields = list(dict.fromkeys(name for shape in shapes for name in shape[1::2]))
    if strange := {name for example in config.examples for name in example} - set(fields):
        raise ConfigError(
            f"an example has the field {min(strange)!r}; the templates have: {', '.join(fields)}",
            where="release.targets",
        )
    address = teacher.get("base_url") or ""
    return {
        "name": job.name,
        "summary": settings["release"]["summary"],
        "verdict": record.verdict,
        "max_new_tokens": settings["generate"]["max_new_tokens"],
        "port": config.port,
        "fields": fields,
        "examples": [dict(example) for example in config.examples],
        "student": {
            "name": job.name,
            "shape": shapes[0],
            "head": _turns(record.asked),
            "figures": figures(record.report, "candidate"),
        },
        "teacher": {
            "name": record.teacher_name,
            "model": teacher["model"],
            "base_url": address if address.startswith("http") else "",
            "key_env": teacher.get("api_key_env") or "",
            "shape": shapes[1],
            "head": _turns(lesson),
            "figures": figures(record.report, "reference"),
        },
    }


def shape_of(template: str) -> list[str]:
    """The parts of a prompt template: every second one is a field's name.

    A template that does more with a field than to write it is one field: the whole message.
    """
    from jinja2 import meta
    from jinja2.sandbox import SandboxedEnvironment

    from distill.prompts import BadRow, fill

    fields = sorted(meta.find_undeclared_variables(SandboxedEnvironment().parse(template)))
    try:
        text = fill({name: f"\u27e8{name}\u27e9" for name in fields}, template)
    except BadRow:
        text = ""
    if not fields or set(MARK.findall(text)) != set(fields):
        return ["", "message", ""]
    return MARK.split(text)


def _turns(prompts: Mapping[str, Any]) -> list[dict[str, str]]:
    turns = [("system", prompts["system"])] if prompts["system"] else []
    for example in prompts["examples"]:
        turns += [("user", example["user"]), ("assistant", example["assistant"])]
    return [{"role": role, "content": content} for role, content in turns]


def figures(report: Mapping[str, Any], side: str) -> dict[str, Any]:
    """EUR, Wh and accuracy of one side of the comparison, per 1,000 requests; None where the report has none."""
    arm = side_arm(report, side)
    return {
        "eur_1000": eur_per_1000(report, side),
        "wh_1000": wh_per_1000(report, side)[0],
        "accuracy": (arm.get("accuracy") or {}).get("value"),
        "items": arm.get("n"),
    }
