"""Personal data in a text: e-mail addresses, bank accounts, payment cards, phone numbers. Found, or replaced."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Kind = Literal["email", "iban", "card", "phone"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MADE_UP = ("example.com", "example.org", "example.net")

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
Span = tuple[int, int]


def kinds_in(text: str, kinds: Sequence[Kind] = KINDS, allow_domains: Sequence[str] = MADE_UP) -> list[Kind]:
    """The kinds of personal data that the text holds, in the order of ``kinds``."""
    return [kind for kind in kinds if next(FINDERS[kind](text, allow_domains), None)]


def masked(text: str, kinds: Sequence[Kind] = KINDS, allow_domains: Sequence[str] = MADE_UP) -> str:
    """The text with each find replaced by its kind: ``[EMAIL]``, ``[IBAN]``, ``[CARD]``, ``[PHONE]``."""
    for kind in kinds:
        for start, end in reversed(list(FINDERS[kind](text, allow_domains))):
            text = f"{text[:start]}[{kind.upper()}]{text[end:]}"
    return text


def masked_row(fields: dict[str, Any]) -> dict[str, Any]:
    """A copy with every text masked; the row itself when nothing had to be."""
    copy = {name: _masked_value(value) for name, value in fields.items()}
    return fields if copy == fields else copy


def _masked_value(value: Any) -> Any:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, list):
        return [_masked_value(item) for item in value]
    return {name: _masked_value(item) for name, item in value.items()} if isinstance(value, dict) else value


def _emails(text: str, allow_domains: Sequence[str]) -> Iterator[Span]:
    allowed = tuple(domain.casefold() for domain in allow_domains)
    for match in EMAIL.finditer(text):
        domain = match[1].casefold()
        if not any(domain == known or domain.endswith("." + known) for known in allowed):
            yield match.span()


def _ibans(text: str, _: Sequence[str]) -> Iterator[Span]:
    for match in IBAN.finditer(text):
        if size := _iban_size(match[1]):
            yield match.start(), match.start() + size


def _iban_size(found: str) -> int:
    """Characters up to the account's end: right length for its country and remainder 1 modulo 97 (ISO 13616), else 0.

    Words that follow it are cut off.
    """
    places = [place for place, char in enumerate(found) if char.isascii() and char.isalnum()]
    length = IBAN_LENGTH.get(found[:2].upper(), 0)
    if not length or len(places) < length:
        return 0
    plain = "".join(found[place] for place in places[:length]).upper()
    right = int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1
    return places[length - 1] + 1 if right else 0


def _cards(text: str, _: Sequence[str]) -> Iterator[Span]:
    return (match.span() for match in CARD.finditer(text) if _is_card(re.sub(r"\D", "", match[1])))


def _is_card(digits: str) -> bool:
    """13 to 19 digits whose Luhn sum (ISO/IEC 7812) is a multiple of ten; not one digit over and over."""
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = (int(d) * 2 if place % 2 else int(d) for place, d in enumerate(reversed(digits)))
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def _phones(text: str, _: Sequence[str]) -> Iterator[Span]:
    return (match.span() for match in PHONE.finditer(text) if not DATE.match(match[0]))


FINDERS: dict[Kind, Callable[[str, Sequence[str]], Iterator[Span]]] = {
    "email": _emails,
    "iban": _ibans,
    "card": _cards,
    "phone": _phones,
}
