"""The `generate` section: how the teacher is asked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distill.config.section import Executor, Filter, Provider, Section, Verifier
from distill.executors.local import Config as Local
from distill.records import Sampling


class Mixed(Section):
    """A teacher beside the main one."""

    teacher: Provider
    """Who is asked."""
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """How often, next to the main teacher's 1. Which prompt it gets depends on seed and prompt id alone."""
    when: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    """Fields of the prompt row and the value (or list of values) each must have. A prompt that fits goes only to the
    teachers that name it; one that fits none goes to the main teacher and to those without `when`."""


class Generate(Section):
    """How the teacher is asked."""

    samples: Annotated[int, Field(ge=1, le=64)] = 1
    """Answers per prompt."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    """Longest answer, in tokens, reasoning included."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """0 = greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling."""
    max_cost_eur: Annotated[float, Field(ge=0)] = 0.0
    """Hard cap on what this run may spend on paid teachers, in EUR, kept across restarts."""
    mix: tuple[Mixed, ...] = ()
    """More teachers beside `teacher`, each with its own price and pace, all within `max_cost_eur`. The column
    `teacher` of the data set says who answered."""
    executor: Executor = Local()
    """Where the teacher's engine runs: `local`, in this process, or `ray`, as a pool of workers on a cluster. What is
    asked and what is paid is the same."""
    signals_top_k: Annotated[int, Field(ge=0, le=1024)] = 0
    """Keep this many teacher log-probabilities per answer token (0 = none). Needed by `offline_topk`."""
    signals_kind: Literal["topk", "sampled"] = "topk"
    """`topk`: the most likely tokens. `sampled`: tokens drawn from the whole distribution, an unbiased target
    (local teachers only; `signals_top_k` is then the number of draws)."""
    filters: tuple[Filter, ...] = ()
    """Answers are kept when every filter keeps them."""
    verifiers: tuple[Verifier, ...] = ()
    """Checks of an answer; an answer that fails one is rejected."""
    select: Literal["all", "first", "majority", "best"] = "all"
    """Which of a prompt's kept answers go on. `first`: the first that passed. `majority`: the commonest text, once
    (Wang et al. 2022). `best`: the one that a judge scored highest. On a tie the earliest. The others are counted as
    rejected, but not against `max_reject_rate`."""
    holdout: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """Share of the clusters kept out of training, for the held-out loss."""
    max_reject_rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Stop (exit 13) when a larger share of the answers is unusable."""

    @model_validator(mode="after")
    def _samples_differ(self) -> Generate:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"samples: {self.samples} needs a temperature above 0, or all answers are the same")
        return self

    @model_validator(mode="after")
    def _best_needs_scores(self) -> Generate:
        if self.select == "best" and not any(getattr(verifier, "SCORES", False) for verifier in self.verifiers):
            raise ValueError("select: best needs a verifier that gives scores, such as {kind: judge, judge: {...}}")
        return self

    def sampling(self, seed: int) -> Sampling:
        """These settings as part of a request."""
        return Sampling(self.max_new_tokens, self.temperature, self.top_p, seed)
