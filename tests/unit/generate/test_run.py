"""The stage as a whole, with a fake teacher: what is asked, what is kept, and what the files say."""

from __future__ import annotations

import json
import shutil
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest

from distill import config as configuration
from distill import models, plugins
from distill.artifacts import open_run
from distill.commands import run as command
from distill.errors import ConfigError, DataError, Preempted, TooManyRejected
from distill.generate import capture, card, dataset, run, sieve
from distill.providers import fake
from distill.providers._base import Capabilities, chat_json
from distill.records import Message, Prompt, TopLogprobs, Usage
from distill.signals import SignalReader
from tests.unit.generate import rows as candidates
from tests.unit.generate.stage import generate, write_prompts

COLUMNS = [
    "id",
    "sample",
    "cluster",
    "lang",
    "messages",
    "answer",
    "reasoning",
    "teacher",
    "request_key",
    "score",
    "meta",
]


def test_kept_and_rejected_add_up_and_the_files_say_what_the_card_says(work):
    tmp_path, load = work
    made = generate(load(generate={"filters": ["refusal", "length"]}), tmp_path / "run")
    facts, counts = made["card"], made["card"]["rows"]
    assert counts["asked"] == counts["kept"] + counts["rejected"] == 40
    assert counts["train"] == len(made["train"])
    assert counts["holdout"] == len(made["holdout"])
    assert counts["kept"] == counts["train"] + counts["holdout"]
    assert counts["rejected"] == len(made["rejects"]) == sum(facts["rejected"].values()) > 0
    assert set(facts["rejected"]) == {"refusal/en"}
    assert {row["reason"] for row in made["rejects"]} == {"refusal/en"}
    assert list(made["train"][0]) == COLUMNS
    assert list(made["rejects"][0]) == [*COLUMNS, "reason"]
    ids = [row["id"] for name in ("train", "holdout", "rejects") for row in made[name]]
    assert sorted(ids) == sorted(f"r{n}" for n in range(40))
    assert facts["tokens"]["completion"] > 0
    assert facts["cost"] == {"nano_eur": None, "eur": None}, "a teacher without a price has no known cost"
    assert facts["teacher"]["model"] == "fake-1"
    assert facts["speed"]["answers"] == 40


def test_rows_hold_messages_answer_reasoning_and_the_prompt_row(work):
    tmp_path, load = work
    made = generate(load(prompts={"system": "Be brief."}), tmp_path / "run")
    by_id = {row["id"]: row for name in ("train", "holdout", "rejects") for row in made[name]}
    row = by_id["r3"]
    assert row["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Question 3?"}]
    assert json.loads(row["meta"]) == {"id": "r3", "prompt": "Question 3?", "doc": "d1", "lang": "en"}
    assert (row["cluster"], row["lang"], row["sample"]) == ("d1", "en", 0)
    thought = [r for r in by_id.values() if r["reasoning"]]
    assert thought
    assert all((r["answer"], r["reasoning"]) == ("Third.", "hm") for r in thought)


def test_no_cluster_is_on_both_sides_and_the_split_outlives_new_data(work):
    tmp_path, load = work
    config = load(generate={"holdout": 0.3})
    first = generate(config, tmp_path / "a")
    held = {row["cluster"] for row in first["holdout"]}
    assert held
    assert held.isdisjoint({row["cluster"] for row in first["train"]})
    write_prompts(tmp_path / "prompts.jsonl", 80)
    second = generate(config, tmp_path / "b")
    assert {row["cluster"] for row in second["holdout"]} & {f"d{n}" for n in range(20)} == held


def test_the_same_run_gives_the_same_bytes_and_asks_nothing_again(work, monkeypatch):
    tmp_path, load = work
    config = load(generate={"filters": ["refusal"]})
    generate(config, tmp_path / "a")
    generate(config, tmp_path / "b")
    files = ["train.parquet", "holdout.parquet", "rejects.parquet"]
    for name in files:
        assert (tmp_path / "a/data" / name).read_bytes() == (tmp_path / "b/data" / name).read_bytes()
    before = {f.name: f.read_bytes() for f in (tmp_path / "a/data").iterdir()}

    async def no(*_):
        raise AssertionError("asked again")

    monkeypatch.setattr(fake.FakeProvider, "ask", no)
    generate(config, tmp_path / "a")
    assert {f.name: f.read_bytes() for f in (tmp_path / "a/data").iterdir()} == before, "the card too"


def test_the_folder_is_a_data_set_that_the_usual_library_loads(work, monkeypatch):
    datasets = pytest.importorskip("datasets")
    tmp_path, load = work
    made = generate(load(generate={"filters": ["refusal"]}), tmp_path / "run")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    loaded = datasets.load_dataset(str(tmp_path / "run/data"), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "holdout"}, "rejects are no split"
    for split in loaded:
        assert loaded[split].to_list() == made[split]


def test_the_page_says_the_numbers_the_reasons_and_the_teachers_licences(work):
    tmp_path, load = work
    shutil.copytree(tmp_path / "student", tmp_path / "other")
    mix = [{"teacher": {"kind": "fake", "model": "b|<i>"}}]
    made = generate(load(generate={"filters": ["refusal"], "mix": mix}), tmp_path / "run")
    page, counts = (tmp_path / "run/data/README.md").read_text("utf-8"), made["card"]["rows"]
    for what, number in counts.items():
        assert f"| {what} | {number} |" in page
    assert f"| refusal/en | {counts['rejected']} |" in page
    first, second = made["card"]["teachers"]
    assert f"| fake-1 (fake) | not known | {first['asked']} | {first['kept']} | not known |" in page
    assert f"| b\\|&lt;i> (fake) | not known | {second['asked']} |" in page
    assert "| licence of student base path:student | allowed with obligations |" in page
    assert "<i>" not in page


def test_samples_of_a_prompt_have_seeds_of_their_own_and_the_runs_seed_moves_them(work):
    _, load = work
    seeds = {}
    for seed in (1, 2):
        config = load(seed=seed, generate={"samples": 3, "temperature": 0.7})
        pairs = run.requests(config, [Prompt("a", (Message("user", "q"),))], (), 0)
        seeds[seed] = [request.sampling.seed for _, request in pairs]
        assert [request.sample for _, request in pairs] == [0, 1, 2]
    assert len({*seeds[1], *seeds[2]}) == 6
    with pytest.raises(ConfigError, match="temperature above 0"):
        load(generate={"samples": 2})


def test_a_greedy_answer_does_not_depend_on_the_runs_seed(work):
    _, load = work
    first, second = (run.requests(load(seed=s), [Prompt("a", ())], (), 0)[0][1] for s in (1, 2))
    assert first == second


def test_choices_hold_the_teacher_or_reject_its_answer(work, monkeypatch):
    tmp_path, load = work
    config = load(prompts={"choices": ["mail", "web"]})
    made = generate(config, tmp_path / "held")
    assert {row["answer"] for row in made["train"]} == {"mail", "web"}
    monkeypatch.setattr(fake.FakeProvider, "capabilities", Capabilities())
    config = load(prompts={"choices": ["mail", "First answer."]})
    made = generate(config, tmp_path / "free")
    assert {row["answer"] for row in made["train"]} == {"First answer."}
    assert set(made["card"]["rejected"]) == {"teacher/not_a_choice"}


def test_too_many_rejects_stop_the_run_and_leave_them_to_be_read(work):
    tmp_path, load = work
    config = load(generate={"max_reject_rate": 0.1, "verifiers": [{"kind": "regex", "pattern": "First.*"}]})
    with pytest.raises(TooManyRejected, match="regex/no_match") as caught:
        generate(config, tmp_path / "run")
    assert caught.value.exit_code == 13
    assert pq.read_table(tmp_path / "run/data/rejects.parquet").num_rows > 4
    nothing = load(generate={"max_reject_rate": 1, "verifiers": [{"kind": "regex", "pattern": "never"}]})
    with pytest.raises(TooManyRejected, match="40 of 40"):
        generate(nothing, tmp_path / "run")


def test_a_broken_line_is_refused_before_the_teacher_is_built(work, monkeypatch):
    tmp_path, load = work
    (tmp_path / "prompts.jsonl").write_text('{"id": "a", "prompt": "x", "doc": 1, "lang": "en"}\n{oops\n')
    monkeypatch.setattr(fake, "build", lambda *_: pytest.fail("the teacher was built"))
    with pytest.raises(DataError, match=r"prompts\.jsonl:2: not JSON"):
        generate(load(), tmp_path / "run")


def test_skipped_lines_are_counted_in_the_card(work):
    tmp_path, load = work
    with (tmp_path / "prompts.jsonl").open("a") as file:
        file.write("{oops\n")
    facts = generate(load(prompts={"on_error": "skip"}), tmp_path / "run")["card"]
    assert (facts["rows"]["read"], facts["rows"]["skipped"], facts["rows"]["asked"]) == (41, 1, 40)
    assert facts["skipped"][0].startswith("prompts.jsonl:41: not JSON")


def test_the_stage_depends_on_the_files_its_filters_read(work):
    tmp_path, load = work
    (tmp_path / "test.jsonl").write_text('{"text": "Question number three is asked here"}\n')
    config = load(generate={"filters": [{"kind": "contamination", "paths": ["test.jsonl"]}]})
    assert run.inputs(config) == [tmp_path / "prompts.jsonl", tmp_path / "test.jsonl"]
    with open_run(tmp_path / "run") as folder:
        before = command.key_of(run, config, folder)
        (tmp_path / "test.jsonl").write_text('{"text": "Another item"}\n')
        assert command.key_of(run, config, folder) != before


def test_a_filter_of_the_wrong_length_is_named(work, monkeypatch):
    tmp_path, load = work
    config = load(generate={"filters": ["length"]})
    monkeypatch.setattr(plugins.load("distill.generate.filters", "length"), "keep", lambda rows, config: [])
    with pytest.raises(ConfigError, match="'length' gave 0 verdicts on 40 rows"):
        generate(config, tmp_path / "run")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.49])
def test_neither_side_of_a_split_is_empty(share):
    for count in (0, 1, 2, 3, 50):
        names = [f"c{n}" for n in range(count)]
        held = dataset.split(names, share, 0)
        assert len(held) == 0 if share == 0 or count < 2 else 0 < len(held) < count


def test_the_share_held_out_is_the_share_asked_for():
    names = [f"c{n}" for n in range(20_000)]
    assert 0.09 < len(dataset.split(names, 0.1, 5)) / 20_000 < 0.11
    assert dataset.split(names, 0.1, 5) != dataset.split(names, 0.1, 6)


# -- signals -------------------------------------------------------------------------------------------------------


class Scoring(fake.FakeProvider):
    """A fake teacher that scores finished answers: byte tokens, and a distribution made from the answer."""

    tokenizer_fingerprint = "bytes"
    vocab = 256
    scored = 0

    def score_tokens(self, items, k):
        found = []
        for _, text in items:
            Scoring.scored += 1
            tokens = np.frombuffer(text.encode(), np.uint8).astype(np.int32)
            logits = np.random.default_rng(int(tokens.sum())).normal(size=(len(tokens), 256)) * 3
            logprobs = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
            ids = np.argsort(-logprobs, 1)[:, :k].astype(np.int32)
            found.append(capture.signals.Signal(tokens, ids, np.take_along_axis(logprobs, ids, 1)))
        return found


@pytest.fixture
def scoring(monkeypatch):
    """The fake teacher can score."""
    monkeypatch.setattr(fake, "build", lambda config, context: Scoring(config))
    Scoring.scored = 0


def test_signals_are_stored_for_every_kept_answer_and_only_once(work, scoring):
    tmp_path, load = work
    config = load(generate={"signals_top_k": 16, "filters": ["refusal"]})
    made = generate(config, tmp_path / "run")
    assert made["outputs"][-1].name == "card.json"
    assert (tmp_path / "run/signals") in made["outputs"]
    reader = SignalReader(tmp_path / "run/signals")
    rows = made["train"] + made["holdout"]
    assert set(reader) == {row["request_key"] for row in rows}
    for row in rows:
        signal = reader[row["request_key"]]
        assert bytes(signal.token_ids_T.astype(np.uint8)).decode() == row["answer"]
        assert signal.top_ids_TK.shape == (len(row["answer"].encode()), 16)
        assert (signal.retained() < 1).all()
    scored = Scoring.scored
    before = {f.name: f.read_bytes() for f in (tmp_path / "run/signals").iterdir()}
    generate(config, tmp_path / "run")
    assert Scoring.scored == scored
    assert {f.name: f.read_bytes() for f in (tmp_path / "run/signals").iterdir()} == before
    generate(load(generate={"signals_top_k": 8}), tmp_path / "run")
    assert SignalReader(tmp_path / "run/signals").about.k == 8


def test_a_kill_while_scoring_costs_only_the_unfinished_shard(work, scoring, monkeypatch):
    tmp_path, load = work
    config = load(generate={"signals_top_k": 4}, teacher={"batch_size": 4})
    generate(config, tmp_path / "whole")
    whole, Scoring.scored = Scoring.scored, 0
    monkeypatch.setattr(capture.signals, "FLUSH_S", -1.0)
    real = Scoring.score_tokens

    def dies(self, items, k):
        if Scoring.scored >= 12:
            raise KeyboardInterrupt
        return real(self, items, k)

    monkeypatch.setattr(Scoring, "score_tokens", dies)
    with pytest.raises(KeyboardInterrupt):
        generate(config, tmp_path / "killed")
    monkeypatch.setattr(Scoring, "score_tokens", real)
    generate(config, tmp_path / "killed")
    assert Scoring.scored == whole
    one, two = ({f.name: f.read_bytes() for f in (tmp_path / n / "signals").iterdir()} for n in ("whole", "killed"))
    assert one == two


def test_sampled_signals_are_counts_of_draws(work, scoring):
    tmp_path, load = work
    generate(load(generate={"signals_top_k": 10, "signals_kind": "sampled"}), tmp_path / "run")
    reader = SignalReader(tmp_path / "run/signals")
    assert (reader.about.kind, reader.about.draws) == ("sampled", 10)
    for key in reader:
        counts = np.exp(reader[key].top_logprobs_TK) * 10
        assert np.allclose(counts, np.rint(counts), atol=1e-4)
        assert np.allclose(counts.sum(1), 10, atol=1e-3)


class Endpoint(fake.FakeProvider):
    """A fake endpoint that sends log-probabilities with the answer."""

    capabilities = Capabilities(top_logprobs=5)

    def _reply(self, request):
        assert request.top_logprobs == 3
        top = ((("Yes", -0.1), ("No", -2.5), ("No", -4.0)), ((".", -0.01),))
        return chat_json("Yes.", Usage(5, 2), "m", logprobs=TopLogprobs(("Yes", "."), (-0.1, -0.01), top))


def test_an_endpoints_log_probabilities_are_stored_under_the_tokens_text(work, monkeypatch):
    tmp_path, load = work
    monkeypatch.setattr(fake, "build", lambda config, context: Endpoint(config))
    made = generate(load(generate={"signals_top_k": 3}), tmp_path / "run")
    reader = SignalReader(tmp_path / "run/signals")
    names = reader.about.vocabulary
    signal = reader[made["train"][0]["request_key"]]
    assert [names[i] for i in signal.token_ids_T] == ["Yes", "."]
    first = {
        names[i]: float(p) for i, p in zip(signal.top_ids_TK[0], signal.top_logprobs_TK[0], strict=True) if p > -99
    }
    assert first["Yes"] == pytest.approx(-0.1)
    assert first["No"] == pytest.approx(np.logaddexp(-2.5, -4.0), abs=0.01), "two tokens of one text are one entry"
    assert np.isfinite(signal.top_logprobs_TK[1]).sum() == 1
    with pytest.raises(ConfigError, match="at most 5"):
        generate(load(generate={"signals_top_k": 6}), tmp_path / "run2")
    assert not (tmp_path / "run2/run.db").exists(), "refused before anything is asked"


def test_signals_that_the_teacher_cannot_give_are_refused_before_asking(work):
    tmp_path, load = work
    for settings in ({"signals_top_k": 4}, {"signals_top_k": 4, "signals_kind": "sampled"}):
        with pytest.raises(ConfigError, match="signals_"):
            generate(load(generate=settings), tmp_path / "run")
    assert not (tmp_path / "run/run.db").exists()


def test_the_real_teacher_on_this_machine_gives_signals_the_reader_understands(work, tiny_teacher):
    tmp_path, load = work
    write_prompts(tmp_path / "prompts.jsonl", 4)
    shutil.copytree(tiny_teacher, tmp_path / "teacher")
    shutil.copy(tmp_path / "student/README.md", tmp_path / "teacher")
    teacher = {"kind": "transformers", "model": "path:teacher", "batch_size": 2}
    load(generate={"signals_top_k": 8, "max_new_tokens": 5}, prompts={"choices": ["mail", "web"]})
    values = json.loads((tmp_path / "c.yaml").read_text())
    (tmp_path / "c.yaml").write_text(json.dumps({**values, "teacher": teacher}))
    config = configuration.load(tmp_path / "c.yaml")
    made = generate(config, tmp_path / "run")
    rows = made["train"] + made["holdout"]
    reader = SignalReader(tmp_path / "run/signals")
    tokenizer = models.load_tokenizer(tiny_teacher)
    assert reader.about.tokenizer == models.tokenizer_fingerprint(tokenizer)
    for row in rows:
        tokens = reader[row["request_key"]].token_ids_T.tolist()
        assert tokens == models.encode_answer(tokenizer, row["answer"])
    assert made["card"]["teacher"]["kind"] == "transformers"


def test_a_stop_signal_while_scoring_ends_after_the_batch_and_goes_on_later(work, scoring, monkeypatch):
    tmp_path, load = work
    config = load(generate={"signals_top_k": 4}, teacher={"batch_size": 4})
    real = Scoring.score_tokens

    def asked_to_stop(self, items, k):
        if Scoring.scored == 8:
            signal.raise_signal(signal.SIGTERM)
        return real(self, items, k)

    monkeypatch.setattr(Scoring, "score_tokens", asked_to_stop)
    with pytest.raises(Preempted, match="12 of 40 signals") as caught:
        generate(config, tmp_path / "run")
    assert caught.value.exit_code == 75
    generate(config, tmp_path / "run")
    assert Scoring.scored == 40


# -- several answers per prompt ------------------------------------------------------------------------------------


def judged(answers: list[str], how: str) -> list[str]:
    rows = [candidates.row(text, number=n // 4, sample=n % 4) for n, text in enumerate(answers)]
    return sieve.select(rows, ["" if text else "teacher/empty" for text in answers], how)


def test_the_first_good_answer_or_the_commonest_one_is_chosen():
    answers = ["", "5", " 4", "4", "7", "8", "9", "9 "]
    assert judged(answers, "all") == ["teacher/empty", *[""] * 7]
    assert judged(answers, "first") == ["teacher/empty", "", "select/other", "select/other", "", *["select/other"] * 3]
    assert judged(answers, "majority") == [
        *("teacher/empty", "select/other", "", "select/same"),
        *("select/other", "select/other", "", "select/same"),
    ]


def test_answers_passed_over_are_counted_but_are_no_reason_to_stop(work):
    tmp_path, load = work
    config = load(
        generate={"samples": 4, "temperature": 1, "select": "first", "max_reject_rate": 0.3},
        teacher={"replies": ["One.", "Two.", "Three."]},
    )
    counts = generate(config, tmp_path / "run")["card"]["rows"]
    assert (counts["asked"], counts["kept"], counts["rejected"]) == (160, 40, 120)


def test_the_card_names_the_terms_of_an_endpoints_answers(work):
    tmp_path, load = work
    load()
    values = json.loads((tmp_path / "c.yaml").read_text())
    values["teacher"] = {"kind": "openai", "model": "mistral-large-latest", "base_url": "https://api.mistral.ai/v1"}
    (tmp_path / "c.yaml").write_text(json.dumps(values))
    assert "mistral" in (card.licence(configuration.load(tmp_path / "c.yaml")) or "")
    assert card.licence(load()) is None
