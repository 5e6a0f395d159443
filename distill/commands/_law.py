"""Would the student make you the provider of a general-purpose model? The guidelines' arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill import catalog
from distill.catalog.route import official

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.commands._tokens import Tokens
    from distill.commands._training import Size
    from distill.config import RunConfig

GPAI_FALLBACK = 3.3e22  # a third of 1e23, when the base's own compute is not known
UNKNOWN_TEACHER_B = 1000.0  # billions of active parameters: above any model known


def gpai(
    config: RunConfig, asked: Sequence[tuple[Tokens, Size | None]], learnt: Tokens, student: Size
) -> dict[str, Any]:
    """Compute of the modification against a third of the base's (Commission guidelines C(2025) 5045). Not advice.

    Counted: 6 x parameters x training tokens, and each teacher's 2 x active parameters for every token it read or
    wrote, answers that are thrown away included. ``asked``: (tokens, size or None) of each teacher.
    """
    trained = 6 * student.params * (learnt.prompt[1] + learnt.completion[1]) * config.train.epochs
    answers = 0.0
    sizes = []
    for tokens, teacher in asked:
        active = teacher.active if teacher else UNKNOWN_TEACHER_B * 1e9
        answers += 2 * active * (tokens.prompt[1] + tokens.completion[1])
        sizes.append(teacher.how if teacher else f"unknown: counted as {UNKNOWN_TEACHER_B:g} billion active parameters")
    row = catalog.find_model(official(config.student.model))
    known = row.params_b * row.pretrain_tokens_t if row and row.params_b and row.pretrain_tokens_t else None
    threshold = 6 * known * 1e21 / 3 if known else GPAI_FALLBACK
    return {
        "training_flop": trained,
        "teacher_flop": answers,
        "teacher_size": "; ".join(dict.fromkeys(sizes)),
        "threshold_flop": threshold,
        "threshold": "a third of the base's training compute" if known else "fallback: the base's compute is not known",
        "share": (trained + answers) / threshold,
        "new_provider": trained + answers > threshold,
    }
