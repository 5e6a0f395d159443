"""Token counts that cannot be right are noticed without a tokenizer, and stop a paid run with exit 13."""

from __future__ import annotations

import pytest

from distill.errors import TooManyRejected
from distill.query.ask import ask_all
from distill.query.store import Store
from distill.query.usage import ENOUGH, UsageWatch
from distill.records import Completion, Message, Request, Usage
from tests.fault.asking import QUICK, provider_of, requests_of
from tests.fault.hostile import HostileTeacher
from tests.unit.query.prices import PRICE

TEXTS = {
    "English": "The quick brown fox jumps over the lazy dog and then goes home. " * 20,
    "Greek": "Η γρήγορη καφέ αλεπού πηδάει πάνω από τον τεμπέλη σκύλο. " * 20,
    "code": "for (int i = 0; i < n; ++i) { sum += a[i] * b[i]; }\n" * 20,
    "short": "Hi",
}


def watched(text: str, prompt: int, completion: int, count: int = ENOUGH) -> UsageWatch:
    watch = UsageWatch()
    for _ in range(count):
        watch.add(Request((Message("user", text),)), Completion(text, usage=Usage(prompt, completion)))
    return watch


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("bytes_per_token", [1.5, 3, 4.5, 7])
def test_what_any_tokenizer_may_count_is_believed(text, bytes_per_token):
    tokens = max(1, round(len(text.encode()) / bytes_per_token))
    assert watched(text, tokens + 20, tokens).complaint(0) == ""


def test_ten_times_too_many_or_too_few_is_not():
    text = TEXTS["English"]
    right = len(text) // 4
    assert "prompt tokens" in watched(text, 10 * right, right).complaint(0)
    assert "at least" in watched(text, right // 10, right // 10).complaint(0)
    assert "more tokens than was asked for" in watched(text, right, right).complaint(5)
    assert watched(text, right, right).complaint(2) == ""
    assert watched(text, 10 * right, right, ENOUGH - 1).complaint(0) == "", "too few to judge"


def test_an_absent_usage_is_not_judged():
    assert watched("text", 0, 0).complaint(0) == ""


@pytest.mark.parametrize("fault", ["huge_usage", "tenfold_usage"])
def test_a_teacher_that_bills_what_cannot_be_is_stopped(tmp_path, fault):
    with HostileTeacher(lambda text, nth: fault) as server, Store(tmp_path / "run.db") as store:
        requests = requests_of([f"question {n} " + "word " * 100 for n in range(300)])
        with pytest.raises(TooManyRejected, match="cannot be right") as caught:
            ask_all(provider_of(server.url), requests, store, title="t", price=PRICE, max_cost_eur=9, policy=QUICK)
        assert caught.value.exit_code == 13
        assert ENOUGH <= server.sends() < ENOUGH + 40
        assert store.audit() == []
        assert store.totals().answers == server.sends(), "what came is kept"


def test_a_free_teacher_is_not_judged_by_its_counts(tmp_path):
    with HostileTeacher(lambda text, nth: "tenfold_usage") as server, Store(tmp_path / "run.db") as store:
        outcomes = ask_all(provider_of(server.url), requests_of(map(str, range(80))), store, title="t", policy=QUICK)
    assert len(outcomes) == 80
