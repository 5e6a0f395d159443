"""How many tokens a run asks for: the least, the expected, and the most. Nothing is sent."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill import costs, models
from distill.catalog.route import route_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.config import RunConfig
    from distill.records import Request

# UTF-8 bytes per token: measured with the Qwen2.5 vocabulary on short texts in eight European languages
# (Polish 3.1, German 3.5, French 3.9, English 4.6).
BYTES_PER_TOKEN = 3.7
BYTES_PER_TOKEN_BEST = 4.6
TOKENS_PER_TURN = 5  # ChatML: two markers, the role, a line break each
TOKENS_TO_ANSWER = 3
FREE_ANSWER_SHARE = 0.5  # a free answer is taken to be half as long as its limit
FRAMED = 20  # requests whose template is rendered
SAMPLED = 500  # requests counted with a real tokenizer; the others follow by their bytes


@dataclass(frozen=True)
class Tokens:
    """Tokens of all requests together: the least, the expected, and the most."""

    requests: int
    asked: int
    """Requests that differ: equal ones are paid once."""
    prompt: tuple[int, int, int]
    completion: tuple[int, int, int]
    how: str
    """Where the expected number comes from."""

    def __add__(self, other: Tokens) -> Tokens:
        prompt = tuple(a + b for a, b in zip(self.prompt, other.prompt, strict=True))
        completion = tuple(a + b for a, b in zip(self.completion, other.completion, strict=True))
        how = self.how if other.how == self.how else f"{self.how}; {other.how}"
        return Tokens(self.requests + other.requests, self.asked + other.asked, prompt, completion, how)  # type: ignore[arg-type]

    def mean_usage(self) -> tuple[float, float]:
        """Expected prompt and completion tokens of one request."""
        return self.prompt[1] / max(self.asked, 1), self.completion[1] / max(self.asked, 1)


def count_tokens(requests: Sequence[Request], tokenizer: Any = None, name: str = "", template: str = "") -> Tokens:
    """Tokens of the distinct requests; ``tokenizer`` (tokenizers.Tokenizer) counts a sample when it is at hand.

    ``template``: the model's chat template, whose own tokens are then counted instead of assumed.
    """
    distinct = list({hashlib.sha256(r.canonical({})).digest(): r for r in requests}.values())
    bytes_of = [sum(len(m.content.encode("utf-8", "surrogatepass")) for m in r.messages) for r in distinct]
    frame = [TOKENS_PER_TURN * len(r.messages) + TOKENS_TO_ANSWER for r in distinct]
    per_token, best, how = BYTES_PER_TOKEN, BYTES_PER_TOKEN_BEST, f"{BYTES_PER_TOKEN} bytes per token, assumed"
    if tokenizer is not None and distinct:
        some = distinct[:: max(1, len(distinct) // SAMPLED)]
        texts = [m.content for r in some for m in r.messages]
        counted = sum(len(e.ids) for e in tokenizer.encode_batch(texts, add_special_tokens=False))
        per_token = best = sum(len(t.encode("utf-8", "surrogatepass")) for t in texts) / max(counted, 1)
        around = [n for r in some[:FRAMED] if (n := frame_tokens(r, tokenizer, template)) is not None]
        if around:
            frame = [round(sum(around) / len(around))] * len(distinct)
        how = f"tokenizer of {name}, {len(some)} of {len(distinct)} requests"
    expected = [answer_tokens(r, per_token, tokenizer) for r in distinct]
    return Tokens(
        requests=len(requests),
        asked=len(distinct),
        prompt=(
            round(sum(bytes_of) / best) + sum(frame),
            round(sum(bytes_of) / per_token) + sum(frame),
            sum(map(costs.prompt_tokens_bound, distinct)),
        ),
        completion=(
            len(distinct),
            round(sum(expected)),
            sum(r.sampling.max_new_tokens for r in distinct),
        ),
        how=how,
    )


def answer_tokens(request: Request, bytes_per_token: float, tokenizer: Any = None) -> float:
    """Expected length of an answer: that of a mean choice and its end, or half the limit."""
    limit = request.sampling.max_new_tokens
    if not request.choices:
        return max(1.0, FREE_ANSWER_SHARE * limit)
    if tokenizer is not None:
        found = tokenizer.encode_batch(list(request.choices), add_special_tokens=False)
        return min(limit, sum(len(choice.ids) for choice in found) / len(found) + 1)
    mean = sum(len(choice.encode()) for choice in request.choices) / len(request.choices)
    return min(limit, mean / bytes_per_token + 1)


def frame_tokens(request: Request, tokenizer: Any, template: str) -> int | None:
    """Tokens that a chat template puts around the messages; None when there is none, or it does not render."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if not template:
        return None
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    messages = [{"role": m.role, "content": m.content} for m in request.messages]
    try:
        text = environment.from_string(template).render(messages=messages, add_generation_prompt=True)
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError):
        return None
    inside = tokenizer.encode_batch([m.content for m in request.messages], add_special_tokens=False)
    return len(tokenizer.encode(text, add_special_tokens=False).ids) - sum(len(found.ids) for found in inside)


def cached_tokenizer(settings: Any, config: RunConfig) -> tuple[Any, str, str]:
    """(a provider's tokenizer, its name, its chat template) when its files are on this disk, else (None, "", "")."""
    found = tokenizer_of(route_of(settings).official_model, config)
    return found if found[0] is not None else tokenizer_of(settings.model, config)


def tokenizer_of(model: str, config: RunConfig) -> tuple[Any, str, str]:
    """The same of a model by its name. Nothing is fetched."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None, "", ""
    folder = cached_folder(model, config)
    if folder is None or not (folder / "tokenizer.json").is_file():
        return None, "", ""
    try:
        template = (folder / "chat_template.jinja").read_text("utf-8")
    except (OSError, ValueError):
        template = ""
    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json")), model, template
    except Exception:  # tokenizers raises bare Exception for a damaged file; an estimate goes on without it
        return None, "", ""


def cached_folder(model: str, config: RunConfig) -> Path | None:
    """Folder of a model that is on this disk already."""
    return config.resolve(model.removeprefix("path:")) if model.startswith("path:") else models.cached(model)
