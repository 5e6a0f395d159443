"""The only registry: a file in a plug-in folder is a plug-in, and its name is its key.

``load("distill.losses", "jsd")`` imports ``distill/losses/jsd.py``. A dotted kind (``acme.losses.mine``)
imports a client's own module. Files beginning with ``_`` are not plug-ins. Each plug-in holds ``Config``
(a subclass of :class:`PluginConfig`) and one verb.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from distill.errors import ConfigError

if TYPE_CHECKING:
    from types import ModuleType


class PluginConfig(BaseModel):
    """Settings of one plug-in: unknown keys are refused, values cannot change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())

    kind: str
    """Name of the plug-in file, or a dotted path to your own module."""


def available(package: str) -> list[str]:
    """Sorted names of the plug-ins in ``package``."""
    folder = importlib.import_module(package)
    return sorted(m.name for m in pkgutil.iter_modules(folder.__path__) if not m.name.startswith("_"))


def load(package: str, kind: str) -> ModuleType:
    """The plug-in module called ``kind``. Raises ConfigError with the nearest name when there is none."""
    name = kind if "." in kind else f"{package}.{kind}"
    if "." not in kind and kind not in available(package):
        raise ConfigError(unknown(package, kind))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only "no such plug-in" is the user's mistake; a missing import inside the plug-in is not hidden.
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigError(unknown(package, kind)) from None
        raise


def unknown(package: str, kind: str) -> str:
    """The sentence that says a plug-in does not exist, what was probably meant, and what there is."""
    names = available(package)
    noun = {"losses": "loss"}.get(folder := package.rpartition(".")[2], folder.removesuffix("s"))
    close = difflib.get_close_matches(kind, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"no {noun} {kind!r}{hint} available: {', '.join(names)}"
