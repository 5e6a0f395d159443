"""The `prompts` section: where the prompts come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distill.config.section import Section, Source


class Example(Section):
    """A worked example, shown to the model before the question."""

    user: str
    """What is asked, as the template would write it."""
    assistant: str
    """The answer wanted."""


class Prompts(Section):
    """Where the prompts come from."""

    path: str = ""
    """JSONL, CSV, TSV or Parquet file, a folder of Parquet files or one written by `datasets.save_to_disk`, relative to
    this configuration file; or the Parquet files of a data set on the hub, `hub:OWNER/NAME@COMMIT:SPLIT`."""
    source: Source | None = None
    """Makes the prompts instead: passages of documents and questions about them, combinations of lists, tasks like
    yours, turns sampled from an open teacher. What the teacher writes for it comes out of the same budget."""
    system: str = ""
    """System message, the same for every prompt. Constant text belongs here: engines then reuse its cache."""
    examples: tuple[Example, ...] = ()
    """Worked examples between the system message and the question. Constant, so engines reuse their cache."""
    template: str = "{{ prompt }}"
    """Jinja template (sandboxed) of the user message; the fields of the row are its variables."""
    id_field: str = "id"
    """Field that names the row."""
    cluster_field: str | None = None
    """Field whose rows stay together in the train/holdout split. Default: each row is its own cluster."""
    lang_field: str | None = None
    """Field that holds the language code."""
    languages: tuple[str, ...] = ()
    """Keep only these languages, in equal numbers. Empty = all rows as they come."""
    quotas: dict[str, dict[str, Annotated[int, Field(ge=0)]]] = Field(default_factory=dict)
    """For a field of the row, the most prompts of each value: `{lang: {fr: 500, "*": 100}, source: {wiki: 200}}`.
    `*` is every other value; without it they are not limited. What cannot be filled is said."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Use at most this many prompts: whole clusters are drawn at random with the run's seed."""
    choices: tuple[str, ...] = ()
    """The answer must be one of these texts. Engines that can are constrained to them."""
    personal_data: Literal["allow", "mask", "block"] = "allow"
    """E-mail addresses, bank accounts, payment cards and phone numbers in a prompt, before it is sent: send them,
    replace them (`[EMAIL]` ...) in the row, or treat the row as broken."""
    on_error: Literal["refuse", "skip"] = "refuse"
    """A broken row stops the run before any call, or is skipped and counted."""

    @model_validator(mode="after")
    def _from_one_place(self) -> Prompts:
        if bool(self.path) == (self.source is not None):
            raise ValueError("prompts come from a `path` or from a `source`: give one of the two")
        return self
