"""The advisor: which method this teacher and this student allow, and why. `train.method: auto` takes its advice.

The rule, by what the teacher gives:

==============================  ==================  =================
teacher                         one tokenizer       two, or not known
==============================  ==================  =================
several, or text alone          sft                 sft
stored log-probabilities        offline_topk        sft
in this process, both fit       whitebox            cross_tokenizer
in this process, too large      as from its store   sft
==============================  ==================  =================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill import catalog, gates, models
from distill.catalog.route import official, route_of
from distill.commands._training import size_of
from distill.train import memory

if TYPE_CHECKING:
    from distill.config import RunConfig

ROOM = 0.8  # share of the memory that both models may fill


@dataclass(frozen=True)
class Choice:
    """A method, and the reason in words."""

    method: str
    why: str


def advice(config: RunConfig) -> str:
    """What `distill plan` says."""
    choice = choose(config, fetch=False)
    if config.train.method in ("auto", choice.method):
        return f"{choice.method}: {choice.why}"
    return f"{config.train.method}, as the configuration says; auto would take {choice.method}: {choice.why}"


def choose(config: RunConfig, *, fetch: bool) -> Choice:
    """The method for this teacher and student. ``fetch``: bring unknown weights here first, if the gates allow it.

    Raises what loading a model raises, and Refused.
    """
    if config.generate.mix:
        return Choice("sft", "several teachers write the text, and only their text is comparable")
    if config.teacher.kind == gates.FAKE:
        return Choice("sft", "the fake teacher has no probabilities")
    stored, here = bool(config.generate.signals_top_k), config.teacher.kind == "transformers"
    route = route_of(config.teacher)
    silent = route.kind == "api" and (route.provider is None or route.provider.top_logprobs != "yes")
    if not here and silent:
        return Choice("sft", "this endpoint is not known to return log-probabilities; your own vLLM would")
    if not here and not stored:
        return Choice("sft", "no log-probabilities are stored; generate.signals_top_k: 20 would allow offline_topk")
    same = same_tokenizer(config, fetch=fetch)
    if same is None:
        return Choice(
            "sft", "the weights are not here, so the tokenizers cannot be compared; a run does, before it asks"
        )
    kept = Choice("offline_topk", "its log-probabilities are stored, in the student's own tokens")
    text = Choice("sft", "the tokenizers differ, and text is what both understand")
    if not here:
        return kept if same else text
    if not fits(config):
        if stored and same:
            return kept
        return Choice("sft", "both models do not fit into memory at once; generate.signals_top_k would keep more")
    if config.student.prompt is not None:
        return kept if stored and same else Choice("sft", "the student is asked in other words than the teacher")
    if same:
        return Choice("whitebox", "one tokenizer, and teacher and student fit into this machine's memory together")
    return Choice("cross_tokenizer", "two tokenizers, and teacher and student fit into this machine's memory together")


def same_tokenizer(config: RunConfig, *, fetch: bool) -> bool | None:
    """Whether teacher and student give every text the same ids; None when neither disk nor catalogue knows."""
    if fetch:
        gates.refuse(gates.verdicts(config))
    names = (str(getattr(config.teacher, "model", "")), config.student.model)
    folders = [_folder(name, config, fetch=fetch and config.teacher.kind == "transformers") for name in names]
    if folders[0] is not None and folders[1] is not None:
        one, two = (models.tokenizer_fingerprint(models.load_tokenizer(folder)) for folder in folders)
        return one == two
    theirs, ours = catalog.find_model(route_of(config.teacher).official_model), catalog.find_model(official(names[1]))
    if not theirs or not ours or not theirs.tokenizer or not ours.tokenizer:
        return None
    return theirs.tokenizer == ours.tokenizer


def _folder(name: str, config: RunConfig, *, fetch: bool) -> Any:
    if fetch:
        return models.resolve(name, config.resolve(".")).path
    return config.resolve(name.removeprefix("path:")) if name.startswith("path:") else models.cached(name)


def fits(config: RunConfig) -> bool:
    """Whether this machine trains the student with the teacher beside it; True when their sizes are not known."""
    student, teacher = size_of(config.student.model, config), size_of(route_of(config.teacher).official_model, config)
    room = memory.installed()
    if student is None or teacher is None or room is None:
        return True
    needed = memory.needed(
        student.params,
        memory.trained(student.params, student.layers, student.hidden, config.student.adapter),
        student.layers,
        student.hidden,
        memory.micro_tokens(config.train, config.student.max_length),
        width=2 if models.pick_dtype("auto", models.pick_device()) == "bfloat16" else 4,
        quantised=config.student.adapter.kind == "qlora",
        checkpointing=config.train.gradient_checkpointing,
        teacher=teacher.params,
    )
    return needed <= ROOM * room
