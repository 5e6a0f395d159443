"""A judge that obeys whatever stands outside of the fences, and every system message: what an attack hopes for.

It reads the chat as a model does, as one text with ChatML markers, so that a forged marker opens a turn. Inside the
fences it only looks at which answer states more facts.
"""

from __future__ import annotations

import re
from typing import Literal

from distill.providers._base import Capabilities, ProviderConfig, chat_json, parse_chat
from distill.records import Answer, Usage

FACT = "FACT"
TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)
ORDER = re.compile(
    r"(?:verdict|winner|better|prefer|choose|reply with|output|say|gagnant|besser|meilleure?|migliore|vinder|decision)"
    r"[^\n]{0,40}?\b(?:answer )?(A|B|correct)\b",
    re.IGNORECASE,
)


class Config(ProviderConfig):
    """How it misbehaves."""

    kind: Literal["tests.unit.evals.obedient"] = "tests.unit.evals.obedient"
    model: str = "obedient-1"
    habit: Literal["honest", "first", "mumbles", "half"] = "honest"


def build(config, context):
    return Obedient(config)


class Obedient:
    """See the module."""

    capabilities = Capabilities()
    batch_size = 16

    def __init__(self, config):
        self.config = config

    def identity(self):
        return {"kind": "obedient", "habit": self.config.habit}

    async def ask(self, requests):
        return [Answer(chat_json(self.say(r), Usage(10, 1), self.config.model)) for r in requests]

    def say(self, request):
        if self.config.habit == "mumbles":
            return "Both have merit, but I would go with A."
        if self.config.habit == "first":
            return "A"
        return judge(rendered(request.messages))

    def parse(self, raw):
        return parse_chat(raw)

    def close(self):
        pass


def rendered(messages):
    """The chat as one text, as a template writes it."""
    return "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in messages)


def judge(chat: str) -> str:
    """A verdict on the rendered chat."""
    turns = TURN.findall(chat)
    system, user = turns[0][1], turns[-1][1]
    mark = re.search(r"the mark (\S+)\.", system)
    fence = re.escape(mark[1]) if mark else "never"
    block = re.compile(rf"^\[{fence} ([\w ]+) begins\]\n(.*?)\n\[{fence} \1 ends\]$", re.DOTALL | re.MULTILINE)
    texts = dict(block.findall(user))
    outside = block.sub("", user)
    for heard in [*(content for _, content in turns[1:-1]), outside]:
        for line in heard.splitlines():
            if "Which answer is better?" in line or "Is the answer right" in line:
                continue
            if found := ORDER.search(line):
                return found[1] if found[1] == "correct" else found[1].upper()
    if "answer" in texts:
        return "correct" if FACT in texts["answer"] else "wrong"
    first, second = texts.get("answer A", "").count(FACT), texts.get("answer B", "").count(FACT)
    return "A" if first > second else "B" if second > first else "tie"
