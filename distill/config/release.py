"""The `release` section: what the client receives."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distill.config.section import Section, Target


class Declared(Section):
    """What only a person can say. It goes into the papers marked as declared; what is empty is marked as missing."""

    legal_name: str = ""
    """Legal name of who puts the student on the market under its own name."""
    contact: str = ""
    """Contact for questions about the model."""
    country: str = ""
    """Country of headquarters, ISO 3166-1 alpha-2."""
    lei: str = ""
    """LEI or EUID."""
    release_date: str = ""
    """Date of the release, YYYY-MM-DD. Not taken from a clock: a bundle is the same whenever it is built."""
    eu_market_date: str = ""
    """Date on the Union market, YYYY-MM-DD."""
    distribution: str = ""
    """How it is delivered: download, on-premises, endpoint."""
    acceptable_use: str = ""
    """Acceptable use policy, or where it is."""
    intended_use: str = ""
    """Intended and restricted uses."""
    data_sources: str = ""
    """Where the prompts come from: public, licensed or private."""
    personal_data: str = ""
    """Legal basis, when personal data are in the prompts; or that there are none."""
    copyright_policy: str = ""
    """What was done about reservations of text and data mining."""
    annual_cost_eur: str = ""
    """Yearly price to the client, in EUR."""
    exit_plan: str = ""
    """How the client leaves."""
    rebound: str = ""
    """What was considered about more use because it is cheaper."""
    authorised_representative: str = ""
    """Authorised representative in the Union, where the provider has its seat elsewhere."""
    data_collection_date: str = ""
    """Latest date at which the prompts were collected, YYYY-MM."""
    other_sources: str = ""
    """Training data that is neither prompts nor the teacher's answers; or that there are none."""
    bias: str = ""
    """What was done to detect bias in the data."""
    integration: str = ""
    """Kinds of AI system it is for, and the technical means of integration."""
    hardware: str = ""
    """Hardware it was made on, and what it needs."""
    grid_zone: str = ""
    """Electricity zone where it was trained, as in `distill catalog grid` (FRA, DEU ...): for its CO2e."""
    marking: str = ""
    """How output is marked as generated (AI Act, Art. 50(2))."""
    person_type: str = ""
    """Type of person of the supplier, for DORA's register: legal person, individual in business."""
    parent_id: str = ""
    """LEI or EUID of the supplier's ultimate parent."""
    criticality: str = ""
    """The client's function that it supports, and how critical that is."""
    contract_term: str = ""
    """Start, end and notice of the contract."""
    recovery: str = ""
    """Recovery time and recovery point."""
    audit_rights: str = ""
    """Rights of access, inspection and audit."""


class Release(Section):
    """What the client receives."""

    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]*$")] = "0.1.0"
    """Version of the bundle."""
    targets: tuple[Target, ...] = Field(default=("merged",), validate_default=True)
    """Exports, each loaded back and checked."""
    licence: str = "apache-2.0"
    """Licence of the released weights."""
    summary: str = ""
    """One sentence for the model card: what the student is for."""
    languages: tuple[str, ...] = ()
    """Languages the student is meant for; default: those of the data."""
    rescore: Annotated[int, Field(ge=0)] = 64
    """Items of the evaluation that each form of the weights answers again (0 = none). A form that scores worse than
    the student by more than `eval.margin` fails the release."""
    pdf: bool = False
    """The papers as PDF, too. Needs `pip install 'alambic[pdf]'`. (A browser prints the report, charts and all.)"""
    allow_personal_data: tuple[str, ...] = ()
    """E-mail addresses and numbers that may stand in the bundle. Any other e-mail address, bank account, payment card
    or phone number refuses the release. `declared.contact` may always stand there; licence texts are not looked at."""
    sign_key: str = ""
    """PEM file of an elliptic-curve private key (P-256, P-384, P-521) that signs the bundle. Empty = not signed."""
    sign_password_env: str = ""
    """Name of the environment variable that holds the key's password. Empty = the key has none."""
    sign_certificate: str = ""
    """PEM file with the certificate of `sign_key` and, after it, those of the authorities between it and the root.
    They go into the signature, so that a client who trusts the root needs no key of yours."""
    previous: str = ""
    """Folder of the release before this one: what changed is written down, and the student may not be worse than
    it by more than `eval.margin` on the items both answered (exit 20, or 21 when there are too few to tell)."""
    declared: Declared = Field(default_factory=Declared)
    """What only a person can say, for the European dossier."""
