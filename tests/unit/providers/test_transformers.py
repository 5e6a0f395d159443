"""The local provider against plain, slow references."""

from __future__ import annotations

import asyncio
import json

import pytest
import torch

from distill import models
from distill.errors import OutOfMemory
from distill.providers import _choices
from distill.providers import transformers as provider_file
from distill.providers._base import Context
from distill.records import Message, Request, Sampling
from tests.tiny import tiny_model

SYSTEM = "You sort short texts into sections. Answer with the name of one section and nothing else."
TEXTS = ["a game of chess", "plays music", "x", "edits photographs and draws pictures with layers", "mail reader"]
CHOICES = ("games", "sound", "video", "mails", "gamer or a longer choice")


def requests(texts=TEXTS, choices=(), top=0, **sampling):
    sampling.setdefault("max_new_tokens", 12)
    return [
        Request((Message("system", SYSTEM), Message("user", text)), Sampling(**sampling), tuple(choices), top)
        for text in texts
    ]


def provider_of(folder, **settings):
    config = provider_file.Config(model=f"path:{folder}", dtype="float32", threads=1, **settings)
    return provider_file.build(config, Context())


def ask(provider, some):
    return [json.loads(answer.raw) for answer in asyncio.run(provider.ask(some))]


def texts_of(provider, some):
    return [body["choices"][0]["message"]["content"] for body in ask(provider, some)]


@pytest.fixture(scope="module")
def lively(tmp_path_factory):
    """A tiny model whose answers depend on the whole prompt: larger weights and a head of its own.

    With small weights and tied embeddings a model only repeats its last token, and every test here would pass.
    """
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tiny_model(tmp_path_factory.mktemp("lively"))
    config = LlamaConfig.from_pretrained(folder, tie_word_embeddings=False)
    torch.manual_seed(3)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.normal_(0, 0.25)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder


@pytest.fixture
def provider(lively, monkeypatch, tmp_path):
    monkeypatch.setenv("ALAMBIC_CACHE", str(tmp_path))
    return provider_of(lively)


def test_the_tiny_model_really_reads_its_prompt(provider):
    assert len(set(texts_of(provider, requests()))) == len(TEXTS)
    assert len(set(texts_of(provider, requests(choices=CHOICES)))) > 1


def greedy_reference(folder, request):
    """Token by token, whole sequence each time, no cache, no padding."""
    model, tokenizer = models.load_causal_lm(folder, "float32")
    ids, new = models.encode_chat(tokenizer, request.messages), []
    while len(new) < request.sampling.max_new_tokens:
        with torch.inference_mode():
            token = int(model(input_ids=torch.tensor([ids + new])).logits[0, -1].argmax())
        new.append(token)
        if token in models.end_ids(tokenizer):
            break
    return new, tokenizer


def test_batched_answers_with_a_shared_prefix_are_those_of_a_plain_single_run(provider, lively):
    some = requests(top=1)
    bodies = ask(provider, some)
    assert bodies[0]["usage"]["prompt_tokens_details"]["cached_tokens"] > 50, "the prefix was not shared"
    for body, request in zip(bodies, some, strict=True):
        reference, tokenizer = greedy_reference(lively, request)
        tokens = [item["token"] for item in body["choices"][0]["logprobs"]["content"]]
        assert tokens == [tokenizer.decode([t]) for t in reference]
        assert body["usage"]["completion_tokens"] == len(reference)


def test_the_kept_prefix_serves_later_batches_and_other_prompts_do_not_see_it(provider, lively):
    first = texts_of(provider, requests())
    other = [Request((Message("user", text),), Sampling(max_new_tokens=12)) for text in TEXTS]
    alone = texts_of(provider_of(lively, batch_size=1), other)
    assert texts_of(provider, other) == alone
    assert texts_of(provider, requests()) == first
    assert first != alone


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_an_answer_does_not_depend_on_the_batch_it_is_in(lively, provider, batch_size):
    for settings in ({}, {"temperature": 1.0, "seed": 7}, {"temperature": 0.8, "top_p": 0.6}):
        some = requests(**settings)
        assert texts_of(provider_of(lively, batch_size=batch_size), some) == texts_of(provider, some[::-1])[::-1]


def choice_reference(folder, request, dtype="float32"):
    """Log-probability of each choice and the end of the turn, one plain forward pass for each."""
    model, tokenizer = models.load_causal_lm(folder, dtype)
    context = models.encode_chat(tokenizer, request.messages)
    totals = []
    for choice in request.choices:
        answer = models.encode_answer(tokenizer, choice)
        with torch.inference_mode():
            logprobs = model(input_ids=torch.tensor([context + answer])).logits[0].log_softmax(-1)
        totals.append(sum(float(logprobs[len(context) - 1 + n, t]) for n, t in enumerate(answer)))
    return torch.tensor(totals, dtype=torch.float64)


@pytest.mark.parametrize("plain", [True, False])
def test_choices_are_ranked_as_full_scoring_ranks_them(provider, lively, plain):
    provider._loaded().plain = plain  # False: the path of models whose cache cannot be branched
    some = requests(choices=CHOICES, top=8)
    for body, request in zip(ask(provider, some), some, strict=True):
        totals = choice_reference(lively, request)
        expected = dict(zip(CHOICES, totals.log_softmax(-1).tolist(), strict=True))
        item = body["choices"][0]["logprobs"]["content"][0]
        assert body["choices"][0]["message"]["content"] == CHOICES[int(totals.argmax())] == item["token"]
        assert {t["token"]: t["logprob"] for t in item["top_logprobs"]} == pytest.approx(expected, abs=2e-4)
        assert body["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("choices", [CHOICES, ("a", "an", "and", "b", ""), ("x",), tuple("abcdefghijklmnop")])
def test_the_short_cut_to_the_best_choice_finds_the_one_that_full_scoring_finds(provider, lively, choices):
    some = requests([f"text {n} {text}" for n in range(3) for text in TEXTS], choices=choices)
    expected = [choices[int(choice_reference(lively, request).argmax())] for request in some]
    assert texts_of(provider, some) == expected


def test_a_branch_that_could_see_its_neighbours_would_be_noticed(provider, lively, monkeypatch):
    causal = _choices._branches
    joined = lambda engine, mask, shared, lengths: causal(engine, mask, shared, [sum(lengths)])  # noqa: E731
    monkeypatch.setattr(_choices, "_branches", joined)
    some = requests(choices=CHOICES, top=8)
    item = ask(provider, some[:2])[0]["choices"][0]["logprobs"]["content"][0]
    expected = dict(zip(CHOICES, choice_reference(lively, some[0]).log_softmax(-1).tolist(), strict=True))
    assert {t["token"]: t["logprob"] for t in item["top_logprobs"]} != pytest.approx(expected, abs=2e-4)


def test_choices_drawn_at_a_temperature_are_legal_and_repeatable(provider):
    some = requests(choices=CHOICES, temperature=2.0, seed=3) * 4
    drawn = texts_of(provider, some)
    assert set(drawn) <= set(CHOICES)
    assert drawn == texts_of(provider, some)


def test_mixed_requests_come_back_in_order(provider):
    some = [r for pair in zip(requests(), requests(choices=CHOICES), strict=True) for r in pair]
    texts = texts_of(provider, some)
    assert texts[::2] == texts_of(provider, requests())
    assert texts[1::2] == texts_of(provider, requests(choices=CHOICES))


def test_log_probabilities_are_those_of_a_plain_forward_pass(provider, lively):
    model, tokenizer = models.load_causal_lm(lively, "float32")
    some = requests(top=5)
    for body, request in zip(ask(provider, some), some, strict=True):
        completion = provider.parse(json.dumps(body).encode())
        reference, _ = greedy_reference(lively, request)
        context = models.encode_chat(tokenizer, request.messages)
        with torch.inference_mode():
            logprobs = model(input_ids=torch.tensor([context + reference])).logits[0].log_softmax(-1)
        rows = logprobs[len(context) - 1 : -1]
        expected = [float(rows[n, t]) for n, t in enumerate(reference)]
        assert list(completion.logprobs.logprobs) == pytest.approx(expected, abs=1e-4)
        assert [p for _, p in completion.logprobs.top[0]] == pytest.approx(rows[0].topk(5).values.tolist(), abs=1e-4)


def test_given_answers_are_scored_as_a_plain_forward_pass_scores_them(provider, lively):
    model, tokenizer = models.load_causal_lm(lively, "float32")
    items = [(r.messages, text) for r, text in zip(requests(), ["games", "a", "", "video and sound", "é"], strict=True)]
    for (messages, text), scored in zip(items, provider.score_tokens(items, 4), strict=True):
        context, answer = models.encode_chat(tokenizer, messages), models.encode_answer(tokenizer, text)
        assert scored.token_ids_T.tolist() == answer
        assert answer[-1] == tokenizer.eos_token_id
        with torch.inference_mode():
            logprobs = model(input_ids=torch.tensor([context + answer])).logits[0].log_softmax(-1)
        values, ids = logprobs[len(context) - 1 : -1].topk(4)
        assert scored.top_ids_TK.tolist() == ids.tolist()
        assert scored.top_logprobs_TK == pytest.approx(values.numpy(), abs=1e-4)


def test_an_answer_ends_at_a_stop_text_and_at_the_token_limit(provider):
    (free,) = ask(provider, requests(TEXTS[:1]))
    text = free["choices"][0]["message"]["content"]
    stop = next(c for c in text[1:] if c.isprintable() and c != "�")
    (stopped,) = ask(provider, requests(TEXTS[:1], stop=(stop,)))
    assert stopped["choices"][0]["finish_reason"] == "stop"
    assert stopped["choices"][0]["message"]["content"] == text[: text.index(stop)]
    (cut,) = ask(provider, requests(TEXTS[:1], max_new_tokens=2))
    assert cut["choices"][0]["finish_reason"] == "length"
    assert provider.parse(json.dumps(cut).encode()).reject == "truncated"


def test_a_prompt_longer_than_the_model_reads_is_rejected_alone(provider):
    long, short = requests(["word " * 600, TEXTS[0]])
    answers = asyncio.run(provider.ask([long, short]))
    assert provider.parse(answers[0].raw).reject == "error_body"
    assert texts_of(provider, [short]) == [provider.parse(answers[1].raw).text]


def test_a_batch_that_does_not_fit_is_halved_until_it_does(provider, monkeypatch):
    expected, engine, sizes = texts_of(provider, requests()), provider._loaded(), []
    generate = engine.generate

    def small_machine(rows):
        sizes.append(len(rows))
        if len(rows) > 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate")
        generate(rows)

    monkeypatch.setattr(engine, "generate", small_machine)
    assert texts_of(provider, requests()) == expected
    assert sizes == [5, 2, 3, 1, 2]


def test_one_prompt_that_does_not_fit_is_out_of_memory_and_other_errors_are_not_hidden(provider, monkeypatch):
    def fails_with(error):
        def raises(rows):
            raise error

        monkeypatch.setattr(provider._loaded(), "generate", raises)

    fails_with(MemoryError())
    with pytest.raises(OutOfMemory):
        ask(provider, requests())
    fails_with(RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape"):
        ask(provider, requests())


def test_identity_tells_apart_what_changes_the_answers_and_loads_no_weights(lively, tiny_student, provider):
    identity = provider.identity()
    assert provider._engine is None
    assert json.loads(json.dumps(identity)) == identity
    assert identity == provider_of(lively, batch_size=3).identity()
    other = provider_of(tiny_student).identity()
    assert other["weights"] != identity["weights"]
    assert other["tokenizer"] == identity["tokenizer"]
    config = provider_file.Config(model=f"path:{lively}", dtype="bfloat16")
    assert provider_file.build(config, Context()).identity()["dtype"] == "bfloat16"


def test_an_adapter_changes_the_answers_and_the_identity(lively, provider, tmp_path):
    from peft import LoraConfig, get_peft_model

    model, _ = models.load_causal_lm(lively, "float32")
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    tuned = provider_of(lively, adapter=str(tmp_path / "adapter"))
    assert tuned.identity()["adapter"] != provider.identity()["adapter"]
    assert texts_of(tuned, requests()) != texts_of(provider, requests())


def test_cancelling_stops_the_thread_at_its_next_token(provider):
    texts_of(provider, requests(TEXTS[:1]))
    engine = provider._loaded()
    engine.stop_ids = set()

    async def cancelled():
        task = asyncio.create_task(provider.ask(requests(max_new_tokens=1500)))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(cancelled(), 60))
    assert engine.cancelled


@pytest.mark.real
def test_a_real_instruct_model_answers_through_the_whole_path():
    config = provider_file.Config(model="smollm2-135m-instruct", batch_size=4)
    provider = provider_file.build(config, Context())
    question = [
        Request(
            (Message("user", f"What is the capital of {country}? Answer with the name of the city."),), Sampling(12)
        )
        for country in ("France", "Italy", "Germany")
    ]
    for text, city in zip(texts_of(provider, question), ("Paris", "Rome", "Berlin"), strict=True):
        assert city in text
    held = [Request(r.messages, choices=("Madrid", "Paris", "Berlin", "Rome"), top_logprobs=4) for r in question]
    for body, request in zip(ask(provider, held), held, strict=True):
        totals = choice_reference(provider.resolved.path, request, provider.config.dtype)
        expected = dict(zip(request.choices, totals.log_softmax(-1).tolist(), strict=True))
        top = {t["token"]: t["logprob"] for t in body["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}
        assert top == pytest.approx(expected, abs=0.1 if provider.identity()["dtype"] == "bfloat16" else 1e-3)
