"""Conversations of several turns, and reasoning apart from the answer, from the file to the tokens that are learnt."""

from __future__ import annotations

import json

import pytest

from distill.errors import ConfigError
from distill.generate.filters import contamination
from distill.providers import fake
from distill.providers._base import parse_chat, split_reasoning
from distill.train.batches import encode_rows
from tests.tiny import tiny_tokenizer
from tests.unit.generate.stage import generate

TURNS = [
    {"role": "user", "content": "Which still is that?"},
    {"role": "assistant", "content": "An alembic."},
    {"role": "user", "content": "How old is it?"},
]


def body(message: dict) -> bytes:
    choice = {"message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 9}}).encode()


@pytest.mark.parametrize(
    "message",
    [
        {"content": "Very old.", "reasoning_content": "Copper, so ..."},
        {"content": "Very old.", "reasoning": "Copper, so ..."},
        {"content": "<think>Copper, so ...</think>Very old."},
        {"content": "<think>\nCopper, so ...\n</think>\n\nVery old."},
        {"content": "Copper, so ...\n</think>\n\nVery old."},
    ],
)
def test_reasoning_is_kept_apart_whatever_the_server_calls_it(message):
    completion = parse_chat(body(message))
    assert (completion.reasoning, completion.text, completion.reject) == ("Copper, so ...", "Very old.", "")


def test_a_text_about_tags_is_not_reasoning():
    text = "HTML has no <think> tag, and </think> would close none."
    assert split_reasoning(text) == ("", text)
    assert split_reasoning("<think>never closed") == ("never closed", "")


class Thinking(fake.FakeProvider):
    """Thinks before it answers."""

    def _reply(self, request):
        return body({"content": "Very old.", "reasoning_content": "Copper, so ..."})


def test_a_conversation_is_asked_whole_and_only_the_last_answer_is_learnt(work, monkeypatch):
    tmp_path, load = work
    asked = []
    monkeypatch.setattr(fake, "build", lambda config, context: Thinking(config))
    real = fake.FakeProvider.ask

    async def ask(self, requests):
        asked.extend(requests)
        return await real(self, requests)

    monkeypatch.setattr(fake.FakeProvider, "ask", ask)
    rows = [{"id": f"r{n}", "doc": f"d{n}", "lang": "en", "messages": TURNS} for n in range(3)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = generate(load(prompts={"system": "Be brief."}), tmp_path / "run")
    turns = [{"role": "system", "content": "Be brief."}, *TURNS]
    assert [{"role": m.role, "content": m.content} for m in asked[0].messages] == turns
    row = made["train"][0]
    assert (row["messages"], row["answer"], row["reasoning"]) == (turns, "Very old.", "Copper, so ...")
    tokenizer = tiny_tokenizer()
    for reasoning, learnt in ((False, "Very old."), (True, "<think>\nCopper, so ...\n</think>\n\nVery old.")):
        encoded = encode_rows([row], tokenizer, 512, reasoning=reasoning).rows[0]
        assert tokenizer.decode(encoded.completion) == learnt + "<|im_end|>"
        assert "An alembic." in tokenizer.decode(encoded.prompt), "earlier answers are read, not learnt"
        assert "Copper" not in tokenizer.decode(encoded.prompt)


def test_training_data_is_compared_with_the_runs_own_evaluation_unless_other_files_are_named(work):
    tmp_path, load = work
    (tmp_path / "test.jsonl").write_text(json.dumps({"q": "Is this question number three of the list?"}) + "\n")
    planted = {"id": "p", "prompt": "IS THIS question, number three of the list", "doc": "p", "lang": "en"}
    with (tmp_path / "prompts.jsonl").open("a") as file:
        file.write(json.dumps(planted) + "\n")
    task = {"kind": "exact", "path": "test.jsonl", "gold_field": "q"}
    config = load(generate={"filters": ["contamination"]}, eval={"tasks": [task]})
    made = generate(config, tmp_path / "run")
    assert made["card"]["rejected"] == {"contamination/eval_item": 1}
    assert [row["id"] for row in made["rejects"]] == ["p"]
    with pytest.raises(ConfigError, match="nothing to compare with"):
        generate(load(generate={"filters": ["contamination"]}, eval={"tasks": []}), tmp_path / "none")
    assert contamination.Config(paths=("x",)).completed(config).paths == ("x",)
