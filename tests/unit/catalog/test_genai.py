"""`distill catalog prices --refresh`: the package's own snapshot, no network, under the user's rows and over ours."""

from __future__ import annotations

import datetime
import json
import socket
import sys

import pytest

from distill import catalog, cli, costs
from distill.catalog import genai
from distill.catalog.rows import PriceSheet

pytest.importorskip("genai_prices")


@pytest.fixture(autouse=True)
def _offline(tmp_path, monkeypatch):
    def blocked(*args, **kwargs):
        raise OSError("no network here")

    monkeypatch.setattr(socket, "socket", blocked)
    monkeypatch.setattr(socket, "create_connection", blocked)
    monkeypatch.setattr(socket, "getaddrinfo", blocked)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(catalog, "today", lambda: datetime.date(2026, 11, 23))


def models(provider):
    return next(sheet for sheet in genai.sheets() if sheet["provider"] == provider)["models"]


def test_the_packages_prices_are_valid_sheets_of_providers_we_know_with_their_date_and_source():
    known = {row.id for row in catalog.providers()}
    sheets = [PriceSheet.model_validate(sheet) for sheet in genai.sheets()]
    assert {"mistral", "ovhcloud", "deepseek"} <= {sheet.provider for sheet in sheets} <= known
    assert "openrouter" not in {sheet.provider for sheet in sheets}  # a router's region is nobody's
    for sheet in sheets:
        assert sheet.currency == "USD"
        assert sheet.source.startswith("genai-prices ")
        assert sheet.as_of <= catalog.today()


def test_our_snapshot_says_what_the_package_says_to_the_last_digit():
    theirs = {sheet["provider"]: sheet["models"] for sheet in genai.sheets()}
    compared = 0
    for row in catalog.prices():
        listed = theirs.get(row.provider, {}).get(row.model)
        if listed is None or "genai-prices" not in row.source:
            continue
        compared += 1
        rates = PriceSheet.model_validate(
            {"provider": row.provider, "currency": "USD", "as_of": row.as_of, "source": "s", "models": {"m": listed}}
        ).models["m"]
        for name in ("input", "cached", "output", "tiers", "hours", "later"):
            assert getattr(rates, name) == getattr(row.rates, name), (row.provider, row.model, name)
    assert compared >= 40


def test_a_tariff_of_the_day_a_tier_an_announcement_and_a_batch_offer_arrive_whole():
    assert [part["to_utc"] for part in models("deepseek")["deepseek-v4-pro"]["hours"]] == [4, 10]
    assert models("openai")["gpt-6-luna"]["tiers"][0]["above_tokens"] == 272_000
    assert models("google")["gemini-4-argon"]["later"][0]["from"] == "2026-12-01"
    assert models("mistral")["mistral-large-4"]["batch_discount"] == "0.5"


def test_refreshed_prices_win_over_ours_and_lose_to_the_users_own(tmp_path, capsys):
    assert costs.find_price("mistral", "codestral") is None
    assert cli.main(["catalog", "prices", "--refresh", "mistral", "--json"]) == 0
    assert costs.find_price("mistral", "codestral") is not None
    listed = [row["model"] for row in json.loads(capsys.readouterr().out) if row["provider"] == "mistral"]
    assert len(listed) == len(set(listed))  # a row that was replaced is not listed
    (tmp_path / "config" / "alambic" / "a.yaml").write_text(
        "prices:\n  - {provider: mistral, currency: EUR, as_of: 2026-11-20, source: contract, "
        "models: {codestral: {input: 7, output: 9}}}\n"
    )
    assert costs.find_price("mistral", "codestral").currency == "EUR"


def test_the_newest_file_is_fetched_only_when_asked_for_and_its_absence_is_one_line(tmp_path, capsys):
    assert cli.main(["catalog", "prices", "--refresh", "--online"]) == 3
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1
    assert "cannot be fetched" in err
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize("arguments", [["grid", "--refresh"], ["prices", "--online"]])
def test_a_refresh_of_something_else_is_one_line(arguments, capsys):
    assert cli.main(["catalog", *arguments]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_without_the_package_the_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    assert cli.main(["catalog", "prices", "--refresh"]) == 3
    assert "alambic[prices]" in capsys.readouterr().err
