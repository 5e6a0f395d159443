"""Stage 4: student -> release/<name>-<version>/, each form checked against the student, scanned, sealed.

The bundle's bytes depend on the run folder and the configuration only: not on time, place, locale or umask.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill import pdf, plugins
from distill.artifacts import new_folder
from distill.errors import ConfigError, DataError
from distill.progress import say
from distill.release import (
    bom,
    card,
    cascade,
    check,
    dossier,
    facts,
    licence,
    pages,
    papers,
    previous,
    record,
    rescore,
    scan,
    seal,
    sign,
    verify_bundle,
    words,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.artifacts import RunFolder
    from distill.config import RunConfig
    from distill.models import Resolved
    from distill.plugins import PluginConfig
    from distill.release.record import Record
    from distill.release.targets._base import Export, Job

VERSION = 1
SETTINGS = ("name", "seed", "prompts", "teacher", "generate", "student", "train", "eval", "release", "policy")
AFTER = ("generate", "train", "eval")
TARGETS = "distill.release.targets"


def inputs(config: RunConfig) -> list[Path]:
    """The previous release's list of hashes. (The base weights' hash is compared with the one trained on.)"""
    return [config.resolve(config.release.previous) / verify_bundle.SUMS] if config.release.previous else []


def run(config: RunConfig, folder: RunFolder) -> Sequence[Path]:
    """Build, check, scan and seal the bundle. Raises GateFailed, Refused, IntegrityError, ConfigError, DataError."""
    from distill.models import resolve

    refuse_incomplete(config.release.targets)
    base = resolve(config.student.model, config.resolve("."))
    licence.refuse_conflict(base.licence, config.release.licence)
    made = record.read(config, folder, base)
    final = folder.release / made.title
    with new_folder(final) as bundle:
        job = _job(made, base, folder, bundle)
        exports = {_label(target): _module(target).export(job, target) for target in config.release.targets}
        checks = _check(job, folder, exports)
        _rescore(job, folder, config, exports, checks, str(made.report.get("candidate")))
        if cascade.write(job, folder, [target.kind for target in config.release.targets]):
            checks["cascade"] = {"folder": cascade.FOLDER}
        _write_papers(made, folder, job, checks)
        if config.release.previous:
            _compare(made, bundle, config)
        scan.refuse_leaks(bundle, [folder.path, base.path, config.resolve(".")])
        scan.refuse_personal_data(bundle, (config.release.declared.contact, *config.release.allow_personal_data))
        if config.release.pdf:
            _print(bundle)
        seal.seal(bundle)
        if config.release.sign_key:
            named = config.resolve(config.release.sign_certificate) if config.release.sign_certificate else None
            sign.sign(bundle, config.resolve(config.release.sign_key), config.release.sign_password_env, named)
    say(f"release: {final}")
    return [final]


def refuse_incomplete(targets: Sequence[PluginConfig]) -> None:
    """ConfigError when a target is named twice, or needs another that is not named."""
    kinds, labels = [target.kind for target in targets], [_label(target) for target in targets]
    for number, target in enumerate(targets):
        if labels[number] in labels[:number]:
            raise ConfigError(f"{labels[number]!r} is named twice", where="release.targets")
        if lacking := [kind for kind in _module(target).NEEDS if kind not in kinds[:number]]:
            raise ConfigError(f"{target.kind!r} needs {lacking[0]!r} before it", where="release.targets")


def _module(target: PluginConfig) -> Any:
    return plugins.load(TARGETS, target.kind)


def _label(target: PluginConfig) -> str:
    return str(getattr(target, "label", target.kind))


def _compare(made: Record, bundle: Path, config: RunConfig) -> None:
    """Write what changed since the previous release, and hold the student to it."""
    changes = previous.compare(bundle, config.resolve(config.release.previous), config.eval.margin)
    (bundle / "papers" / "changes.md").write_bytes(previous.markdown(changes, made.title).encode("utf-8"))
    (bundle / "papers" / "changes.json").write_bytes(_json(changes).encode("utf-8"))
    for line in previous.summary(changes):
        say(line)
    previous.gate(changes)


def _job(made: Record, base: Resolved, folder: RunFolder, bundle: Path) -> Job:
    from distill.release.targets._base import Job

    adapter = folder.student / "adapter"
    has_adapter = (adapter / "adapter_config.json").is_file()
    if not has_adapter and not any(folder.student.glob("*.safetensors")):
        raise DataError("neither adapter nor weights here", where=str(folder.student), next="distill train")
    return Job(
        base=base.path,
        student=folder.student,
        adapter=adapter if has_adapter else None,
        bundle=bundle,
        name=made.title,
        base_name=made.base_name,
        head=made.head,
        record=made,
    )


def _check(job: Job, folder: RunFolder, exports: dict[str, Export]) -> dict[str, dict[str, Any]]:
    """Target -> its facts, with how far its logits are from the student's where it holds weights."""
    results: dict[str, dict[str, Any]] = {kind: dict(export.facts) for kind, export in exports.items()}
    if not any(export.load for export in exports.values()):
        return results
    reference = check.Reference(job, check.probes(folder))
    for kind, export in exports.items():
        if export.load is not None:
            distance = reference.compare(kind, export)
            say(f"{kind}: logits at most {distance.worst:.2g} from the student's, {distance.tolerance:g} allowed")
            results[kind]["check"] = distance.as_json()
    return results


def _rescore(
    job: Job,
    folder: RunFolder,
    config: RunConfig,
    exports: dict[str, Export],
    checks: dict[str, dict[str, Any]],
    arm: str,
) -> None:
    """Add each form's score on the evaluation's own items. A form whose logits are the student's own is not asked."""
    from distill.models import load_tokenizer

    asked = rescore.questions(config, folder, arm)
    for kind, export in exports.items():
        if not asked or export.load is None or checks[kind]["check"]["worst"] == 0:
            continue
        if export.engine is not None:
            opened = export.engine(rescore.CONTEXT)
            checks[kind]["score"] = rescore.rescore_engine(kind, opened, load_tokenizer(job.weights), asked, config)
        elif any(name.endswith(".safetensors") for name in export.files):
            checks[kind]["score"] = rescore.rescore(kind, job.bundle / checks[kind]["folder"], asked, config)
        else:
            with tempfile.TemporaryDirectory(prefix=".tmp-", dir=job.bundle.parent) as unpacked:
                model, tokenizer = export.load("auto")
                model.save_pretrained(unpacked)
                tokenizer.save_pretrained(unpacked)
                del model
                checks[kind]["score"] = rescore.rescore(kind, Path(unpacked), asked, config)


def _write_papers(made: Record, folder: RunFolder, job: Job, checks: dict[str, dict[str, Any]]) -> None:
    bundle = job.bundle
    config = json.loads((job.weights / "config.json").read_text("utf-8"))
    known = facts.gather(made, job.weights, config, checks)
    missing = licence.write(made, bundle)
    (bundle / "papers").mkdir()
    (bundle / "config").mkdir()
    for page in folder.report_pages:
        shutil.copyfile(page, bundle / page.name)
    files = {
        "README.md": card.model_card(made, checks, missing),
        **{f"papers/dossier.{lang}.md": dossier.markdown(made, known, lang) for lang in dossier.LANGUAGES},
        **{f"papers/dossier.{lang}.html": dossier.html(made, known, lang) for lang in dossier.LANGUAGES},
        "papers/dossier.json": _json(dossier.machine_readable(known)),
        "bom.cdx.json": _json(bom.bill(made, bundle, str(config.get("model_type")))),
        "config/run.json": _json({"config": made.settings, "sha256": made.config_sha256, "versions": made.versions}),
        "release.json": _json(
            {
                "name": made.name,
                "version": made.version,
                "base": {"name": made.base_name, "sha256": made.base.sha256, "licence": made.base.licence},
                "targets": checks,
                "verdict": made.verdict,
                "accuracy": card.accuracies(made.report, "student"),
            }
        ),
    }
    for language in words.LANGUAGES:
        files |= _papers(made, checks, missing, language)
    samples = folder.eval / f"{made.report.get('candidate')}.parquet"
    if samples.is_file():
        files[previous.SCORES] = _json(previous.scores(samples))
    for name, text in files.items():
        (bundle / name).write_bytes(text.encode("utf-8"))


def _papers(made: Record, checks: dict[str, dict[str, Any]], missing: list[str], language: str) -> dict[str, str]:
    """Name -> text of the papers in one language, each as Markdown and as a page; the card's Markdown is README.md."""
    end = "" if language == "en" else f".{language}"
    texts = {
        "distillation": papers.distillation(made, language),
        "data": papers.data_card(made, language),
        "card": card.model_card(made, checks, missing, language),
    }
    found = {f"papers/{name}{end}.html": pages.page(text, language) for name, text in texts.items()}
    return found | {f"papers/{name}{end}.md": text for name, text in texts.items() if name + end != "card"}


def _print(bundle: Path) -> None:
    """Each paper as PDF beside its page. The report's own PDF, where `eval.pdf` made one, was copied with its page."""
    for path in sorted((bundle / "papers").glob("*.html")):
        path.with_suffix(".pdf").write_bytes(pdf.from_html(path.read_text("utf-8")))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
