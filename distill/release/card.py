"""The model card: README.md of the bundle, with the front matter that model hubs read."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from distill.release import licence
from distill.release.facts import emissions
from distill.release.record import public
from distill.release.words import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from distill.release.record import Record

FORMS: tuple[str, ...] = (
    "form",
    "folder",
    "precision",
    "judged in",
    "MB",
    "largest logit distance",
    "allowed",
    "mean KL (nats)",
    "same top token",
)
FORMS += ("score (student's)",)
LANGUAGE = re.compile(r"^[a-z]{2,3}$")


def model_card(
    record: Record, exports: Mapping[str, Mapping[str, Any]], missing: list[str], language: str = "en"
) -> str:
    """README.md as text. ``exports``: target -> its facts and how far it is from the student."""
    t = words(language)
    parts = [
        front_matter(metadata(record)),
        f"# {record.title}\n",
        record.settings["release"]["summary"]
        or t("A student of {a}, made from {b}.").format(a=record.teacher_name, b=record.base_name),
        f"\n## {t('Is it good enough?')}\n",
        record.verdict_in(language),
        "",
        *_arms(record, language),
        t("The full comparison, with intervals, costs and every lost item: `report.html`."),
        f"\n## {t('How it was made')}\n",
        *table(("", ""), _made(record, language), language),
        t("More: `papers/distillation.md` (objective, losses), `papers/data.md` (training data), `config/run.json`."),
        *_asks(record, language),
        f"\n## {t('How to use it')}\n",
        *_use(record, exports, language),
        f"\n## {t('What is in this bundle')}\n",
        t("Each form of the weights was loaded back and its logits compared with the student's on held-out prompts."),
        "",
        *table(tuple(map(t, FORMS)), (_export(k, facts, language) for k, facts in exports.items() if "check" in facts)),
        t("`python verify.py` checks that every file is the one that was sealed and that no file was added."),
        f"\n## {t('Limits')}\n",
        *(f"- {line}" for line in _limits(record, missing, language)),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _asks(record: Record, language: str) -> list[str]:
    """What the licences of the chain ask of whoever passes the student on."""
    t, rows = words(language), licence.obligations(record)
    lines = [f"\n## {t('What the licences ask')}\n", *table((t("part of the chain"), t("asks"), t("read")), rows)]
    last = t("From a dated catalogue; not legal advice. The texts: `NOTICE`, `licences/`.")
    return [*lines, last] if rows else []


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


def table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]], language: str = "en") -> list[str]:
    """Markdown lines of a table, and an empty line after it; [] without rows."""
    body = [f"| {' | '.join(cell(value, language) for value in row)} |" for row in rows]
    if not body:
        return []
    return [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *body, ""]


def cell(value: Any, language: str = "en") -> str:
    """A value inside a Markdown table: on one line, without a bar that would end the cell or a tag."""
    if value is None or value == "":
        return words(language)("not known")
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _arms(record: Record, language: str) -> list[str]:
    """Accuracy of every system on every task, with its 95 % interval."""
    t, tasks, labels = words(language), record.report.get("tasks", []), record.labels_in(language)
    head = (t("accuracy, 95 % interval"), *(f"{task['name']} ({task['n']} {t('items')})" for task in tasks))
    return table(
        head,
        (
            (label, *(interval(task["arms"].get(arm, {}).get("accuracy")) for task in tasks))
            for arm, label in labels.items()
        ),
        language,
    )


def interval(estimate: Mapping[str, float | None] | None) -> str | None:
    """`0.740 [0.680, 0.800]`; an open end is `?`."""
    if not estimate:
        return None
    value, low, high = ("?" if x is None else f"{x:.3f}" for x in (estimate[k] for k in ("value", "low", "high")))
    return f"{value} [{low}, {high}]"


def _made(record: Record, language: str) -> list[tuple[str, Any]]:
    t = words(language)
    adapter, train = record.settings["student"]["adapter"], record.settings["train"]
    adapted = t("all weights") if adapter["kind"] == "none" else f"{adapter['kind']}, {t('rank')} {adapter['r']}"
    return [
        (t("base"), f"{record.base_name}, {t('weights SHA-256')} `{record.base.sha256[:16]}`"),
        (t("base weights taken from"), public(record.base.source)),
        (t("teacher"), ", ".join(f"{name} ({count} {t('answers')})" for name, count in record.teachers.items())),
        (t("training rows"), record.rows),
        (t("languages"), ", ".join(record.languages)),
        (t("method"), f"{train['method']}, {adapted}"),
        (t("steps"), record.student.get("steps")),
        (t("training tokens"), record.student.get("tokens")),
        (t("training time"), f"{s:.0f} s" if isinstance(s := record.student.get("seconds"), int | float) else None),
        (t("licence"), record.settings["release"]["licence"]),
        (
            t("made with"),
            f"alambic {record.versions.get('alambic', '')}, {t('configuration')} `{record.config_sha256[:16]}`",
        ),
    ]


def _use(record: Record, exports: Mapping[str, Mapping[str, Any]], language: str) -> list[str]:
    t, prompts = words(language), record.asked
    lines = [
        t("The student was trained on chats of exactly this shape; use the same system message and template."),
        "",
        *table(
            ("", ""), [(t("system message"), prompts["system"] or t("none")), (t("user message"), prompts["template"])]
        ),
    ]
    starts = {
        "demo": ("python demo/serve.py", "page and endpoint"),
        "llamacpp": ("sh serve/llamacpp/serve.sh", "llama.cpp"),
        "vllm": ("sh serve/vllm/serve.sh", "vLLM"),
        "cascade": ("python serve/router.py --help", "student first, teacher when unsure"),
        "ollama": ("cd serve/ollama && cat README.md", "Ollama"),
    }
    rows = [(f"`{command}`", t(said)) for kind, (command, said) in starts.items() if kind in exports]
    lines += table((t("to start"), ""), rows)
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


def _export(kind: str, facts: Mapping[str, Any], language: str) -> tuple[Any, ...]:
    t, check, score = words(language), facts["check"], facts.get("score")
    again = t("the student's own" if check["worst"] == 0 else "not asked again")
    if score:
        again = f"{score['export']:.3f} ({score['student']:.3f}), {score['items']} {t('items')}"
        if score.get("same_text") is not None:
            again += f", {t('same text')} {score['same_text']}"
    size = f"{facts['bytes'] / 1e6:.1f}"
    figures = (check["worst"], check["tolerance"], check["mean_kl_nats"], f"{check['top1_agreement']:.1%}", again)
    return (kind, f"`{facts['folder']}/`", facts["precision"], check["computed_in"], size, *figures)


def _limits(record: Record, missing: list[str], language: str) -> list[str]:
    t = words(language)
    lines = [
        t("It knows what its base knew and what the teacher's answers showed; elsewhere it is the base model."),
        t("It copies the teacher's errors; `report.html` lists those found."),
    ]
    if record.languages:
        lines.append(t("Languages other than {a} were not trained.").format(a=", ".join(record.languages)))
    if not record.report:
        lines.append(t("It was not evaluated in this run."))
    return [*lines, *(f"{t('Missing from this bundle')}: {item}." for item in missing)]
