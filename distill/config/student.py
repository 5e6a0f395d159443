"""The `student` section: the model that will be yours."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distill.config.prompts import Example
from distill.config.section import Section


class Adapter(Section):
    """Low-rank adapter on the student (Hu et al. 2021)."""

    kind: Literal["lora", "dora", "qlora", "none"] = "lora"
    """`qlora`: LoRA over a base held in 4 bits (Dettmers et al. 2023), on CUDA. `none` trains all weights."""
    r: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank."""
    alpha: Annotated[float, Field(gt=0)] = 32
    """Scale: the update is multiplied by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapter's input."""
    targets: tuple[str, ...] = ("all-linear",)
    """Module names, or `all-linear`."""


class StudentPrompt(Section):
    """A shorter prompt for the student: what the long one says is learnt (Snell et al. 2022, arXiv 2209.15189)."""

    system: str = ""
    """System message of the student."""
    examples: tuple[Example, ...] = ()
    """Worked examples of the student."""
    template: str | None = None
    """Jinja template of its user message; default: `prompts.template`."""


class Prune(Section):
    """A shallower student (Men et al. 2024, arXiv 2403.03853): layers that change their input least are left out."""

    layers: Annotated[int, Field(ge=1)]
    """Layers that stay."""


class Student(Section):
    """The model that will be yours."""

    model: str
    """Catalogue name, `hub:ID@REVISION`, `path:DIR` or `package:...#sha256=...`."""
    adapter: Adapter = Field(default_factory=Adapter)
    """Low-rank adapter, or all weights."""
    prune: Prune | None = None
    """Fewer layers than the model has. The student is then written whole, and heals by training."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 where the processor multiplies it natively, else float32."""
    attention: Literal["auto", "sdpa", "flash_attention_2", "eager"] = "auto"
    """Attention kernel of the student and of a live teacher, in training. `auto`: the library's choice.
    `flash_attention_2`: on CUDA in bfloat16, with the package flash-attn; packed rows go through its variable-length
    kernel, and it turns `train.share_prefix` off."""
    prompt: StudentPrompt | None = None
    """How the student is asked, in training, in the evaluation and by its users. Default: as the teacher is."""
    max_length: Annotated[int, Field(ge=8)] = 1024
    """Longest row in tokens. A longer row is dropped and counted, never cut."""

    @model_validator(mode="after")
    def _pruned_weights_are_written_whole(self) -> Student:
        if self.prune is not None and self.adapter.kind == "qlora":
            raise ValueError("student.prune writes the weights whole, and qlora holds them in 4 bits; use adapter lora")
        return self
