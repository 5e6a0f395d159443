"""Does the teacher bill what was sent? Its token counts beside the bytes that went and came, over the whole run.

No tokenizer is needed: a token of a prompt has at least one byte, and text takes at most some twelve bytes per token on
average. Hidden reasoning is billed and not seen, so answers are bounded by ``max_new_tokens`` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill.records import Completion, Request

ENOUGH = 50  # answers before the counts are judged
BYTES_PER_TOKEN = 12  # more than any tokenizer reaches on average
TOLERATED = 0.05


@dataclass(slots=True)
class UsageWatch:
    """Sums over the answers whose usage is there at all; one that is absent was charged at worst case."""

    answers: int = 0
    prompt: int = 0
    tokens: int = 0
    most: int = 0
    """No tokenizer makes more prompt tokens of what was sent."""
    least: int = 0
    """None makes fewer tokens of what went and came."""

    def add(self, request: Request, completion: Completion) -> None:
        """Take one answer into account."""
        from distill.costs import prompt_tokens_bound

        usage = completion.usage
        if usage.prompt <= 0 or not request.messages:
            return
        sent = sum(len(message.content.encode("utf-8", "surrogatepass")) for message in request.messages)
        came = len(completion.text.encode("utf-8", "surrogatepass"))
        self.answers += 1
        self.prompt += usage.prompt
        self.tokens += usage.prompt + usage.completion
        self.most += prompt_tokens_bound(request)
        self.least += (sent + came) // BYTES_PER_TOKEN

    def complaint(self, impossible: int) -> str:
        """What cannot be right about the counts, once there are enough; else "".

        ``impossible``: answers that were billed higher than their request allows.
        """
        if self.answers < ENOUGH:
            return ""
        if impossible > TOLERATED * self.answers:
            return f"{impossible} of {self.answers} answers are billed for more tokens than was asked for"
        if self.prompt > (1 + TOLERATED) * self.most:
            return f"it bills {self.prompt} prompt tokens where at most {self.most} were sent"
        if self.tokens < (1 - TOLERATED) * self.least:
            return f"it reports {self.tokens} tokens where at least {self.least} went and came"
        return ""
