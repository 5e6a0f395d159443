"""A CycloneDX 1.6 bill of materials of the model: what it is made of, how it was measured, every weight file's hash."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from distill.artifacts import sha256_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from distill.release.record import Record

SPACE = uuid.UUID("6f4c1a39-1f5f-5c0b-9d0e-6e0a3f1d2b7c")
SPDX = {"apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-2-clause": "BSD-2-Clause", "bsd-3-clause": "BSD-3-Clause"}
SPDX |= {"cc-by-4.0": "CC-BY-4.0", "cc-by-nc-4.0": "CC-BY-NC-4.0", "cc0-1.0": "CC0-1.0", "isc": "ISC"}
WEIGHTS = (".safetensors", ".gguf", ".onnx")


def bill(record: Record, bundle: Path, architecture: str) -> dict[str, Any]:
    """The bill as JSON values. No time stamp: the same release gives the same bill."""
    student, base, data = "student", "base", "training-data"
    teachers = {name: f"teacher-{number}" for number, name in enumerate(record.teachers, 1)}
    libraries = [
        {"type": "library", "bom-ref": f"pkg:pypi/{name}@{version}", "name": name, "version": version}
        | {"purl": f"pkg:pypi/{name}@{version.replace('+', '%2B')}"}
        for name, version in sorted(record.versions.items())
        if name != "python"
    ]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(SPACE, record.title + record.config_sha256)}",
        "version": 1,
        "metadata": {"component": _student(record, bundle, architecture, student, data)},
        "components": [
            _base(record, base),
            *({"type": "machine-learning-model", "bom-ref": ref, "name": name} for name, ref in teachers.items()),
            _data(record, data),
            *libraries,
        ],
        "dependencies": [
            {"ref": student, "dependsOn": [base, data, *(item["bom-ref"] for item in libraries)]},
            {"ref": data, "dependsOn": list(teachers.values())},
        ],
    }


def _student(record: Record, bundle: Path, architecture: str, ref: str, data: str) -> dict[str, Any]:
    """The model itself, its card, and its weight files with their hashes."""
    return {
        "type": "machine-learning-model",
        "bom-ref": ref,
        "name": record.name,
        "version": record.version,
        "description": record.settings["release"]["summary"] or f"Distilled from {record.teacher_name}",
        "licenses": _licence(record.settings["release"]["licence"]),
        "pedigree": {
            "ancestors": [_base(record, "base-as-trained")],
            "notes": f"Trained with {record.settings['train']['method']} on answers of {record.teacher_name}.",
        },
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": "text-generation",
                "architectureFamily": architecture,
                "datasets": [{"ref": data}],
                "inputs": [{"format": "text"}],
                "outputs": [{"format": "text"}],
            },
            "quantitativeAnalysis": {"performanceMetrics": _metrics(record.report)},
            "considerations": {"technicalLimitations": ["Copies errors of its teacher; see report.html."]},
        },
        "components": [
            {
                "type": "file",
                "name": path.relative_to(bundle).as_posix(),
                "hashes": [{"alg": "SHA-256", "content": sha256_file(path)}],
            }
            for path in sorted(bundle.rglob("*"))
            if path.suffix in WEIGHTS
        ],
    }


def _base(record: Record, ref: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": ref,
        "name": record.base_name,
        "hashes": [{"alg": "SHA-256", "content": record.base.sha256}],
    }
    if record.base.revision:
        found["version"] = record.base.revision
    return found | ({"licenses": _licence(record.base.licence)} if record.base.licence else {})


def _data(record: Record, ref: str) -> dict[str, Any]:
    hashes = record.data_hashes
    return {
        "type": "data",
        "bom-ref": ref,
        "name": f"training data of {record.title}",
        "data": [{"type": "dataset", "name": "teacher answers", "contents": {"properties": _rows(record, hashes)}}],
    } | ({"hashes": [{"alg": "SHA-256", "content": digest}]} if (digest := hashes.get("data/train.parquet")) else {})


def _rows(record: Record, hashes: Mapping[str, str]) -> list[dict[str, str]]:
    facts = {"rows": str(record.rows), "languages": ", ".join(record.languages)}
    facts |= {f"sha256 of {name}": digest for name, digest in sorted(hashes.items())}
    return [{"name": name, "value": value} for name, value in facts.items()]


def _licence(name: str) -> list[dict[str, Any]]:
    known = SPDX.get(name.lower())
    return [{"license": {"id": known} if known else {"name": name}}]


def _metrics(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Accuracy of the evaluated student, by task and by language, with its interval."""
    arm = report.get("candidate")
    return [
        {
            "type": "accuracy",
            "value": f"{row['arms'][arm]['accuracy']['value']:.6g}",
            "slice": f"{part}: {row['name']}",
            "confidenceInterval": {
                "lowerBound": f"{row['arms'][arm]['accuracy']['low']:.6g}",
                "upperBound": f"{row['arms'][arm]['accuracy']['high']:.6g}",
            },
        }
        for part, rows in (("task", report.get("tasks", [])), ("language", report.get("languages", [])))
        for row in rows
        if arm in row["arms"]
    ]
