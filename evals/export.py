"""A report in other people's formats: Every Eval Ever JSON (schema 0.3.0), and a model card's `model-index`.

python -m evals.export report.json --as every-eval-ever --out DIR --organisation NAME
python -m evals.export report.json --as model-index --arm student
"""

from __future__ import annotations

import argparse
import json
import re
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill import __version__
from distill.artifacts import write_json
from distill.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SCHEMA = "0.3.0"
HUB = re.compile(r"^(?:hub:)?([\w.-]+/[\w.-]+)(?:@.*)?$")


def every_eval_ever(report: Mapping[str, Any], organisation: str, at: float) -> list[dict[str, Any]]:
    """One record per system: every set with its score, interval and number of items. ``at``: seconds since 1970."""
    moment = f"{at:.0f}"
    return [
        {
            "schema_version": SCHEMA,
            "evaluation_id": f"{_plain(report['name'])}/{_plain(arm['model'] or arm['name'])}/{moment}",
            "retrieved_timestamp": moment,
            "source_metadata": {
                "source_name": report["name"],
                "source_type": "evaluation_run",
                "source_organization_name": organisation,
                "evaluator_relationship": "first_party",
            },
            "eval_library": {"name": "alambic", "version": __version__},
            "model_info": _model(arm),
            "evaluation_results": [_result(report, arm, *found) for found in _scores(report, arm)],
        }
        for arm in report["arms"]
    ]


def _model(arm: Mapping[str, Any]) -> dict[str, Any]:
    name = arm["model"] or arm["name"]
    hub = HUB.match(name)
    return {
        "name": name,
        "id": hub[1] if hub else name,
        **({"developer": hub[1].partition("/")[0]} if hub else {}),
        "additional_details": {
            "deployment_type": "unknown",
            "model_availability": "unknown",
            "arm": arm["name"],
            "held_to_legal_answers": str(arm["held"]).lower(),
        },
    }


def _scores(report: Mapping[str, Any], arm: Mapping[str, Any]) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """(set, items, accuracy) of each set; of everything where the sets are not told apart."""
    if not report["tasks"]:
        yield report["name"], arm["n"], arm["accuracy"]
    for task in report["tasks"]:
        yield task["name"], task["n"], task["arms"][arm["name"]]["accuracy"]


def _result(
    report: Mapping[str, Any], arm: Mapping[str, Any], name: str, items: int, score: Mapping[str, Any]
) -> dict[str, Any]:
    binary = report["method"]["metric"] == "accuracy"
    known = next((s for s in report["sets"] if s["name"] == name), None)
    details = {"licence": known["licence"], "kind": known["kind"]} if known else {}
    found: dict[str, Any] = {
        "evaluation_name": name,
        "source_data": {"dataset_name": name, "source_type": "other", "additional_details": details},
        "metric_config": {
            "metric_id": report["method"]["metric"],
            "metric_name": report["method"]["metric"],
            "metric_unit": "proportion",
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": 1.0,
        },
        "score_details": {
            "score": score["value"],
            "details": {"rejected": str(sum(arm["rejects"].values())), "clusters": str(report["method"]["clusters"])},
            "uncertainty": {
                "confidence_interval": {
                    "lower": score["low"],
                    "upper": score["high"],
                    "confidence_level": report["method"]["confidence"],
                    "method": "Wilson score on the effective number of items" if binary else "clustered t",
                },
                "num_samples": items,
            },
        },
    }
    return found


def model_index(report: Mapping[str, Any], arm_name: str) -> list[dict[str, Any]]:
    """The `model-index` of a model card: what the hub shows beside a model. Raises ConfigError for an unknown arm."""
    arm = next((a for a in report["arms"] if a["name"] == arm_name), None)
    if arm is None:
        names = ", ".join(a["name"] for a in report["arms"])
        raise ConfigError(f"no system is called {arm_name!r}", where="--arm", next=f"one of: {names}")
    kinds = {s["name"]: s["kind"] for s in report["sets"]}
    results = []
    for name, items, score in _scores(report, arm):
        kind = "text-classification" if kinds.get(name) == "classification" else "text-generation"
        interval = f"95 % interval {score['low']:.4f} to {score['high']:.4f}, n = {items}"
        results.append(
            {
                "task": {"type": kind},
                "dataset": {"name": name, "type": _plain(name)},
                "metrics": [{"type": report["method"]["metric"], "value": score["value"], "name": interval}],
            }
        )
    return [{"name": arm["model"] or arm["name"], "results": results}]


def _plain(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a report in another format; the index goes to standard output."""
    parser = argparse.ArgumentParser(prog="python -m evals.export", description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--as", dest="form", choices=("every-eval-ever", "model-index"), required=True)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the records")
    parser.add_argument("--organisation", default="unknown", help="who evaluated")
    parser.add_argument("--arm", default="student")
    args = parser.parse_args(arguments)
    report = load(args.report)
    if args.form == "model-index":
        print(json.dumps({"model-index": model_index(report, args.arm)}, indent=1, ensure_ascii=False))  # noqa: T201
        return
    args.out.mkdir(parents=True, exist_ok=True)
    for record in every_eval_ever(report, args.organisation, time.time()):
        path = args.out / f"{uuid.uuid4()}.json"
        write_json(path, record)
        print(path)  # noqa: T201


def load(path: Path) -> dict[str, Any]:
    """A report.json. Raises DataError when it is none."""
    try:
        report = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read: {error}", where=str(path)) from None
    if not isinstance(report, dict) or not {"arms", "tasks", "sets", "method"} <= report.keys():
        raise DataError("not a report of distill eval or compare", where=str(path))
    return report


if __name__ == "__main__":
    main()
