"""Messages as token ids. Training, providers and release all encode here, so they read the same text."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from distill.errors import DataError
from distill.records import canonical_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.records import Message

CANARY = "kestrel"


def encode_chat(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of the chat up to where the assistant's answer begins, or, in a user's turn, the user's text.

    The template is rendered in the library's sandbox. Raises DataError when there is none or it refuses these roles.
    """
    turns = [{"role": m.role, "content": m.content} for m in messages]
    if is_users_turn(messages):
        text = _render(tokenizer, [*turns, {"role": "user", "content": CANARY}], False, False).partition(CANARY)[0]
        return [int(token) for token in tokenizer.encode(text, add_special_tokens=False)]
    return [int(token) for token in _render(tokenizer, turns, True, True)]


def is_users_turn(messages: Sequence[Message]) -> bool:
    """True when nobody has asked anything yet: what comes next is what a user would write."""
    return not messages or messages[-1].role == "system"


def users_turn_ends(tokenizer: Any) -> bool:
    """True when the template ends a user's turn with a token that also ends an answer, so that sampling stops there."""
    after = _render(tokenizer, [{"role": "user", "content": CANARY}], False, False).rpartition(CANARY)[2]
    ids = tokenizer.encode(after, add_special_tokens=False)
    return bool(ids) and ids[0] in end_ids(tokenizer)


def encode_answer(tokenizer: Any, text: str) -> list[int]:
    """Token ids of an assistant's answer and of the token that ends its turn."""
    return [*(int(token) for token in tokenizer.encode(text, add_special_tokens=False)), end_ids(tokenizer)[0]]


def end_ids(tokenizer: Any) -> list[int]:
    """Ids that end an assistant's turn; the first is the one the chat template itself writes after an answer."""
    ids: list[int] = []
    if tokenizer.chat_template:
        turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": CANARY}]
        after = _render(tokenizer, turn, False, False).rpartition(CANARY)[2]
        special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
        ids = [i for i in tokenizer.encode(after, add_special_tokens=False)[:2] if i in special][:1]
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
        ids.append(tokenizer.eos_token_id)
    if not ids:
        raise DataError("the tokenizer has no token that ends an answer", where=str(tokenizer.name_or_path))
    return ids


def _render(tokenizer: Any, turns: list[dict[str, str]], prompt: bool, tokenize: bool) -> Any:
    if not tokenizer.chat_template:
        raise DataError(
            "the tokenizer has no chat template: a base model, not an instruct one",
            where=str(tokenizer.name_or_path),
            next="use the instruct version of this model",
        )
    try:
        return tokenizer.apply_chat_template(turns, add_generation_prompt=prompt, tokenize=tokenize, return_dict=False)
    except Exception as error:  # a template may raise anything, jinja2's own errors included
        roles = ", ".join(turn["role"] for turn in turns)
        raise DataError(
            f"the chat template refuses these turns ({roles}): {str(error)[:160]}", where=str(tokenizer.name_or_path)
        ) from error


def template_hash(tokenizer: Any) -> str:
    """SHA-256 of the chat template; of nothing when there is none."""
    template = tokenizer.chat_template or ""
    return hashlib.sha256(template.encode() if isinstance(template, str) else canonical_json(template)).hexdigest()


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """SHA-256 of everything that decides which ids a text becomes. Equal: token ids can be exchanged."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return hashlib.sha256(canonical_json(tokenizer.get_vocab())).hexdigest()
    state = json.loads(backend.to_str())
    decides = {k: v for k, v in state.items() if k not in ("version", "truncation", "padding", "decoder")}
    return hashlib.sha256(canonical_json(decides)).hexdigest()
