"""A vLLM server of your own that draws the student's answers: its adapters and its samples.

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve STUDENT --enable-lora --max-lora-rank R

Tokens travel as ids in both directions and no text is tokenized again: the server must repeat the prompt's ids and
name every sampled token by its id twice, in `token_ids` and in its log-probabilities.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.errors import ConfigError, EnvironmentProblem, TeacherUnavailable
from distill.providers._base import NoAnswer
from distill.train.endpoint import Endpoint, told

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

COMPLETIONS, MODELS, LOAD, UNLOAD = "/completions", "/models", "/load_lora_adapter", "/unload_lora_adapter"
SERVE = "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve STUDENT --enable-lora --max-lora-rank {rank}"
LEAST = -30.0  # log-probabilities below are equal: servers write minus infinity as a large number


@dataclass(frozen=True)
class Drawn:
    """One answer: token ids and the log-probability that the engine gave each when it drew it, at temperature 1."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


class RolloutServer:
    """See the module. ``vocab``: ids of the student are below it; ``rank``: of its adapter."""

    def __init__(self, provider: Any, vocab: int, rank: int):
        if provider.capabilities.paid:
            raise ConfigError(
                "train.rollout_engine loads an adapter at every step: it must be a vLLM server of your own, without "
                "a price",
                next="leave train.rollout_engine out: the student then answers in this process",
            )
        self.endpoint, self.vocab, self.serve = Endpoint(provider), vocab, SERVE.format(rank=rank)
        self.base, self.url = provider.config.model, provider.config.base_url

    def check(self, longest: int) -> None:
        """The base is served, for rows of ``longest`` tokens. Raises ConfigError, TeacherUnavailable."""
        raw = self._get(MODELS)
        try:
            cards = {card["id"]: card for card in json.loads(raw)["data"]}
        except (ValueError, KeyError, TypeError):
            raise self._strange("its list of models cannot be read") from None
        if self.base not in cards:
            raise ConfigError(
                f"the rollout server has no model {self.base!r}; it serves {', '.join(map(repr, sorted(cards)))}",
                where=self.url,
                next="set train.rollout_engine.model to the name under which the student's base is served",
            )
        room = cards[self.base].get("max_model_len")
        if isinstance(room, int) and room < longest:
            raise ConfigError(
                f"prompt and answer are up to {longest} tokens and the rollout server takes {room}",
                where=self.url,
                next=f"--max-model-len {longest}, or lower train.rollout_max_new_tokens",
            )

    def load(self, name: str, folder: Path) -> None:
        """Make the adapter in ``folder`` a model called ``name``. Raises EnvironmentProblem, TeacherUnavailable."""
        try:
            self.endpoint.post(LOAD, [{"lora_name": name, "lora_path": str(folder)}])
        except NoAnswer as error:
            if error.status == 400 and "already" in told(error):  # an earlier send arrived, its answer did not
                return
            if error.status == 404 and "adapter" not in told(error):
                what = "does not load adapters while it runs"
            elif error.status == 404:
                what = f"does not see {folder}: the run folder must have the same path there"
            elif error.status is None:
                raise self._unavailable(error) from None
            else:
                what = f"does not take the student's adapter: {told(error)}"
            raise EnvironmentProblem(
                f"the rollout server {what}", where=self.url, safe="the last checkpoint", next=f"{self.serve} ..."
            ) from None

    def unload(self, name: str) -> None:
        """Forget an adapter; nothing when there is none of that name."""
        try:
            self.endpoint.post(UNLOAD, [{"lora_name": name}])
        except NoAnswer as error:
            if error.status is None:
                raise self._unavailable(error) from None

    def draw(
        self, name: str, prompts: Sequence[Sequence[int]], seeds: Sequence[int], settings: dict[str, Any]
    ) -> list[Drawn]:
        """One answer to each prompt of token ids. ``settings``: max_tokens, temperature, stop_token_ids."""
        # Every filter is named: a server takes what is left out from the model's generation_config.json.
        plain = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "ignore_eos": True}
        shown = {"logprobs": 0, "return_token_ids": True, "return_tokens_as_token_ids": True}
        fixed = {"model": name, **plain, **shown, **settings}
        bodies = [fixed | {"prompt": list(ids), "seed": seed} for ids, seed in zip(prompts, seeds, strict=True)]
        raws = self._post(COMPLETIONS, bodies)
        return [self._drawn(raw, ids, settings) for raw, ids in zip(raws, prompts, strict=True)]

    def _drawn(self, raw: bytes, prompt: Sequence[int], settings: dict[str, Any]) -> Drawn:
        try:
            (choice,) = json.loads(raw)["choices"]
            ids, seen, logprobs = choice["token_ids"], choice["prompt_token_ids"], choice["logprobs"]
            named = [int(text.removeprefix("token_id:")) for text in logprobs["tokens"]]
            values = tuple(max(LEAST, float(value)) for value in logprobs["token_logprobs"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._strange("its answers hold no token ids (return_token_ids)") from None
        if seen != list(prompt):
            raise self._strange(f"it read other tokens than the prompt's ({len(seen or ())} of {len(prompt)})")
        if ids != named or len(ids) != len(values) or not 0 < len(ids) <= settings["max_tokens"]:
            raise self._strange("the ids of its answers are not those of the tokens it drew: it tokenizes again")
        if max(ids) >= self.vocab:
            raise self._strange(f"it drew token {max(ids)} outside the student's vocabulary of {self.vocab}")
        return Drawn(tuple(ids), values)

    def _get(self, path: str) -> bytes:
        try:
            return self.endpoint.get(path)
        except NoAnswer as error:
            raise self._unavailable(error) from None

    def _post(self, path: str, bodies: Sequence[dict[str, Any]]) -> list[bytes]:
        try:
            return self.endpoint.post(path, bodies)
        except NoAnswer as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: NoAnswer) -> TeacherUnavailable:
        return TeacherUnavailable(
            f"the rollout server does not answer: {told(error)}",
            where=self.url,
            safe="the last checkpoint",
            next="look at the server, then the same command",
        )

    def _strange(self, what: str) -> EnvironmentProblem:
        return EnvironmentProblem(
            f"the rollout server cannot draw answers: {what}",
            where=self.url,
            safe="the last checkpoint",
            next="serve the student's base with vLLM 0.18 or later, or leave train.rollout_engine out",
        )
