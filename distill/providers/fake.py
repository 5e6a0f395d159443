"""A deterministic model without weights or network: for tests, dry runs and documentation."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from distill.providers._base import Capabilities, ProviderConfig, chat_json, parse_chat
from distill.records import Answer, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.providers._base import Context
    from distill.records import Completion, Request


class Config(ProviderConfig):
    """Answers are a pure function of the request."""

    kind: Literal["fake"] = "fake"
    model: str = "fake-1"
    replies: tuple[str, ...] = ("A short answer.",)
    """What it may say; the request's hash picks one. Requests with choices get one of the choices."""
    latency_s: Annotated[float, Field(ge=0)] = 0.0
    """Waited before each batch."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Requests per call."""


def build(config: Config, context: Context) -> FakeProvider:  # noqa: ARG001
    """A provider that answers at once."""
    return FakeProvider(config)


class FakeProvider:
    """See the module."""

    capabilities = Capabilities(choices=True)

    def __init__(self, config: Config):
        self.config = config
        self.batch_size = config.batch_size

    def identity(self) -> dict[str, Any]:
        """Kind, model and what it may say."""
        return {"kind": "fake", "model": self.config.model, "replies": list(self.config.replies)}

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer for each request, picked by its hash."""
        await asyncio.sleep(self.config.latency_s)
        return [Answer(self._reply(request)) for request in requests]

    def _reply(self, request: Request) -> bytes:
        digest = int.from_bytes(hashlib.sha256(request.canonical(self.identity())).digest()[:8], "big")
        options = request.choices or self.config.replies
        text = options[digest % len(options)]
        prompt = sum(len(message.content.encode()) // 4 + 4 for message in request.messages)
        return chat_json(text, Usage(prompt, max(1, len(text.encode()) // 4)), self.config.model)

    def parse(self, raw: bytes) -> Completion:
        """Read what ``ask`` returned."""
        return parse_chat(raw)

    def close(self) -> None:
        """Nothing to free."""
