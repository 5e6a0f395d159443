"""Each shape a row of the catalogue can have: read whole from a user's file, refused by name with one field wrong."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ruamel.yaml import YAML

from distill import catalog
from distill.errors import ConfigError

FACT = {"source": "a letter", "as_of": "2026-11-20"}
RATES = {"input": 1, "output": 4}

# what -> (table, row, dotted path of a field, a value it may not have)
SHAPES: dict[str, tuple[str, dict[str, Any], str, Any]] = {
    "terms of a service": (
        "licences",
        {"id": "x-api", "kind": "terms", "verdict": "restricted", "obligations": ["NOT_DISTRIBUTED"], "unblock": "ask"},
        "kind", "contract",
    ),
    "a licence of weights by model, use and role": (
        "licences",
        {"id": "x", "kind": "weights", "verdict": "prohibited", "verdicts": {"research": "allowed"}, "models": ["a/*"],
         "not_models": ["a/b"], "base_verdict": "allowed_with_obligations", "clause": "3"},
        "verdicts.research", "fine",
    ),
    "a plain price": ("prices", {"models": {"m": RATES}}, "models.m.input", -1),
    "a price with a cache": ("prices", {"models": {"m": RATES | {"cached": 0.1}}}, "models.m.cached", "cheap"),
    "a price with a batch offer": (
        "prices", {"models": {"m": RATES | {"batch_discount": 0.5}}}, "models.m.batch_discount", 1,
    ),
    "a price with tiers": (
        "prices", {"models": {"m": RATES | {"tiers": [{"above_tokens": 1000, **RATES}]}}},
        "models.m.tiers.0.above_tokens", 0,
    ),
    "a price by the hour": (
        "prices", {"models": {"m": RATES | {"hours": [{"from_utc": 1, "to_utc": 4, **RATES}]}}},
        "models.m.hours.0.from_utc", 24,
    ),
    "an announced price": (
        "prices", {"models": {"m": RATES | {"later": [{"from": "2027-01-01", **RATES}]}}},
        "models.m.later.0.from", "soon",
    ),
    "a price of a region": ("prices", {"also": {"x-eu": 1.1}, "models": {"m": RATES}}, "also.x-eu", 0),
    "a price with aliases": ("prices", {"models": {"m": RATES | {"aliases": ["m-1"]}}}, "models.m.aliases", 3),
    "a provider": (
        "providers",
        {"id": "x", "name": "X", "hosts": ["*.x.eu"], "base_url": "https://api.x.eu/v1", "env": "X_KEY", "hq": "FR",
         "regions": ["FR"], "terms": "mistral-api", "models": {"m": "a/m"}, "own_models": ["x-*"], "batch": "yes"},
        "batch", "perhaps",
    ),
    "a model": (
        "models",
        {"name": "m", "id": "a/m", "licence": "mit", "params_b": 7, "active_b": 1, "layers": 8, "hidden": 64,
         "tokenizer": "t", "vocab": 99, "context": 4096, "pretrain_tokens_t": 1.5, "languages": "fr",
         "sources": ["hub:a/m@1"]},
        "params_b", 0,
    ),
    "a card with its prices": (
        "gpus",
        {"id": "g", "memory_gb": 24, "tdp_w": 72, "bf16_tflops": 121, "bandwidth_gb_s": 300, "embodied_kg": 120,
         "prices": [{"provider": "x", "sku": "s", "region": "r", "currency": "EUR", "per_hour": 1, **FACT}]},
        "prices.0.currency", "euro",
    ),
    "a grid": ("grid", {"zone": "FRA", "g_per_kwh": 41, "year": 2025}, "g_per_kwh", -1),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def write(folder, table, row):
    with (folder / catalog.USER_FILE).open("w") as file:
        YAML(typ="safe").dump({table: [row]}, file)
    catalog._user.cache_clear()


def whole(what):
    table, row, path, wrong = SHAPES[what]
    sheet = {"provider": "x", "currency": "EUR"} if table == "prices" else {}
    return table, copy.deepcopy(sheet | row | FACT), path, wrong


@pytest.mark.parametrize("what", SHAPES)
def test_the_shape_is_read_whole_and_comes_first(tmp_path, what):
    table, row, _, _ = whole(what)
    write(tmp_path, table, row)
    first = catalog.search(table)[0]
    assert first.source == "a letter"
    if table not in ("prices", "gpus"):  # their amounts are exact decimals
        read = first.model_dump(mode="json", exclude_unset=True)
        assert read | {"sources": row.get("sources", [])} == row | {"sources": row.get("sources", [])}


@pytest.mark.parametrize("what", SHAPES)
def test_one_wrong_field_is_refused_with_its_place(tmp_path, what):
    table, row, path, wrong = whole(what)
    at: Any = row
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in way:
        at = at[part]
    at[last] = wrong
    write(tmp_path, table, row)
    with pytest.raises(ConfigError) as error:
        catalog.search(table)
    assert f"{table}.0." in str(error.value)
    assert str(last) in str(error.value)


@pytest.mark.parametrize("what", SHAPES)
@pytest.mark.parametrize("missing", ["source", "as_of"])
def test_no_shape_does_without_a_source_and_a_day(tmp_path, what, missing):
    table, row, _, _ = whole(what)
    del row[missing]
    write(tmp_path, table, row)
    with pytest.raises(ConfigError, match=f"{table}.0.{missing}"):
        catalog.search(table)


def test_exchange_rates_are_dated_and_sourced(tmp_path):
    (tmp_path / catalog.USER_FILE).write_text("fx: {per_eur: {USD: 1.2}, as_of: 2026-11-20, source: bank}\n")
    assert (str(catalog.fx().per_eur["USD"]), catalog.fx().source) == ("1.2", "bank")
    (tmp_path / catalog.USER_FILE).write_text("fx: {per_eur: {USD: 1.2}, source: bank}\n")
    catalog._user.cache_clear()
    with pytest.raises(ConfigError, match=r"fx\.as_of"):
        catalog.fx()
