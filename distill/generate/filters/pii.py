"""Drop answers that hold personal data: e-mail addresses, phone numbers, bank accounts, payment cards."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from distill.generate.filters._base import FilterConfig
from distill.generate.filters._text import conversation

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = Literal["email", "phone", "iban", "card"]

EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@((?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24})(?![\w-])")
IBAN = re.compile(r"(?<![A-Za-z0-9])([A-Za-z]{2}\d{2}(?:[ \u00a0-]?[A-Za-z0-9]){11,30})(?![A-Za-z0-9])")
CARD = re.compile(r"(?<![\d.,-])([2-6]\d{3}(?:[ \u00a0-]?\d){9,15})(?![\d-])")
# International numbers, and national ones with their leading 0. Countries without one (ES, PL, PT, DK, CZ ...) are
# found in the international form only: eight or nine bare digits can be anything.
PHONE = re.compile(
    r"(?<![\w.,/-])(?<!\d[ \u00a0])(?:\+|00)[1-9]\d{0,2}(?:[ \u00a0./-]?\(?\d\)?){7,13}(?![\d.,]*\d)"
    r"|(?<![\w.,/+-])(?<!\d[ \u00a0])\(?0[1-9](?:[ \u00a0./-]?\(?\d\)?){7,10}(?![\d.,/-]*\d)"
)
DATE = re.compile(r"^\(?\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{4}-\d{2}-\d{2}")
IBAN_LENGTH = {
    **{"AD": 24, "AT": 20, "BE": 16, "BG": 22, "CH": 21, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "EE": 20, "ES": 24},
    **{"FI": 18, "FR": 27, "GB": 22, "GI": 23, "GR": 27, "HR": 21, "HU": 28, "IE": 22, "IS": 26, "IT": 27, "LI": 21},
    **{"LT": 20, "LU": 20, "LV": 21, "MC": 27, "MT": 31, "NL": 18, "NO": 15, "PL": 28, "PT": 25, "RO": 24, "SE": 24},
    **{"SI": 19, "SK": 24, "SM": 27, "VA": 22},
}


class Config(FilterConfig):
    """What to look for, and where."""

    kind: Literal["pii"] = "pii"
    find: tuple[Kind, ...] = ("email", "iban", "card", "phone")
    """Kinds of personal data."""
    prompts: bool = False
    """Look into the prompt too, not into answer and reasoning alone."""
    allow_domains: tuple[str, ...] = ("example.com", "example.org", "example.net")
    """E-mail addresses at these domains are made up and allowed."""


def keep(rows: list[dict[str, Any]], config: Config) -> list[str]:
    """The first kind found (``email``, ``iban``, ``card``, ``phone``) or ""."""
    return [next((kind for kind in config.find if FINDERS[kind](_text(row, config), config)), "") for row in rows]


def _text(row: dict[str, Any], config: Config) -> str:
    return "\n".join([row["answer"], row["reasoning"], *([conversation(row)] if config.prompts else [])])


def _email(text: str, config: Config) -> bool:
    allowed = tuple(domain.casefold() for domain in config.allow_domains)
    domains = (match[1].casefold() for match in EMAIL.finditer(text))
    return any(not any(d == a or d.endswith("." + a) for a in allowed) for d in domains)


def _iban(text: str, _: Config) -> bool:
    return any(_is_iban(match[1]) for match in IBAN.finditer(text))


def _is_iban(found: str) -> bool:
    """Right length for its country and remainder 1 modulo 97 (ISO 13616). Words that follow it are cut off."""
    plain = re.sub(r"[^A-Za-z0-9]", "", found).upper()
    plain = plain[: IBAN_LENGTH.get(plain[:2], 0)]
    if len(plain) != IBAN_LENGTH.get(plain[:2]):
        return False
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1


def _card(text: str, _: Config) -> bool:
    return any(_is_card(re.sub(r"\D", "", match[1])) for match in CARD.finditer(text))


def _is_card(digits: str) -> bool:
    """13 to 19 digits whose Luhn sum (ISO/IEC 7812) is a multiple of ten; not one digit over and over."""
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = (int(d) * 2 if place % 2 else int(d) for place, d in enumerate(reversed(digits)))
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def _phone(text: str, _: Config) -> bool:
    return any(not DATE.match(match[0]) for match in PHONE.finditer(text))


FINDERS: dict[str, Callable[[str, Config], bool]] = {"email": _email, "iban": _iban, "card": _card, "phone": _phone}
