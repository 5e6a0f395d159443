"""The `policy` section: what the student is for, and where prompts may go."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

from pydantic import Field, model_validator

from distill.config.section import Section


class Waiver(Section):
    """A person who takes a restricted or unknown licence upon them. What is prohibited cannot be waived."""

    model: Annotated[str, Field(min_length=1)]
    """The model it is for, exactly as written in this file."""
    name: Annotated[str, Field(min_length=2)]
    """Who decided."""
    date: datetime.date
    """When."""
    reason: Annotated[str, Field(min_length=10)]
    """Why it is all right."""


class Policy(Section):
    """What the student is for, and where prompts may go. Checked before anything is sent."""

    use: Literal["commercial", "internal", "research"] = "commercial"
    """`commercial`: sold or passed on. `internal`: stays in the company. `research`: no commercial use at all."""
    regions: tuple[Annotated[str, Field(pattern=r"^([A-Z]{2}|EEA|\*)$")], ...] = ("EU", "EEA", "CH")
    """Where a provider may process prompts: country codes, EU, EEA, or * for anywhere."""
    confidential: bool = False
    """The prompts stay in this process and in your own network, whatever `regions` says; only `hosts` are excepted."""
    hosts: tuple[Annotated[str, Field(pattern=r"^[0-9a-z.-]+$")], ...] = ()
    """Hosts of others that may see confidential prompts (`api.mistral.ai`): those you have a contract with."""
    made_with: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Models that wrote the prompts and data sets they were taken from: they count as teachers, and what their
    licences ask binds the student."""
    waivers: tuple[Waiver, ...] = ()
    """Licences that a person has taken upon them, written into the bundle."""

    @model_validator(mode="after")
    def _hosts_are_an_exception(self) -> Policy:
        if self.hosts and not self.confidential:
            raise ValueError("hosts are the exceptions to confidential: true, which is not set; see regions")
        return self
