"""Tasks that need more than a text: the likeliest option, and programs that are run."""

import json
import random

import pytest

from distill import plugins
from distill.config import Prompts
from distill.errors import DataError
from evals.tasks import code, multiple_choice
from evals.tasks._base import completed


def a_file(folder, kind, rows, **settings):
    """(completed configuration, path) of a data file with these rows."""
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = plugins.load("evals.tasks", kind).Config(path=str(path), **settings)
    return completed(config, Prompts(path="x", template="{{ prompt }}"), 64), path


def test_the_likeliest_option_is_the_one_a_plain_sum_of_log_probabilities_finds(tmp_path, tiny_student, monkeypatch):
    import asyncio

    from distill import models
    from distill.providers import transformers as provider
    from distill.providers._base import Context

    words = ["red", "blue and green", "a", "yellow", "gr"]
    rows = [
        {"id": str(n), "prompt": f"question {n}", "options": random.Random(n).sample(words, 2 + n % 4), "answer": 0}
        for n in range(12)
    ]
    config, path = a_file(tmp_path, "multiple_choice", rows, by="likelihood")
    made = multiple_choice.examples(config, path)
    made_requests = [multiple_choice.prompt(item, config) for item in made]
    assert made_requests[3].messages[-1].content == "question 3"
    assert made_requests[3].choices == tuple(rows[3]["options"])
    engine = provider.build(provider.Config(model=f"path:{tiny_student}", dtype="float32", batch_size=5), Context())
    answers = [engine.parse(a.raw).text for a in asyncio.run(engine.ask(made_requests))]
    monkeypatch.setattr("distill.providers._engine.KEPT_BYTES", 1)  # row by row
    assert [engine.parse(a.raw).text for a in asyncio.run(engine.ask(made_requests))] == answers
    for request, answer in zip(made_requests, answers, strict=True):
        found = []
        for option in request.choices:
            pair = (
                models.encode_chat(engine.tokenizer, request.messages),
                models.encode_answer(engine.tokenizer, option),
            )
            ((logprobs, _, _),) = engine._loaded().answers([pair], 1)
            found.append(sum(logprobs))
        assert answer == request.choices[found.index(max(found))]
    assert multiple_choice.score(made[0], rows[0]["options"][0], config) == 1.0
    assert multiple_choice.score(made[0], rows[0]["options"][1], config) == 0.0


def test_an_engine_that_cannot_hold_to_options_is_refused_for_likelihoods(tmp_path):
    from distill import cli

    (tmp_path / "items.jsonl").write_text('{"id": "1", "prompt": "2+2?", "options": ["4", "5"], "answer": "4"}\n')
    (tmp_path / "suite.yaml").write_text("tasks: [{kind: multiple_choice, path: items.jsonl, by: likelihood}]")
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(f"kind: openai\nmodel: {name}\nbase_url: http://127.0.0.1:9/v1\n")
    arguments = ["compare", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"), "--suite", str(tmp_path / "suite.yaml")]
    assert cli.main([*arguments, "--out", str(tmp_path / "out")]) == 2


def test_code_is_run_only_when_that_was_asked_for(tmp_path):
    with pytest.raises(ValueError, match="run_answers: true"):
        code.Config(path="x")
    with pytest.raises(ValueError, match="run_answers: true"):
        code.Config(path="x", run_answers=False)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("def double(x):\n    return x + x", 1.0),
        ("Sure:\n```python\ndef double(x):\n    return x * 2\n```\nIt doubles.", 1.0),
        ("```\ndef double(x): return 2 * x\n```\n```python\ndef double(x): return 0\n```", 1.0),
        ("```python\ndef double(x): return 2 * x", 1.0),  # cut off
        ("def double(x):\n    return x", 0.0),
        ("import sys\nsys.exit(0)", 0.0),
        ("double = lambda x: 4\nimport os\nos._exit(0)", 0.0),
        ("I cannot do that.", 0.0),
    ],
)
def test_a_program_is_right_when_the_tests_behind_it_reach_their_end(tmp_path, answer, right):
    config, path = a_file(tmp_path, "code", [code.EXAMPLE], run_answers=True)
    assert code.score(code.examples(config, path)[0], answer, config) == right


def test_code_may_continue_a_given_beginning_as_in_human_eval(tmp_path):
    row = {**code.EXAMPLE, "prompt": "def double(x):\n", "answer": "    return 2 * x"}
    config, path = a_file(tmp_path, "code", [row], run_answers=True, before_field="prompt")
    item = code.examples(config, path)[0]
    assert code.score(item, "    return 2 * x", config) == 1.0
    assert code.score(item, "    return 3 * x", config) == 0.0
    del row["tests"]
    config, path = a_file(tmp_path, "code", [row], run_answers=True)
    with pytest.raises(DataError, match="'tests' is missing"):
        code.examples(config, path)
