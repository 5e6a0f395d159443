"""The model card: README.md of the bundle, with the front matter that model hubs read."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from distill.release import licence
from distill.release.facts import emissions
from distill.release.record import public

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from distill.release.record import Record

FORMS: tuple[str, ...] = (
    "form",
    "folder",
    "precision",
    "MB",
    "largest logit distance",
    "allowed",
    "mean KL (nats)",
    "same top token",
)
FORMS += ("score (student's)",)
LANGUAGE = re.compile(r"^[a-z]{2,3}$")


def model_card(record: Record, exports: Mapping[str, Mapping[str, Any]], missing: list[str]) -> str:
    """README.md as text. ``exports``: target -> its facts and how far it is from the student."""
    parts = [
        front_matter(metadata(record)),
        f"# {record.title}\n",
        record.settings["release"]["summary"] or f"A student of {record.teacher_name}, made from {record.base_name}.",
        "\n## Is it good enough?\n",
        record.verdict,
        "",
        *_arms(record.report),
        "The full comparison, with intervals, costs and every lost item: `report.html`.",
        "\n## How it was made\n",
        *table(("", ""), _made(record)),
        "More: `papers/distillation.md` (objective and losses), `papers/data.md` (training data), `config/run.json`.",
        *_asks(record),
        "\n## How to use it\n",
        *_use(record, exports),
        "\n## What is in this bundle\n",
        "Each form of the weights was loaded back and its logits compared with the student's on held-out prompts.",
        "",
        *table(FORMS, (_export(kind, facts) for kind, facts in exports.items() if "check" in facts)),
        "`python verify.py` checks that every file is the one that was sealed and that no file was added.",
        "\n## Limits\n",
        *(f"- {line}" for line in _limits(record, missing)),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _asks(record: Record) -> list[str]:
    """What the licences of the chain ask of whoever passes the student on."""
    rows = licence.obligations(record)
    lines = ["\n## What the licences ask\n", *table(("part of the chain", "asks", "read"), rows)]
    return [*lines, "From a dated catalogue; not legal advice. The texts: `NOTICE`, `licences/`."] if rows else []


def metadata(record: Record) -> dict[str, Any]:
    """The card's front matter: keys as model hubs define them, nothing that is not known."""
    released = record.settings["release"]
    values: dict[str, Any] = {
        "base_model": record.base_name,
        "base_model_relation": "finetune",
        "license": released["licence"],
        "language": [code for code in record.languages if LANGUAGE.match(code)],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["distillation", f"teacher:{record.teacher_name}", "alambic"],
        "model-index": model_index(record),
        "co2_eq_emissions": _co2(record),
    }
    return {key: value for key, value in values.items() if value}


def model_index(record: Record) -> list[dict[str, Any]]:
    """The student's accuracy on each task, as measured by this run; [] when it was not evaluated."""
    results = [
        {
            "task": {"type": "text-generation"},
            "dataset": {"name": task, "type": "private"},
            "metrics": [{"type": "accuracy", "value": value, "verified": False}],
        }
        for task, value in accuracies(record.report, "student").items()
    ]
    return [{"name": record.title, "results": results}] if results else []


def accuracies(report: Mapping[str, Any], arm: str) -> dict[str, float]:
    """Task -> accuracy of an arm; {} when the report has none."""
    return {
        str(task["name"]): float(task["arms"][arm]["accuracy"]["value"])
        for task in report.get("tasks", [])
        if arm in task["arms"]
    }


def _co2(record: Record) -> dict[str, Any]:
    """As model hubs define it; {} unless energy was measured and its zone declared."""
    grams, declared = emissions(record), record.settings["release"]["declared"]
    if grams.mark == "missing":
        return {}
    values = {
        "emissions": float(grams.value),
        "source": grams.origin,
        "training_type": "fine-tuning",
        "geographical_location": declared["grid_zone"],
        "hardware_used": declared["hardware"],
    }
    return {name: value for name, value in values.items() if value != ""}


def front_matter(values: dict[str, Any]) -> str:
    """The YAML block on top of a card."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 10_000
    buffer = io.StringIO()
    yaml.dump(values, buffer)
    return f"---\n{buffer.getvalue()}---\n"


def table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    """Markdown lines of a table, and an empty line after it; [] without rows."""
    body = [f"| {' | '.join(cell(value) for value in row)} |" for row in rows]
    if not body:
        return []
    return [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *body, ""]


def cell(value: Any) -> str:
    """A value inside a Markdown table: on one line, without a bar that would end the cell or a tag."""
    if value is None or value == "":
        return "not known"
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _arms(report: Mapping[str, Any]) -> list[str]:
    """Accuracy of every system on every task, with its 95 % interval."""
    tasks = report.get("tasks", [])
    labels = {arm["name"]: arm.get("label") or arm["name"] for arm in report.get("arms", [])}
    head = ("accuracy, 95 % interval", *(f"{task['name']} ({task['n']} items)" for task in tasks))
    return table(
        head,
        (
            (label, *(interval(task["arms"].get(arm, {}).get("accuracy")) for task in tasks))
            for arm, label in labels.items()
        ),
    )


def interval(estimate: Mapping[str, float | None] | None) -> str | None:
    """`0.740 [0.680, 0.800]`; an open end is `?`."""
    if not estimate:
        return None
    value, low, high = ("?" if x is None else f"{x:.3f}" for x in (estimate[k] for k in ("value", "low", "high")))
    return f"{value} [{low}, {high}]"


def _made(record: Record) -> list[tuple[str, Any]]:
    adapter, train = record.settings["student"]["adapter"], record.settings["train"]
    adapted = "all weights" if adapter["kind"] == "none" else f"{adapter['kind']}, rank {adapter['r']}"
    return [
        ("base", f"{record.base_name}, weights SHA-256 `{record.base.sha256[:16]}`"),
        ("base weights taken from", public(record.base.source)),
        ("teacher", ", ".join(f"{name} ({count} answers)" for name, count in record.teachers.items())),
        ("training rows", record.rows),
        ("languages", ", ".join(record.languages)),
        ("method", f"{train['method']}, {adapted}"),
        ("steps", record.student.get("steps")),
        ("training tokens", record.student.get("tokens")),
        ("training time", f"{s:.0f} s" if isinstance(s := record.student.get("seconds"), int | float) else None),
        ("licence", record.settings["release"]["licence"]),
        ("made with", f"alambic {record.versions.get('alambic', '')}, configuration `{record.config_sha256[:16]}`"),
    ]


def _use(record: Record, exports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    prompts = record.asked
    lines = [
        "The student was trained on chats of exactly this shape; use the same system message and template.",
        "",
        *table(("", ""), [("system message", prompts["system"] or "none"), ("user message", prompts["template"])]),
    ]
    if "merged" in exports:
        turns = [*({"role": m.role, "content": m.content} for m in record.head), {"role": "user", "content": "..."}]
        lines += [
            "```python",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            'tokenizer = AutoTokenizer.from_pretrained("weights")',
            'model = AutoModelForCausalLM.from_pretrained("weights")',
            f"chat = {turns!r}",
            "text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)",
            'inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")',
            "answer = model.generate(**inputs, max_new_tokens=64)[0, inputs['input_ids'].shape[1] :]",
            "print(tokenizer.decode(answer, skip_special_tokens=True))",
            "```",
        ]
    return lines


def _export(kind: str, facts: Mapping[str, Any]) -> tuple[Any, ...]:
    check, score = facts["check"], facts.get("score")
    again = "the student's own" if check["worst"] == 0 else "not asked again"
    if score:
        again = f"{score['export']:.3f} ({score['student']:.3f}), {score['items']} items"
    size = f"{facts['bytes'] / 1e6:.1f}"
    figures = (check["worst"], check["tolerance"], check["mean_kl_nats"], f"{check['top1_agreement']:.1%}", again)
    return (kind, f"`{facts['folder']}/`", facts["precision"], size, *figures)


def _limits(record: Record, missing: list[str]) -> list[str]:
    lines = [
        "It knows what its base knew and what the teacher's answers showed; elsewhere it is the base model.",
        "It copies the teacher's errors; `report.html` lists those found.",
    ]
    if record.languages:
        lines.append(f"Languages other than {', '.join(record.languages)} were not trained.")
    if not record.report:
        lines.append("It was not evaluated in this run.")
    return [*lines, *(f"Missing from this bundle: {item}." for item in missing)]
