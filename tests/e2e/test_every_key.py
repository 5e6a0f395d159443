"""Every configuration key changes behaviour: one changed value, one difference in what the run writes.

A new key needs a line in CHANGES; a key that nothing reads cannot get one that passes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from distill import cli, config, counters, pdf
from tests.e2e.line import CONFIG, sends, write_run

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel

VOLATILE = {"seconds", "tokens_per_s", "peak_rss_mb", "versions", "eur", "wh"}
EXTRA = "rows.jsonl"


@dataclass(frozen=True)
class Change:
    """``value`` for the key, ``shows`` in which part of the fingerprint; ``given`` holds for both runs.

    ``anew``: files that the second run does not inherit, so that it asks again.
    """

    value: Any
    shows: str
    given: dict[str, Any] = field(default_factory=dict)
    anew: tuple[str, ...] = ()


BROKEN = {"prompts.path": "broken.jsonl"}
LISTS = {
    "kind": "expand",
    "fields": {"thing": ["rose", "sky", "ink", "ruby"], "lang": ["en", "fr"]},
    "template": "{{ thing }}",
}
MADE = {"prompts.path": "", "prompts.cluster_field": None, "prompts.source": LISTS}
TOPK = {"teacher": {"kind": "transformers", "model": "path:taught", "dtype": "float32"}, "generate.signals_top_k": 4}
KD = {**TOPK, "train.method": "offline_topk"}
ON_POLICY = {
    "teacher": TOPK["teacher"],
    "student.model": "path:other",
    "train.method": "on_policy",
    "train.rollout_share": 1.0,
    "train.rollout_max_new_tokens": 4,
}
HARMFUL = {"train.lr": 0.5, "train.schedule": "constant", "train.eval_every": 1, "train.max_spike": 0}
NOISY = {"train.lr": 1e-6, "train.batch_size": 2, "train.micro_batch_size": 2, "train.max_spike": 0}
PAID = {
    "teacher": {
        "kind": "openai",
        "model": "qwen2.5-coder-0.5b-instruct",
        "base_url": "http://127.0.0.1:9/v1",
        "price": {"input": 1, "output": 1, "currency": "EUR", "as_of": "2026-11-01"},
        "max_attempts": 1,
        "deadline_s": 2,
    }
}
MISTRAL = {"teacher": {"kind": "openai", "provider": "scaleway", "model": "mistral-small-3.2-24b-instruct-2506"}}
WAIVER = [{"model": "path:unlicensed", "name": "A. Person", "date": "2026-11-01", "reason": "we made it ourselves"}]
LOAD = {"eval.load": {"concurrency": [1], "requests": 2, "arms": ["student"], "objective": {"e2e_s": 60}}}
LOAD_OF_ONE_PAID = {
    "eval.alternatives": [PAID["teacher"]],
    "eval.load": {"concurrency": [1], "requests": 2, "arms": ["alternative-1"]},
    "generate.max_cost_eur": 1.0,
}
ENERGY = {"eval.energy": {"zone": "FRA", "gpu": "L4"}}
MARK = "Q9-declared-by-a-person"

CHANGES: dict[str, Change] = {
    "name": Change("other", "bundle"),
    "seed": Change(4, "student"),
    "prompts.path": Change("test.jsonl", "requests"),
    "prompts.source": Change({**LISTS, "number": 5}, "requests", MADE),
    "prompts.system": Change("Say red or blue.", "requests"),
    "prompts.examples": Change([{"user": "sun", "assistant": "red"}], "requests"),
    "prompts.template": Change("a {{ thing }} ({{ lang }})", "requests"),
    "prompts.id_field": Change("twin", "rows"),
    "prompts.cluster_field": Change("id", "rows"),
    "prompts.lang_field": Change("label", "rows"),
    "prompts.languages": Change(["fr"], "requests"),
    "prompts.quotas": Change({"lang": {"fr": 4}}, "requests"),
    "prompts.limit": Change(8, "requests"),
    "prompts.choices": Change(["red", "blue", "green"], "requests"),
    "prompts.personal_data": Change("mask", "requests", {"prompts.path": "private.jsonl"}),
    "prompts.on_error": Change("skip", "end", BROKEN),
    "teacher": Change({"kind": "fake", "model": "fake-2"}, "requests"),
    "generate.samples": Change(2, "requests", {"generate.temperature": 0.5}),
    "generate.max_new_tokens": Change(9, "requests"),
    "generate.temperature": Change(0.7, "requests"),
    "generate.top_p": Change(0.9, "requests"),
    "generate.max_cost_eur": Change(1.0, "end", PAID),
    "generate.mix": Change([{"teacher": {"kind": "fake", "model": "fake-2"}}], "requests"),
    "generate.signals_top_k": Change(8, "signals", TOPK),
    "generate.signals_kind": Change("sampled", "signals", TOPK),
    "generate.executor": Change({"kind": "ray", "address": "127.0.0.1:1"}, "end"),  # 3, with or without ray
    "generate.filters": Change([{"kind": "length", "min_characters": 4}], "rows", {"generate.max_reject_rate": 0.9}),
    "generate.verifiers": Change([{"kind": "exact", "field": "label"}], "rows"),
    "generate.select": Change("first", "rows", {"generate.samples": 3, "generate.temperature": 0.5}),
    "generate.holdout": Change(0.4, "rows"),
    "generate.max_reject_rate": Change(0.01, "end", {"generate.verifiers": [{"kind": "exact", "field": "label"}]}),
    "student.model": Change("path:other", "student"),
    "student.adapter.kind": Change("dora", "student"),
    "student.adapter.r": Change(2, "student"),
    "student.adapter.alpha": Change(3, "student"),
    "student.adapter.dropout": Change(0.3, "student"),
    "student.adapter.targets": Change(["q_proj"], "student"),
    "student.prompt.system": Change("Which colour?", "rows"),
    "student.prompt.examples": Change([{"user": "sun", "assistant": "red"}], "rows"),
    "student.prompt.template": Change("{{ thing }}!", "rows"),
    "student.prune.layers": Change(1, "student"),
    "student.dtype": Change("bfloat16", "student"),
    "student.attention": Change("eager", "student"),
    "student.max_length": Change(102, "student"),
    "train.method": Change("offline_topk", "student", TOPK),
    "train.loss": Change("reverse_kl", "student", KD),
    "train.kd_weight": Change(0.3, "student", KD),
    "train.temperature": Change(3, "student", {**TOPK, "train.method": "whitebox", "student.model": "path:other"}),
    "train.lr": Change(1e-3, "student"),
    "train.schedule": Change("linear", "student"),
    "train.warmup": Change(0.5, "student"),
    "train.weight_decay": Change(0.5, "student"),
    "train.max_grad_norm": Change(1e-4, "student"),
    "train.epochs": Change(1, "student"),
    "train.batch_size": Change(4, "student"),
    "train.micro_batch_size": Change(2, "student"),
    "train.micro_batch_tokens": Change(150, "student"),
    "train.packing": Change(True, "student"),
    "train.gradient_checkpointing": Change(True, "student"),
    "train.liger": Change(True, "end"),  # 3 without CUDA or without the package; other roundings with both
    "train.max_spike": Change(0.001, "end", NOISY, anew=("checkpoints",)),
    "train.eval_every": Change(2, "student"),
    "train.patience": Change(1, "student", HARMFUL),
    "train.trackers": Change(["tensorboard"], "trackers"),
    "train.eur_per_hour": Change(2.0, "student"),
    "train.reasoning": Change(
        True, "student", {"teacher": {"kind": "fake", "replies": ["<think>why</think>red"]}, "prompts.choices": []}
    ),
    "train.rollout_share": Change(0.0, "student", ON_POLICY),
    "train.rollout_max_new_tokens": Change(2, "student", ON_POLICY),
    "train.rollout_temperature": Change(0.3, "student", ON_POLICY),
    "train.rollout_objective": Change("sampled", "student", ON_POLICY),
    "train.rollout_engine": Change(
        {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "nobody"}, "end", ON_POLICY
    ),
    "train.preference_beta": Change(1.0, "student", {"train.method": "preference", "train.rollout_max_new_tokens": 4}),
    "train.align": Change("uld", "student", {**ON_POLICY, "train.method": "cross_tokenizer"}),
    "train.max_steps": Change(2, "student"),
    "train.chunk_tokens": Change(1, "student"),
    "train.share_prefix": Change(False, "student"),
    "train.checkpoint_every_s": Change(3600, "checkpoints"),
    "train.keep_checkpoints": Change(1, "checkpoints"),
    "train.shard": Change(True, "end"),
    "train.threads": Change(2, "student"),
    "policy.use": Change("research", "end", {"student.model": "path:noncommercial"}),
    "policy.confidential": Change(True, "end", MISTRAL),
    "policy.hosts": Change(["api.scaleway.ai"], "end", {**MISTRAL, "policy.confidential": True}),
    "policy.made_with": Change(["nobody/set"], "end"),
    "policy.regions": Change(["DE"], "end", {**MISTRAL, "policy.regions": ["EU"]}),
    "policy.waivers": Change(WAIVER, "end", {"student.model": "path:unlicensed"}),
    "eval.tasks": Change([{"kind": "exact", "path": "test.jsonl", "gold_field": "label"}], "report"),
    "eval.arms": Change(["teacher", "base_forced", "student"], "report"),
    "eval.alternatives": Change([{"kind": "fake", "model": "fake-9"}], "report"),
    "eval.margin": Change(0.2, "report"),
    "eval.gate": Change("teacher", "end"),
    "eval.draws": Change(2000, "report"),
    "eval.self_consistency": Change(3, "report"),
    "eval.batch_size": Change(1, "report", anew=("run.db", "speed.json")),
    "eval.serving.eur_per_hour": Change(1.0, "report"),
    "eval.serving.utilisation": Change(1.0, "report"),
    "eval.serving.amortise_months": Change(3, "report"),
    "eval.serving.source": Change("elsewhere", "report"),
    "eval.teacher_serving": Change({"eur_per_hour": 9.0, "source": "x"}, "report"),
    "eval.examples": Change(1, "report"),
    "eval.languages": Change(["fr"], "pages"),
    "eval.pdf": Change(True, "pages"),
    "eval.load.concurrency": Change([1, 2], "report", LOAD),
    "eval.load.requests": Change(3, "report", LOAD),
    "eval.load.arms": Change(["teacher"], "report", LOAD),
    "eval.load.objective.ttft_s": Change(30, "report", LOAD),
    "eval.load.objective.tpot_s": Change(30, "report", LOAD),
    "eval.load.objective.e2e_s": Change(1e-9, "report", LOAD),
    "eval.load.objective.share": Change(0.5, "report", LOAD),
    "eval.load.paid": Change(True, "end", LOAD_OF_ONE_PAID),
    "eval.energy.zone": Change("POL", "report", ENERGY),
    "eval.energy.pue": Change(1.1, "report", ENERGY),
    "eval.energy.gpu": Change("A100-SXM-80GB", "report", ENERGY),
    "eval.energy.gpus": Change(2, "report", ENERGY),
    "eval.energy.watts": Change([10, 20], "report", ENERGY),
    "release.version": Change("0.3.0", "bundle"),
    "release.targets": Change(["adapter"], "bundle"),
    "release.licence": Change("mit", "bundle"),
    "release.summary": Change("Another sentence.", "bundle"),
    "release.languages": Change(["de"], "bundle"),
    "release.rescore": Change(0, "rescored"),
    "release.pdf": Change(True, "bundle"),
    "release.allow_personal_data": Change(
        ["anna@firma.pl"], "end", {"release.summary": "Sorts things for anna@firma.pl."}
    ),
    "release.sign_key": Change("key.pem", "bundle"),
    "release.sign_certificate": Change("key.pem", "end", {"release.sign_key": "key.pem"}),
    "release.sign_password_env": Change("NO_SUCH_PASSWORD", "end", {"release.sign_key": "key.pem"}),
    "release.previous": Change("base-0/release/tiny-0.1.0", "bundle", {"release.version": "0.2.0", "eval.margin": 0.5}),
    **{f"release.declared.{name}": Change(MARK, "declared") for name in config.Declared.model_fields},
}


def leaves(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted path of every setting; a plug-in's own settings belong to its contract tests."""
    found = []
    for name, info in model.model_fields.items():
        inner = [
            t
            for t in (info.annotation, *get_args(info.annotation))
            if isinstance(t, type) and issubclass(t, config.Section)
        ]
        if inner and name not in ("examples", "mix", "teacher_serving", "waivers"):
            found += leaves(inner[0], f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


def test_every_key_has_a_line_here():
    assert set(leaves(config.RunConfig)) == set(CHANGES)


@pytest.fixture(scope="module")
def folder(tiny_student, tiny_teacher, tmp_path_factory):
    """Data, two models, and the finished base run."""
    path = tmp_path_factory.mktemp("keys")
    write_run(path, tiny_student)
    (path / "other").symlink_to(tiny_teacher)
    rows = [
        json.loads(line) | {"twin": f"t{n}"} for n, line in enumerate((path / "train.jsonl").read_text().splitlines())
    ]
    (path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # A teacher whose log-probabilities belong to its answers: a random one is refused, its signals look shifted.
    taught = ["student.adapter.kind=none", "train.epochs=14", "--out", str(path / "teaching")]
    for stage in ("generate", "train"):
        assert cli.main([stage, str(path / "run.yaml"), *taught]) == 0
    shutil.copytree(path / "teaching" / "student", path / "taught")
    (path / "taught" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    for name, licence in (("noncommercial", "license: cc-by-nc-4.0"), ("unlicensed", "")):
        shutil.copytree(tiny_student, path / name)
        (path / name / "README.md").write_text(f"---\n{licence}\n---\n")
    key = ec.generate_private_key(ec.SECP256R1())
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (path / "key.pem").write_bytes(key.private_bytes(*private))
    rows[0]["thing"] += " of anna@firma.pl"
    (path / "private.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "broken.jsonl").write_text((path / "train.jsonl").read_text() + "{broken\n")
    return path


@pytest.fixture(scope="module")
def base_runs(folder):
    """Fingerprints and folders of the runs that changes are compared with, made once each; the plain one first."""
    return {}


def run(folder: Path, overrides: dict[str, Any], out: Path, capsys) -> dict[str, Any]:
    arguments = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    code = cli.main(["run", str(folder / "run.yaml"), *arguments, "--out", str(out)])
    said = capsys.readouterr().err.strip().splitlines()
    return fingerprint(out, code, said[-1] if code else "")


def fingerprint(out: Path, code: int, said: str) -> dict[str, Any]:
    """What a run wrote, part by part, without what differs between two equal runs."""
    return {
        "end": (code, said.replace(str(out), "")),
        "requests": sorted(sends(out / "run.db")),
        "rows": [digest(out / "data" / f"{name}.parquet") for name in ("train", "holdout", "rejects")],
        "signals": sorted(digest(path) for path in (out / "signals").rglob("*") if path.is_file()),
        "student": student(out),
        "checkpoints": sorted(path.name for path in (out / "checkpoints").glob("step-*")),
        "trackers": [path.name.partition(".")[0] for path in (out / "trackers").rglob("events.*")],
        "report": report(out / "eval" / "report.json", out / "eval" / "speed.json"),
        "pages": sorted(path.name for path in out.glob("report*")),
        "bundle": sorted(
            (path.relative_to(out / "release").as_posix(), digest(path) if path.name == "README.md" else "")
            for path in (out / "release").rglob("*")
            if path.is_file()
        ),
        "rescored": sorted('"score"' in path.read_text() for path in (out / "release").glob("*/release.json")),
        "declared": sum(MARK in path.read_text() for path in (out / "release").rglob("*.md")),
    }


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def student(out: Path) -> Any:
    path = out / "student" / "student.json"
    facts = json.loads(path.read_text()) if path.exists() else {}
    weights = sorted(digest(path) for path in (out / "student").rglob("*.safetensors"))
    return weights, {name: value for name, value in facts.items() if name not in VOLATILE}


def report(path: Path, speed: Path) -> Any:
    """The report without measured speeds and what follows from them."""
    if not path.exists():
        return None
    body = json.loads(path.read_text())
    arms = {arm["name"]: (arm["accuracy"], arm["n"], arm["cost"]["source"]) for arm in body["arms"]}
    economics = {
        k: v for k, v in body["economics"].items() if k in ("eur_per_hour", "utilisation", "amortise_months", "source")
    }
    sizes = {name: arm["speed"].get("batch_size") for name, arm in json.loads(speed.read_text()).items()}
    items = {name: len(rows) for name, rows in body["items"].items()}
    deferred = (body["cascade"] or {}).get("confidence")
    told = body["margin"], body["method"], body["sets"], body["verdict"]["outcome"], deferred
    return arms, economics, told, items, sizes, loaded(body["load"]), powered(body["energy"])


def loaded(load: Any) -> Any:
    """The sweep without what it measured."""
    if load is None:
        return None
    arms = [
        (a["name"], a["best"], [(x["concurrency"], x["requests"], x["within"]) for x in a["levels"]])
        for a in load["arms"]
    ]
    return load["objective"], load["prompts"], arms


def powered(energy: Any) -> Any:
    """Electricity without what it measured: how each figure came about, up to the seconds that went into it."""
    if energy is None:
        return None
    arms = [(one["name"], one["how"], one["note"].partition(" over ")[0]) for one in energy["arms"]]
    return energy["zone"], energy["pue"], energy["grid"], arms


@pytest.mark.parametrize("key", CHANGES)
def test_the_key_changes_behaviour(key, folder, base_runs, tmp_path, capsys, monkeypatch):
    if key in ("release.pdf", "eval.pdf") and not pdf.available():
        pytest.skip("no PDF can be drawn here")
    for name in ("MISTRAL_API_KEY", "SCW_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)  # no test may ask a real endpoint
    monkeypatch.setattr(counters, "POWERCAP", tmp_path)  # estimates, also where there are counters
    monkeypatch.setattr(counters, "find_spec", lambda name: None)
    change = CHANGES[key]
    name = json.dumps(change.given, sort_keys=True)
    for given in ({}, change.given):  # the plain run first: some changes name its bundle
        if (known := json.dumps(given, sort_keys=True)) not in base_runs:
            base = folder / f"base-{len(base_runs)}"
            base_runs[known] = (base, run(folder, given, base, capsys))
    base, before = base_runs[name]
    # Starting from a copy, only the stages that depend on the key run again: that they do is part of the test.
    out = tmp_path / "run"
    left = change.anew + (() if change.shows == "end" else ("checkpoints", "release"))
    shutil.copytree(base, out, ignore=shutil.ignore_patterns(*left))
    after = run(folder, {**change.given, key: change.value}, out, capsys)
    assert after[change.shows] != before[change.shows]
    if change.shows != "end":
        assert after["end"][0] == 0, after["end"][1]


def test_the_comparison_can_fail(folder, tmp_path, capsys):
    """The negative control: two equal runs have equal fingerprints, so a dead key would be found."""
    first = run(folder, {}, tmp_path / "a", capsys)
    assert first["end"][0] == 0, first["end"][1]
    second = run(folder, {}, tmp_path / "b", capsys)
    assert first == second


def test_the_base_configuration_is_the_one_of_the_line():
    assert "name: tiny" in CONFIG
