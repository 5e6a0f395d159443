"""What the papers say, in another language: the English phrase is the key; one without a translation is a bug."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from distill.release.pages import text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LANGUAGES = ("en", "fr")


def words(language: str) -> Callable[[str], str]:
    """A phrase -> the phrase in that language. KeyError when nobody has translated it."""
    return str if language == "en" else _phrases(language).__getitem__


@functools.cache
def _phrases(language: str) -> Mapping[str, str]:
    from ruamel.yaml import YAML

    return dict(YAML(typ="safe").load(text_of(f"{language}.yaml")))
