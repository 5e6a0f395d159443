"""Several teachers: who is asked what, each at its own price, all within one cap."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from distill import gates
from distill.errors import BudgetReached, ConfigError, Refused
from distill.generate import mix
from distill.providers import fake
from distill.providers._base import Capabilities
from distill.records import Prompt
from tests.unit.generate.stage import generate

PRICE = {"output": 1000, "currency": "EUR", "as_of": "2026-11-01"}


def other(name: str, **settings) -> dict:
    return {"teacher": {"kind": "fake", "model": name, "replies": [f"I am {name}."]}, **settings}


def items(count: int, lang: str = "en") -> list[Prompt]:
    return [Prompt(f"r{n}", (), meta={"lang": lang}) for n in range(count)]


def test_the_share_of_each_teacher_is_its_weight_and_depends_on_seed_and_id_alone(work):
    _, load = work
    config = load(generate={"mix": [other("b", weight=3)]})
    assigned = mix.assign(config, items(4000))
    assert 0.72 < Counter(assigned)[1] / 4000 < 0.78
    assert mix.assign(config, items(4000)[::-1]) == assigned[::-1]
    assert mix.assign(config, items(100)) == assigned[:100], "more rows move nobody"
    assert mix.assign(load(seed=2, generate={"mix": [other("b", weight=3)]}), items(4000)) != assigned


def test_a_route_takes_every_prompt_that_fits_and_no_other(work):
    _, load = work
    routes = [other("b", when={"lang": "fr"}), other("c", when={"lang": ["de", "fr"]}), other("d")]
    config = load(generate={"mix": routes})
    assert set(mix.assign(config, items(200, "fr"))) == {1, 2}
    assert set(mix.assign(config, items(200, "de"))) == {2}
    assert set(mix.assign(config, items(200, "en"))) == {0, 3}


def test_rows_and_card_say_who_answered_and_the_counts_add_up(work, capsys):
    tmp_path, load = work
    config = load(generate={"mix": [other("b"), other("c")], "filters": ["refusal"]})
    made = generate(config, tmp_path / "run")
    rows = made["train"] + made["holdout"] + made["rejects"]
    for row in rows:
        if row["teacher"] in ("b", "c"):
            assert row["answer"] == f"I am {row['teacher']}."
    said = Counter(row["teacher"] for row in rows)
    counted = {one["model"]: one["asked"] for one in made["card"]["teachers"]}
    assert counted == {"fake-1": said["fake-1"], "b": said["b"], "c": said["c"]}
    assert min(counted.values()) > 4
    kept = Counter(row["teacher"] for row in made["train"] + made["holdout"])
    assert {one["model"]: one["kept"] for one in made["card"]["teachers"]} == dict(kept)
    assert f"{kept['b']} of {said['b']} of b, {kept['c']} of {said['c']} of c" in capsys.readouterr().err
    assert [row["id"] for row in made["train"]] == sorted(row["id"] for row in made["train"])


def test_a_teacher_added_later_costs_only_its_own_prompts(work, monkeypatch):
    tmp_path, load = work
    generate(load(), tmp_path / "run")
    asked = []
    real = fake.FakeProvider.ask

    async def ask(self, requests):
        asked.extend([self.config.model] * len(requests))
        return await real(self, requests)

    monkeypatch.setattr(fake.FakeProvider, "ask", ask)
    made = generate(load(generate={"mix": [other("b")]}), tmp_path / "run")
    assert Counter(asked) == {"b": made["card"]["teachers"][1]["asked"]}


class Paid(fake.FakeProvider):
    """A fake teacher that has a price."""

    capabilities = Capabilities(paid=True)


def test_each_teacher_has_its_own_price_and_all_share_one_cap(work, monkeypatch):
    from distill import costs

    tmp_path, load = work
    monkeypatch.setattr(fake, "build", lambda config, context: Paid(config))

    def price(settings):
        return costs.from_stated(
            costs.StatedPrice.model_validate({**PRICE, "input": {"b": 3000}.get(settings.model, 1000)})
        )

    monkeypatch.setattr(costs, "price_of", price)
    config = load(generate={"mix": [other("b")], "max_cost_eur": 1000, "max_new_tokens": 8})
    card = generate(config, tmp_path / "run")["card"]
    first, second = card["teachers"]
    assert first["cost"]["nano_eur"] + second["cost"]["nano_eur"] == card["cost"]["nano_eur"]
    assert second["cost"]["nano_eur"] / second["asked"] > 1.5 * first["cost"]["nano_eur"] / first["asked"]
    enough_for_the_first = first["cost"]["nano_eur"] / 1e9 * 1.05 + 0.2
    with pytest.raises(BudgetReached):
        generate(
            load(generate={"mix": [other("b")], "max_cost_eur": enough_for_the_first, "max_new_tokens": 8}),
            tmp_path / "short",
        )


def test_a_second_teacher_or_judge_without_a_price_is_refused_before_the_first_is_paid(work, monkeypatch):
    from distill import costs

    tmp_path, load = work
    monkeypatch.setattr(fake, "build", lambda config, context: Paid(config))
    known = costs.from_stated(costs.StatedPrice.model_validate({**PRICE, "input": 1}))
    monkeypatch.setattr(costs, "price_of", lambda settings: known if settings.model == "fake-1" else None)
    judge = {"verifiers": [{"kind": "judge", "judge": {"kind": "fake", "model": "b"}}]}
    for more in ({"mix": [other("b")]}, judge):
        with pytest.raises(ConfigError, match="no dated price is known for 'b'"):
            generate(load(generate={"max_cost_eur": 10, **more}), tmp_path / "run")
        assert not (tmp_path / "run/run.db").exists()
    generate(load(generate={"max_cost_eur": 10, "mix": None, "verifiers": None}), tmp_path / "run")


def test_a_prohibited_second_teacher_refuses_the_run_before_anything_is_asked(work):
    tmp_path, load = work
    claude = {"teacher": {"kind": "openai", "model": "claude-sonnet-5-5", "base_url": "https://api.anthropic.com/v1"}}
    config = load(generate={"mix": [claude]}, policy={"regions": ["*"]})
    assert [role for role, _ in gates.asked(config)] == ["teacher", "teacher 2"]
    with pytest.raises(Refused, match=r"teacher 2 .*claude"):
        generate(config, tmp_path / "run")
    assert not (tmp_path / "run/run.db").exists()
    generate(load(), tmp_path / "allowed")


def test_methods_that_learn_one_teachers_numbers_refuse_a_mix(work):
    _, load = work
    with pytest.raises(ConfigError, match=r"generate\.signals_top_k stores .* of one teacher"):
        load(generate={"mix": [other("b")], "signals_top_k": 4})
    local = {"kind": "transformers", "model": "path:student", "replies": None}
    for method in ("whitebox", "on_policy", "cross_tokenizer"):
        with pytest.raises(ConfigError, match="learns from one live teacher"):
            load(teacher=local, train={"method": method}, generate={"mix": [other("b")]})


def test_a_mix_is_strict_and_names_its_problems(work):
    _, load = work
    with pytest.raises(ConfigError) as caught:
        load(generate={"mix": [{"teacher": {"kind": "fakee"}, "weight": 0, "wen": {}}]})
    said = json.dumps(caught.value.problems)
    assert "generate.mix.0.weight" in said
    assert "generate.mix.0.when" in said
    assert "did you mean 'fake'" in said
