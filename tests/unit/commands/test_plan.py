"""`distill plan`: what stops the run is one line with its exit code; nothing is sent; the arithmetic is stated."""

from __future__ import annotations

import datetime
import json
import socket
from pathlib import Path

import pytest

from distill import catalog, cli, costs, energy
from distill.commands import _exam, _law, _tokens, _training
from distill.commands.plan import build
from distill.config import load
from distill.records import Message, Request, Sampling

GPUS = ("L4", "L40S", "H100-PCIe")
ROOT = Path(__file__).parents[3]
CONFIG = """
name: %(name)s
prompts: {path: prompts.jsonl, template: "{{ text }}", choices: [yes, no]}
teacher: %(teacher)s
generate: {max_cost_eur: 1, max_new_tokens: 8}
student: {model: smollm2-135m-instruct}
eval:
  tasks: [{kind: classification, path: test.jsonl, gold_field: label}]
  serving: {eur_per_hour: 0.05}
"""
MISTRAL = "{kind: openai, provider: mistral, model: mistral-large-4}"


@pytest.fixture(autouse=True)
def _no_network_and_one_day(tmp_path, monkeypatch):
    """Sockets are blocked, and it is the day the catalogue was read."""

    def blocked(*args, **kwargs):
        raise AssertionError("the plan opened a socket")

    monkeypatch.setattr(socket, "socket", blocked)
    monkeypatch.setattr(socket, "create_connection", blocked)
    monkeypatch.setattr(catalog, "today", lambda: datetime.date(2026, 11, 23))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("ALAMBIC_CACHE", str(tmp_path / "cache"))


def write(folder, teacher=MISTRAL, name="demo", rows=10, **replaced):
    text = CONFIG % {"name": name, "teacher": teacher}
    for old, new in replaced.items():
        text = text.replace(old, new)
    (folder / "run.yaml").write_text(text)
    lines = [json.dumps({"id": str(n), "text": f"Is {n} an even number?", "label": "yes"}) for n in range(rows)]
    (folder / "prompts.jsonl").write_text("\n".join(lines))
    (folder / "test.jsonl").write_text("\n".join(lines[:5]))
    return folder / "run.yaml"


def planned(capsys, *arguments):
    """(exit code, the plan, the line on stderr)."""
    code = cli.main(["plan", *map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err.strip()


def test_a_good_plan_ends_with_zero_and_says_everything(tmp_path, capsys):
    code, plan, err = planned(capsys, write(tmp_path))
    assert (code, err) == (0, "")
    teacher = plan["teacher"]
    assert (teacher["requests"], teacher["asked"], plan["prompts"]["used"]) == (10, 10, 10)
    assert 0 < teacher["expected_eur"] < teacher["worst_case_eur"] < 1
    assert teacher["batch_eur"] == pytest.approx(teacher["expected_eur"] / 2)
    assert teacher["exam_eur"] == pytest.approx(teacher["expected_eur"] / 2, rel=0.05)  # 5 items, 10 prompts
    assert [gpu["gpu"] for gpu in plan["gpus"]] == list(GPUS)
    assert plan["gpai"]["new_provider"] is False
    assert [row["passes"] for row in plan["permission"]] == [True] * 3


def test_the_plan_for_people_is_printed_and_holds_the_same_money(tmp_path, capsys):
    file = write(tmp_path)
    _, plan, _ = planned(capsys, file)
    assert cli.main(["plan", str(file)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for word in ("mistral-large-4 at Mistral AI", "0.7 in, 2.1 out USD", "must: ", "Not legal advice", "do not distil"):
        assert word in text
    assert f"mistral-large-4 at Mistral AI {plan['teacher']['expected_eur']:.2g} EUR" in text


STOPS = [
    ("a typo", {"max_cost_eur": "max_cost_euro"}, 2, "did you mean generate.max_cost_eur?"),
    ("a missing price", {"mistral-large-4": "mistral-large-9"}, 2, "no price of 'mistral-large-9'"),
    ("no cap", {"max_cost_eur: 1": "max_cost_eur: 0"}, 2, "a paid teacher needs a cap"),
    ("a forbidden region", {MISTRAL: "{kind: openai, provider: deepseek, model: deepseek-v4-pro}"}, 5, "CN"),
    ("a forbidden teacher", {MISTRAL: "{kind: openai, provider: anthropic, model: claude-opus-5-5}"}, 5, "prohibited"),
    ("a live teacher behind an API", {"student: {": "train: {method: whitebox}\nstudent: {"}, 2, "top_logprobs"),
    ("nothing to learn from", {"student: {": "train: {method: offline_topk}\nstudent: {"}, 2, "none are stored"),
    ("an unknown base", {"smollm2-135m-instruct": "hub:nobody/base@abc"}, 5, "no licence of 'nobody/base'"),
    ("no prompts", {"prompts.jsonl": "nothing.jsonl"}, 4, "nothing.jsonl"),
    ("no test file", {"test.jsonl": "nothing.jsonl"}, 4, "nothing.jsonl"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "change", "exit_code", "said"), STOPS, ids=[row[0] for row in STOPS])
def test_what_would_stop_the_run_is_one_line_with_its_exit_code(tmp_path, capsys, what, change, exit_code, said):
    code, _, err = planned(capsys, write(tmp_path, **change))
    assert code == exit_code
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(("days", "code", "age"), [(45, 0, "fresh"), (60, 0, "stale"), (121, 2, "expired")])
def test_an_old_price_warns_and_a_very_old_one_stops(tmp_path, capsys, monkeypatch, days, code, age):
    read = costs.find_price("mistral", "mistral-large-4").as_of
    monkeypatch.setattr(catalog, "today", lambda: read + datetime.timedelta(days=days))
    ended, plan, err = planned(capsys, write(tmp_path))
    assert (ended, plan["teacher"]["price_age"]) == (code, age)
    assert ("more than 120 days" in err) == (age == "expired")


def test_an_unknown_price_is_unknown_and_not_zero(tmp_path, capsys):
    _, plan, _ = planned(capsys, write(tmp_path, **{"mistral-large-4": "mistral-large-9"}))
    assert plan["teacher"]["expected_eur"] is None
    assert "the teacher" not in [row["name"] for row in plan["worth_it"]["against"]]


def test_a_local_teacher_has_no_token_price_and_no_seconds(tmp_path, capsys):
    code, plan, _ = planned(capsys, write(tmp_path, "{kind: transformers, model: qwen2.5-coder-0.5b-instruct}"))
    assert code == 0
    assert (plan["teacher"]["price"], plan["teacher"]["expected_eur"], plan["teacher"]["teacher_seconds"]) == (
        None,
        0,
        None,
    )


def test_equal_requests_are_counted_and_paid_once(tmp_path):
    file = write(tmp_path, rows=1)
    row = json.dumps({"id": "x", "text": "same", "label": "yes"})
    (tmp_path / "prompts.jsonl").write_text(row + "\n" + row.replace('"x"', '"y"'))
    plan, _ = build(load(file), GPUS, 1, "FRA", 1000, 0)
    assert (plan["teacher"]["requests"], plan["teacher"]["asked"]) == (2, 1)


@pytest.mark.parametrize("arguments", [["--gpu", "L5"], ["--zone", "XYZ"], ["--gpus", "0"], ["--volume", "0"]])
def test_a_bad_option_is_named(tmp_path, capsys, arguments):
    code, _, err = planned(capsys, write(tmp_path), *arguments)
    assert code == 2
    assert arguments[0] in err


def test_a_wanted_card_is_the_only_one_shown_and_two_take_half_the_time(tmp_path, capsys):
    file = write(tmp_path)
    one = planned(capsys, file, "--gpu", "L40S")[1]["gpus"]
    two = planned(capsys, file, "--gpu", "L40S", "--gpus", "2")[1]["gpus"]
    assert [row["gpu"] for row in one] == ["L40S"]
    assert two[0]["hours"] == pytest.approx(one[0]["hours"] / 2)
    assert two[0]["kwh"] == pytest.approx(one[0]["kwh"])


def test_the_one_off_bill_and_the_volume_move_the_break_even(tmp_path, capsys):
    file = write(tmp_path)
    rival = planned(capsys, file)[1]["worth_it"]["against"][0]
    dear = planned(capsys, file, "--one-off-eur", "12000")[1]["worth_it"]["against"][0]
    many = planned(capsys, file, "--volume", "100000000")[1]["worth_it"]["against"][0]
    assert dear["from_requests_per_month"] > rival["from_requests_per_month"]
    assert (rival["cheaper_at_volume"], many["cheaper_at_volume"]) == (False, True)
    assert (rival["pays_back_in_month"], many["pays_back_in_month"]) == (None, 1)


def test_a_shorter_prompt_for_the_student_saves_training_and_no_teacher_token(tmp_path, capsys):
    file = write(tmp_path, **{"{path: prompts.jsonl": "{system: '" + "A long lesson. " * 20 + "', path: prompts.jsonl"})
    long = planned(capsys, file)[1]
    short = planned(capsys, file, "student.prompt={system: Yes or no.}")[1]
    assert short["teacher"]["prompt"] == long["teacher"]["prompt"]
    assert short["training"]["tokens"] < long["training"]["tokens"] / 2


def test_a_run_that_was_made_stands_beside_its_plan(tmp_path, capsys):
    file = write(tmp_path)
    assert planned(capsys, file)[1]["actual"] == []
    folder = tmp_path / "runs" / "demo"
    (folder / "data").mkdir(parents=True)
    (folder / "student").mkdir()
    card = {"rows": {"prompts": 10}, "tokens": {"prompt": 200, "completion": 30}, "cost": {"eur": 0.0002}}
    (folder / "data" / "card.json").write_text(json.dumps(card))
    (folder / "student" / "student.json").write_text(json.dumps({"rows": 9, "steps": 4}))
    plan = planned(capsys, file)[1]
    rows = {row["what"]: row for row in plan["actual"]}
    assert len(rows) == 6
    assert rows["teacher's input tokens"]["actual"] == 200
    assert rows["teacher's input tokens"]["above"] == pytest.approx(200 / plan["teacher"]["prompt"][1] - 1)
    assert rows["training rows"]["above"] == 0
    assert cli.main(["plan", str(file)]) == 0
    assert "The run, beside its plan" in capsys.readouterr().out


def test_a_damaged_run_is_no_reason_not_to_plan(tmp_path, capsys):
    file = write(tmp_path)
    (tmp_path / "runs" / "demo" / "data").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "data" / "card.json").write_text("{broken")
    assert planned(capsys, file)[1]["actual"] == []


# -- arithmetic ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("items", "points"), [(500, 5.6), (1000, 4.0), (2000, 2.8)])
def test_the_visible_drop_is_that_of_the_worked_table(items, points):
    assert 100 * _exam.smallest_visible_drop(items, 0.2) == pytest.approx(points, abs=0.06)


def test_a_margin_of_five_points_needs_495_items():
    assert _exam.items_for_margin(0.05, 0.2) == 495


@pytest.mark.parametrize(("drop", "disagree", "items"), [(0.02, 0.1, 1955), (0.05, 0.2, 621), (0.10, 0.3, 228)])
def test_the_drop_that_is_seen_and_the_items_needed_are_inverse(drop, disagree, items):
    assert _exam.smallest_visible_drop(items, disagree) == pytest.approx(drop, rel=0.01)


def test_the_worked_compute_example_is_far_below_the_threshold(tmp_path):
    """3.4 billion parameters, 200M tokens twice, answers of an 18-billion-active teacher: 0.05 % of 3.3e22."""
    config = load(write(tmp_path, **{"smollm2-135m-instruct": "ministral-3-3b"}))
    data = _tokens.Tokens(1, 1, (0, 0, 0), (0, 200_000_000, 0), "")
    student = _training.size_of("ministral-3-3b", config)
    teacher = _training.size_of("zai-org/GLM-5.3-Flash", config)
    assert config.train.epochs == 2
    found = _law.gpai(config, [(data, teacher)], data, student)
    assert found["training_flop"] + found["teacher_flop"] == pytest.approx(1.5e19, rel=0.05)
    assert found["threshold_flop"] == 3.3e22
    assert found["share"] == pytest.approx(0.0005, rel=0.1)


@pytest.mark.parametrize(
    ("model", "third"),
    [("eurollm-9b-instruct", 7.3e22), ("apertus-8b-instruct", 2.4e23), ("lucie-7b-instruct", 4.0e22)],
)
def test_a_third_of_the_bases_compute_is_that_of_the_worked_examples(tmp_path, model, third):
    config = load(write(tmp_path, **{"smollm2-135m-instruct": model}))
    nothing = _tokens.count_tokens([])
    found = _law.gpai(config, [(nothing, None)], nothing, _training.size_of(model, config))
    assert found["threshold_flop"] == pytest.approx(third, rel=0.02)


def test_distillation_at_the_scale_of_pre_training_is_flagged(tmp_path):
    config = load(write(tmp_path))
    data = _tokens.Tokens(1, 1, (0, 0, 0), (0, 10**12, 0), "")
    student = _training.size_of("smollm2-135m-instruct", config)
    assert _law.gpai(config, [(data, None)], data, student)["new_provider"]


@pytest.mark.parametrize(
    ("model", "billions"),
    [("hub:acme/Big-13B-chat@abc", 13), ("hub:acme/tiny-350M@abc", 0.35), ("hub:acme/Phi@abc", None)],
)
def test_a_size_is_read_from_the_name_when_nothing_else_knows_it(tmp_path, model, billions):
    size = _training.size_of(model, load(write(tmp_path)))
    assert (size and size.params / 1e9) == billions


def test_a_size_is_read_from_the_files_of_a_local_folder(tmp_path, tiny_student):
    size = _training.size_of(f"path:{tiny_student}", load(write(tmp_path)))
    assert size is not None
    assert (size.layers, size.hidden) == (2, 64)
    assert 10_000 < size.params < 1_000_000


def test_with_the_real_tokenizer_at_hand_the_count_is_exact(tiny_student):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tiny_student / "tokenizer.json"))
    requests = [Request((Message("user", f"hello {n}"),), Sampling(max_new_tokens=4)) for n in range(3)]
    found = _tokens.count_tokens(requests, tokenizer, "tiny")
    per_request = len(tokenizer.encode("hello 0").ids) + _tokens.TOKENS_PER_TURN + _tokens.TOKENS_TO_ANSWER
    assert found.prompt[0] == found.prompt[1] == 3 * per_request
    assert found.prompt[1] < found.prompt[2]
    assert "tiny" in found.how


def test_a_dozen_tokens_are_never_more_than_the_bound():
    requests = [Request((Message("user", "Größe? " * n),), Sampling(max_new_tokens=9)) for n in range(1, 5)]
    found = _tokens.count_tokens(requests)
    assert found.prompt[0] <= found.prompt[1] <= found.prompt[2]
    assert found.completion[0] <= found.completion[1] <= found.completion[2] == 36


# -- electricity of the teacher -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("active", "total", "kwh"), [(8, 8, 0.089), (24, 24, 0.11), (18, 321, 1.6)])
def test_a_million_tokens_written_take_what_the_published_regression_says(active, total, kwh):
    """At a PUE of 1.2, as the research note computed them."""
    assert energy.kwh_per_mtok_written(active, total, pue=1.2) == pytest.approx(kwh, rel=0.02)


def test_the_teachers_electricity_is_estimated_over_the_grids_it_may_run_on(tmp_path, capsys):
    (found,) = planned(capsys, write(tmp_path, "{kind: openai, provider: mistral, model: zai-glm-5-3-flash}"))[1][
        "teachers"
    ]
    energy = found["energy"]
    assert energy["how"].startswith("estimated")
    assert 0 < energy["kwh"] < energy["kwh_most"]
    low, high = energy["g_co2e"]
    assert low == pytest.approx(energy["kwh"] * 40.7)  # Sweden, of the EU
    assert high == pytest.approx(energy["kwh"] * 661.9)  # Poland
    local = planned(capsys, write(tmp_path, "{kind: transformers, model: qwen2.5-coder-0.5b-instruct}"))[1]["teachers"]
    assert local[0]["energy"]["zones"] == ["FRA"]


def test_the_electricity_of_a_teacher_of_unknown_size_is_unknown_and_not_zero(tmp_path, capsys):
    file = write(tmp_path)
    (found,) = planned(capsys, file)[1]["teachers"]
    assert (found["energy"]["kwh"], found["energy"]["g_co2e"]) == (None, None)
    cli.main(["plan", str(file)])
    assert "Electricity of mistral-large-4 at Mistral AI: unknown" in " ".join(capsys.readouterr().out.split())


# -- several teachers, batches, the run ---------------------------------------------------------------------------

MIX = "generate: {mix: [{teacher: {kind: openai, provider: mistral, model: mistral-small-2603}}], "


def test_each_teacher_of_a_mix_has_its_share_and_the_sums_are_right(tmp_path, capsys):
    code, plan, _ = planned(capsys, write(tmp_path, rows=40, **{"generate: {": MIX}))
    assert code == 0
    assert sum(one["asked"] for one in plan["teachers"]) == plan["teacher"]["asked"] == 40
    assert min(one["asked"] for one in plan["teachers"]) > 5
    assert plan["teacher"]["expected_eur"] == pytest.approx(sum(one["expected_eur"] for one in plan["teachers"]))
    assert [row["role"] for row in plan["permission"] if row["kind"] == "licence"] == [
        "teacher", "teacher 2", "student base"
    ]  # fmt: skip


def test_a_mix_with_one_unpriced_teacher_has_no_sum_and_names_it(tmp_path, capsys):
    code, plan, err = planned(capsys, write(tmp_path, rows=40, **{"generate: {": MIX.replace("small-2603", "small-9")}))
    assert code == 2
    assert plan["teacher"]["expected_eur"] is None
    assert "generate.mix.0.teacher.price" in err


def test_a_batch_teacher_is_expected_at_the_batch_price(tmp_path, capsys):
    file = write(tmp_path)
    live, batch = (planned(capsys, file, *more)[1]["teacher"] for more in ([], ["teacher.batch=true"]))
    assert batch["expected_eur"] == pytest.approx(live["batch_eur"]) == pytest.approx(live["expected_eur"] / 2)
    assert batch["worst_case_eur"] < live["worst_case_eur"]


# The demo as it was run on 2026-11-23: two cores, seed 7, 320 prompts.
QUICKSTART = {"prompt": 127_194, "completion": 640}


def test_the_plan_of_the_quickstart_is_within_a_quarter_of_what_the_run_took(tmp_path):
    """Without the teacher's tokenizer at hand: the rougher of the two ways to count."""
    plan, _ = build(load(ROOT / "configs" / "quickstart.yaml"), GPUS, 1, "FRA", 1000, 0)
    assert "assumed" in plan["teacher"]["how"]
    for name, taken in QUICKSTART.items():
        low, expected, most = plan["teacher"][name]
        assert abs(taken / expected - 1) <= 0.25
        assert low <= taken <= most


def test_with_the_template_at_hand_its_own_tokens_are_counted(tmp_path, tiny_student):
    from distill.models import encode_chat, load_tokenizer

    config = load(write(tmp_path, **{"smollm2-135m-instruct": f"path:{tiny_student}"}))
    tokenizer, _, template = _tokens.tokenizer_of(f"path:{tiny_student}", config)
    request = Request((Message("system", "Short."), Message("user", "Größe?")), Sampling(max_new_tokens=4))
    real = len(encode_chat(load_tokenizer(tiny_student), request.messages))
    assert _tokens.count_tokens([request], tokenizer, "tiny", template).prompt[1] == real
    assert (
        _tokens.count_tokens([request], tokenizer, "tiny", "{{ broken").prompt[1] != real
    )  # falls back to the formula


def test_the_plan_is_written_once_before_the_run_and_the_report_reads_its_lines_from_it(tmp_path):
    from distill.artifacts import RunFolder, write_json
    from distill.commands import _actual
    from evals import planned as lines

    config = load(write(tmp_path))
    folder = RunFolder(tmp_path / "runs" / "demo")
    (folder.path / "data").mkdir(parents=True)
    assert lines.recorded(folder) == []  # `distill eval` alone: no plan, no lines
    _actual.write_plan(config, folder)
    plan = json.loads((folder.path / "plan.json").read_text())
    write_json(folder.data_card, {"rows": {"prompts": 10}, "tokens": {"prompt": 120}, "cost": {"eur": "0.000090000"}})
    rows = {row["what"]: row for row in lines.recorded(folder)}
    assert rows["teacher, EUR"]["planned"] == plan["teacher"]["expected_eur"]
    assert rows["teacher, EUR"]["actual"] == 0.00009
    assert rows["teacher's input tokens"]["above"] == pytest.approx(120 / plan["teacher"]["prompt"][1] - 1)
    before = (folder.path / "plan.json").stat().st_mtime_ns
    _actual.write_plan(config, folder)
    assert (folder.path / "plan.json").stat().st_mtime_ns == before
    _actual.write_plan(load(write(tmp_path), ["prompts.limit=5"]), folder)
    assert json.loads((folder.path / "plan.json").read_text())["prompts"]["used"] == 5
    (folder.path / "plan.json").write_text("{broken")
    assert lines.recorded(folder) == []
