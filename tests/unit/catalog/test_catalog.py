"""The catalogue: typed, dated, sourced; the user's rows win; a bad row is named."""

from __future__ import annotations

import datetime
import random

import pytest

from distill import catalog
from distill.catalog.rows import LicenceRow
from distill.errors import ConfigError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.mark.parametrize("table", catalog.TABLES)
def test_every_row_is_typed_dated_and_sourced(table):
    rows = catalog.search(table)
    assert len(rows) >= 10
    for row in rows:
        assert row.source.strip()
        assert datetime.date(2024, 1, 1) <= row.as_of <= datetime.date(2026, 11, 23)


def test_rows_point_at_rows_that_exist():
    licences = {row.id for row in catalog.licences()}
    assert {model.licence for model in catalog.models().values()} <= licences
    assert {row.terms for row in catalog.providers() if row.terms} <= licences
    assert {row.provider for row in catalog.prices()} <= {row.id for row in catalog.providers()}


def test_every_obligation_has_a_meaning():
    used = {code for row in catalog.licences() for code in row.obligations}
    assert used <= set(catalog.OBLIGATIONS)


def test_the_models_of_the_demo_come_from_the_hub_first_and_from_pinned_packages_second():
    for name in ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct"):
        first, second = catalog.models()[name].sources
        assert first.startswith(f"hub:{catalog.models()[name].id}@")
        assert "#sha256=" in second


def test_a_model_is_found_by_name_or_official_id_without_regard_to_case():
    by_id = catalog.find_model("huggingfacetb/smollm2-135m-instruct")
    assert by_id is catalog.find_model("SmolLM2-135M-Instruct")
    assert by_id is not None
    assert catalog.find_model("smollm9") is None


def test_a_search_wants_every_word_at_the_beginning_of_a_word():
    assert {row.provider for row in catalog.search("prices", "MISTRAL large 4")} == {"mistral"}
    assert {row.id for row in catalog.search("providers", "DE")} >= {"ionos", "stackit"}
    assert "deepseek" not in {row.id for row in catalog.search("providers", "DE")}
    assert catalog.search("prices", "no-such-word") == []


def test_a_table_that_does_not_exist_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'prices'"):
        catalog.search("price")


def test_the_users_rows_win_and_the_project_beats_the_home(tmp_path):
    def sheet(amount: int) -> str:
        models = f"{{mistral-large-4: {{input: {amount}, output: 9}}}}"
        head = f"{{provider: mistral, currency: EUR, as_of: 2026-11-20, source: contract {amount}"
        return f"prices:\n  - {head}, models: {models}}}\n"

    def listed() -> float:
        return float(next(r for r in catalog.prices() if r.model == "mistral-large-4").rates.input)

    assert listed() == 0.7
    home = tmp_path / "config" / "alambic"
    home.mkdir(parents=True)
    (home / "ours.yaml").write_text(sheet(7))
    assert listed() == 7
    (tmp_path / catalog.USER_FILE).write_text(sheet(8))
    assert listed() == 8
    (tmp_path / catalog.USER_FILE).unlink()
    assert listed() == 7


def test_a_users_licence_row_replaces_ours(tmp_path):
    (tmp_path / catalog.USER_FILE).write_text(
        "licences:\n  - {id: anthropic-api, kind: terms, verdict: allowed_with_obligations, "
        "source: 'letter of 2026-11-02', as_of: 2026-11-02}\n"
    )
    (row,) = [row for row in catalog.licences() if row.id == "anthropic-api"]
    assert row.verdict == "allowed_with_obligations"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prizes: []", "no table 'prizes'"),
        ("prices: {}", "expected a list"),
        ("- 1", "expected a mapping"),
        ("prices: [", "not YAML"),
        ("licences:\n  - {id: x, kind: weights, verdict: fine, source: s, as_of: 2026-01-01}", "licences.0.verdict"),
        ("licences:\n  - {id: x, kind: weights, verdict: allowed}", "licences.0.source"),
        ("gpus:\n  - {id: x, memory_gb: 1, tdp: 3}", "gpus.0.tdp"),
        ("fx: {per_eur: {USD: 0}, as_of: 2026-01-01, source: s}", "fx.per_eur.USD"),
    ],
)
def test_a_bad_user_file_is_named_with_the_place(tmp_path, text, said):
    (tmp_path / catalog.USER_FILE).write_text(text)
    with pytest.raises(ConfigError) as error:
        for table in catalog.TABLES:
            catalog.search(table)
        catalog.fx()
    assert said in str(error.value)
    assert catalog.USER_FILE in str(error.value)


def test_a_mangled_user_file_never_gives_a_traceback(tmp_path):
    whole = (
        "prices:\n  - {provider: x, currency: EUR, as_of: 2026-11-20, source: s, models: {m: {input: 1, output: 9}}}\n"
        "grid:\n  - {zone: FRA, g_per_kwh: 41, year: 2025, source: s, as_of: 2026-01-26}\n"
        "fx: {per_eur: {USD: 1.1}, as_of: 2026-10-30, source: s}\n"
    )
    dice, refused = random.Random(5), 0
    for _ in range(200):
        text = list(whole)
        for _ in range(dice.randint(1, 4)):
            place = dice.randrange(len(text))
            text[place] = dice.choice(
                ["", "{", "}", "[", ":", "-", "\n", "\0", "null", "1e999", ".nan", "&a", "*a", "!!x "]
            )
        (tmp_path / catalog.USER_FILE).write_text("".join(text))
        catalog._user.cache_clear()
        catalog._table.cache_clear()
        try:
            catalog.search("prices")
            catalog.search("grid")
            catalog.fx()
        except ConfigError as error:
            refused += 1
            assert catalog.USER_FILE in str(error)
    assert 50 < refused < 200


def test_the_longest_pattern_of_a_licence_decides():
    row = LicenceRow(id="x", kind="weights", verdict="allowed", models=("a/*", "a/B-*"), source="s", as_of="2026-01-01")
    assert row.fit("A/b-1") == len("a/B-*")
    assert row.fit("a/c") == len("a/*")
    assert row.fit("b/c") == 0


@pytest.mark.parametrize(
    ("days", "state"), [(0, "fresh"), (45, "fresh"), (46, "stale"), (120, "stale"), (121, "expired")]
)
def test_prices_grow_stale_after_45_days_and_expire_after_120(days, state, monkeypatch):
    monkeypatch.setattr(catalog, "today", lambda: datetime.date(2026, 11, 9) + datetime.timedelta(days=days))
    assert catalog.staleness(datetime.date(2026, 11, 9)) == state
