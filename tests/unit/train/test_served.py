"""A server that draws the student's answers has the student's weights, or the run stops and says why not."""

from __future__ import annotations

import shutil

import pytest

from distill.artifacts import RunFolder
from distill.errors import ConfigError, EnvironmentProblem, Refused, TeacherUnavailable
from distill.models import load_causal_lm
from distill.train import endpoint, run
from tests.unit.train.conftest import make_config, metrics, records, write_rows
from tests.unit.train.test_processes import together
from tests.unit.train.test_resume import Killed, digest, kill_at, new_folder
from tests.unit.train.test_run import teacher_of
from tests.unit.train.vllm_stand_in import BASE, Vllm


@pytest.fixture
def server(tiny_student, monkeypatch):
    monkeypatch.setattr(endpoint, "WAIT_S", 0.01)
    made = Vllm(tiny_student)
    yield made
    made.http.shutdown()
    made.http.server_close()


def settings(server, teacher, **values) -> dict:
    return {
        "method": "on_policy",
        "loss": "reverse_kl",
        "teacher": teacher_of(teacher),
        "rollout_engine": server.config(),
        "rollout_share": 0.7,
        "rollout_max_new_tokens": 5,
        "kd_weight": 1.0,
        "max_steps": 4,
    } | values


def train(path, student, **values) -> RunFolder:
    folder = RunFolder(path / "run")
    write_rows(folder.train_data, records(12))
    run.run(make_config(student, **values), folder)
    return folder


def synced(folder: RunFolder) -> list[dict]:
    return [line for line in metrics(folder) if "sync_error" in line]


def test_a_server_draws_from_the_student_of_every_step(server, tiny_student, taught_teacher, tmp_path):
    folder = train(tmp_path, tiny_student, **settings(server, taught_teacher, rollout_share=1.0))
    names = [body["lora_name"] for path, body in server.asked if path == "load_lora_adapter"]
    assert len(set(names)) == len(names) == 4, "one set of weights a step"
    assert {body["model"] for body in server.drawn()} == set(names)
    assert set(server.models) == {BASE, names[-1]}, "older weights are forgotten"
    lines = synced(folder)
    assert len(lines) == 4
    assert all(0 <= line["sync_error"] < 1e-4 and abs(line["rollout_kl"]) < 1e-4 for line in lines)


def test_prompts_and_answers_travel_as_ids_and_seeds_depend_on_run_step_and_row(
    server, tiny_student, taught_teacher, tmp_path
):
    for name, micro in (("a", 2), ("b", 3)):
        train(tmp_path / name, tiny_student, **settings(server, taught_teacher, micro_batch_size=micro))
        server.asked, asked = [], server.drawn()
        seeds = sorted((body["seed"], *body["prompt"]) for body in asked)
        assert len(set(seeds)) == len(seeds) > 6
        if name == "a":
            first = seeds
    assert first == seeds, "how rows are batched changes no draw"
    train(tmp_path / "c", tiny_student, **settings(server, taught_teacher, seed=8))
    assert {body["seed"] for body in server.drawn()}.isdisjoint(s[0] for s in first)


def test_without_chance_a_server_draws_and_teaches_what_this_process_does(
    server, tiny_student, taught_teacher, tmp_path
):
    """Cold sampling leaves one answer to each prompt, so both ways to draw must have the same loss curve."""
    values = settings(server, taught_teacher, rollout_temperature=1e-3, max_steps=6)
    there = train(tmp_path / "there", tiny_student, **values)
    here = train(tmp_path / "here", tiny_student, **values | {"rollout_engine": None})
    one, two = ([line["loss"] for line in metrics(folder) if "loss" in line] for folder in (there, here))
    assert one == pytest.approx(two, rel=1e-4)
    other = train(tmp_path / "other", tiny_student, **values | {"rollout_temperature": 1.0})
    assert [line["loss"] for line in metrics(other) if "loss" in line] != pytest.approx(two, rel=1e-4)


def unworn(model):
    """Faults of a server: it has the adapter and does not apply it."""
    model.disable_adapter_layers()
    return model


def test_a_server_that_answers_with_the_base_is_found_by_the_canary(server, tiny_student, taught_teacher, tmp_path):
    server.wear = unworn
    with pytest.raises(EnvironmentProblem, match="does not have the student's weights"):
        train(tmp_path, tiny_student, **settings(server, taught_teacher, rollout_share=1.0))
    assert len(metrics(RunFolder(tmp_path / "run"))) == 1, "a fresh adapter changes nothing; the second step is refused"


def test_a_server_that_keeps_the_first_weights_is_found_by_the_canary(server, tiny_student, taught_teacher, tmp_path):
    kept = []

    def stale(model):
        kept.append(model)
        return kept[min(1, len(kept) - 1)]

    server.wear = stale
    with pytest.raises(EnvironmentProblem, match="an older one answers"):
        train(tmp_path, tiny_student, **settings(server, taught_teacher, rollout_share=1.0))
    assert len(kept) == 3


def test_another_base_is_refused_before_the_first_step(server, tiny_student, tiny_teacher, taught_teacher, tmp_path):
    server.models[BASE] = load_causal_lm(tiny_teacher)[0].eval()
    with pytest.raises(ConfigError, match="not the student's base"):
        train(tmp_path, tiny_student, **settings(server, taught_teacher))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_model_that_is_not_served_is_refused_with_those_that_are(server, tiny_student, taught_teacher, tmp_path):
    with pytest.raises(ConfigError, match=r"no model 'other'; it serves 'base'"):
        train(tmp_path, tiny_student, **settings(server, taught_teacher, rollout_engine=server.config(model="other")))


def test_too_short_a_context_is_refused_with_the_length_it_needs(server, tiny_student, taught_teacher, tmp_path):
    server.room = 40
    with pytest.raises(ConfigError, match=r"--max-model-len \d+"):
        train(tmp_path, tiny_student, **settings(server, taught_teacher))


def test_a_server_that_loads_no_adapters_is_told_how_to_start(server, tiny_student, taught_teacher, tmp_path):
    server.loads = False
    with pytest.raises(
        EnvironmentProblem, match=r"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.*--enable-lora.*rank 4"
    ) as told:
        train(tmp_path, tiny_student, **settings(server, taught_teacher))
    assert told.value.exit_code == 3


def test_a_server_that_sees_another_disk_is_told_which_folder(server, tiny_student, taught_teacher, tmp_path):
    load = server.load
    server.load = lambda body: load(body | {"lora_path": "/elsewhere"})
    with pytest.raises(EnvironmentProblem, match=r"does not see .*the same path there"):
        train(tmp_path, tiny_student, **settings(server, taught_teacher))


def test_a_server_that_is_gone_ends_the_run_with_12_after_some_tries(server, tiny_student, taught_teacher, tmp_path):
    server.complete, complete = lambda body: 1 / 0, server.complete
    with pytest.raises(TeacherUnavailable, match="does not answer") as told:
        train(tmp_path, tiny_student, **settings(server, taught_teacher))
    assert told.value.exit_code == 12
    assert sum(path == "completions" for path, _ in server.asked) >= endpoint.ATTEMPTS
    server.complete = complete
    train(tmp_path, tiny_student, **settings(server, taught_teacher))


def retokenized(choice):
    return choice | {"token_ids": [*choice["token_ids"][:-1], 7, 7]}


def with_bos(choice):
    return choice | {"prompt_token_ids": [1, *choice["prompt_token_ids"]]}


def without_ids(choice):
    return {"text": "rose", "logprobs": None}


def outside(choice):
    named = choice["logprobs"] | {"tokens": ["token_id:9999"] * len(choice["token_ids"])}
    return choice | {"token_ids": [9999] * len(choice["token_ids"]), "logprobs": named}


def processed(choice):
    """`--logprobs-mode processed_logprobs` at a temperature, or any other numbers."""
    named = choice["logprobs"] | {"token_logprobs": [0.3 * value for value in choice["logprobs"]["token_logprobs"]]}
    return choice | {"logprobs": named}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (retokenized, "tokenizes again"),
        (with_bos, "other tokens than the prompt's"),
        (without_ids, "no token ids"),
        (outside, "outside the student's vocabulary"),
        (processed, "not the student's base"),
    ],
)
def test_a_server_that_speaks_of_other_tokens_is_refused(server, tiny_student, taught_teacher, tmp_path, spoil, says):
    server.spoil = spoil
    with pytest.raises((EnvironmentProblem, ConfigError), match=says):
        train(tmp_path, tiny_student, **settings(server, taught_teacher))


def test_a_killed_run_learns_the_same_answers_again_and_ends_with_the_same_bytes(
    server, tiny_student, taught_teacher, tmp_path, monkeypatch
):
    config = make_config(tiny_student, **settings(server, taught_teacher, max_steps=8, rollout_share=1.0))
    config = config.model_copy(update={"train": config.train.model_copy(update={"checkpoint_every_s": 3600})})
    whole, broken, other = (new_folder(tmp_path / name) for name in ("whole", "broken", "other"))
    run.run(config, whole)
    for folder in (broken, other):
        with monkeypatch.context() as patch:
            kill_at(patch, 5)  # the third micro-batch of the second step, and no checkpoint yet
            with pytest.raises(Killed):
                run.run(config, folder)
    server.asked = []
    run.run(config, broken)
    assert digest(broken) == digest(whole)
    assert len(server.drawn()) == 6 * 6, "the first two steps are not drawn again"
    server.tilt = 1  # the negative control: this server draws other answers than the one before the restart
    run.run(config, other)
    one, two = ([line for line in metrics(folder) if "loss" in line] for folder in (whole, other))
    assert one[:2] == two[:2]
    assert one[2]["loss"] != two[2]["loss"]


def test_a_damaged_spool_is_drawn_again(server, tiny_student, taught_teacher, tmp_path, monkeypatch, capsys):
    config = make_config(tiny_student, **settings(server, taught_teacher, rollout_share=1.0))
    folder = new_folder(tmp_path / "run")
    with monkeypatch.context() as patch:
        kill_at(patch, 0)
        with pytest.raises(Killed):
            run.run(config, folder)
    (path,) = folder.rollouts.glob("step-*.safetensors")
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    server.asked = []
    run.run(config, folder)
    assert "damaged: the answers of step 1 are drawn again" in "".join(capsys.readouterr())
    assert len(server.drawn()) == 4 * 6


def test_answers_of_steps_before_every_checkpoint_are_forgotten(server, tiny_student, taught_teacher, tmp_path):
    folder = train(tmp_path, tiny_student, **settings(server, taught_teacher, rollout_share=1.0, keep_checkpoints=1))
    assert [path.name[:13] for path in sorted(folder.rollouts.glob("step-*"))] == ["step-00000003"]


def test_a_run_goes_on_with_a_server_at_another_address(server, tiny_student, taught_teacher, tmp_path, monkeypatch):
    values = settings(server, taught_teacher, rollout_share=1.0)
    folder = new_folder(tmp_path / "run")
    with monkeypatch.context() as patch:
        kill_at(patch, 4)
        with pytest.raises(Killed):
            run.run(make_config(tiny_student, **values), folder)
    moved = Vllm(tiny_student)
    run.run(make_config(tiny_student, **values | {"rollout_engine": moved.config()}), folder)
    moved.http.shutdown()
    moved.http.server_close()
    assert moved.drawn()
    values["max_steps"] = 5
    with pytest.raises(ConfigError, match="settings changed"):
        changed = make_config(tiny_student, **values | {"rollout_engine": None})
        unfinish(folder)
        run.run(changed, folder)


def unfinish(folder: RunFolder) -> None:
    """As if the run had been killed before its end."""
    last = max(folder.checkpoints.glob("step-*"))
    shutil.rmtree(last)
    (folder.checkpoints / "LATEST").write_text(max(folder.checkpoints.glob("step-*")).name)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"method": "sft"}, "on_policy"),
        ({"rollout_engine": {"kind": "fake", "model": "x"}}, "kind: openai"),
        ({"adapter": {"kind": "none"}}, "adapter.kind 'none'"),
        ({"adapter": {"kind": "dora"}}, "adapter.kind 'dora'"),
    ],
)
def test_settings_that_a_server_cannot_serve_are_a_contradiction(tiny_student, taught_teacher, values, says):
    engine = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "model": BASE}
    given = {"method": "on_policy", "rollout_engine": engine, "teacher": teacher_of(taught_teacher)} | values
    with pytest.raises(ConfigError, match=says):
        make_config(tiny_student, **given)


def test_a_priced_endpoint_is_refused_before_it_is_asked(server, tiny_student, taught_teacher, tmp_path):
    price = {"input": 1, "output": 1, "as_of": "2026-11-01"}
    with pytest.raises(ConfigError, match="without a price"):
        train(tmp_path, tiny_student, **settings(server, taught_teacher, rollout_engine=server.config(price=price)))
    assert not server.asked


def test_two_processes_draw_what_one_draws_and_one_of_them_publishes(server, tiny_student, taught_teacher, tmp_path):
    values = settings(server, taught_teacher, rollout_share=1.0, max_steps=3, threads=1)
    alone, shared = new_folder(tmp_path / "alone"), new_folder(tmp_path / "together")
    run.run(make_config(tiny_student, **values), alone)
    server.asked, before = [], server.drawn()
    together(tmp_path, tiny_student, shared, values)
    assert sum(path == "load_lora_adapter" for path, _ in server.asked) == 3
    assert sorted(body["seed"] for body in server.drawn()) == sorted(body["seed"] for body in before)
    for one, two in zip(metrics(alone), metrics(shared), strict=True):
        assert two == pytest.approx(one, rel=1e-4, abs=1e-5)


def test_two_processes_stop_together_when_the_server_is_wrong(server, tiny_student, taught_teacher, tmp_path):
    server.loads = False
    values = settings(server, taught_teacher, rollout_share=1.0, threads=1)
    with pytest.raises(AssertionError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        together(tmp_path, tiny_student, new_folder(tmp_path / "run"), values)


def test_prompts_are_not_sent_to_a_rollout_server_outside_the_allowed_regions(tiny_student, taught_teacher, tmp_path):
    engine = {"kind": "openai", "base_url": "https://rollouts.example.com/v1", "model": BASE}
    values = {"method": "on_policy", "rollout_engine": engine, "teacher": teacher_of(taught_teacher)}
    with pytest.raises(Refused, match="rollout engine"):
        train(tmp_path, tiny_student, **values)
