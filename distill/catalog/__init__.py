"""Dated facts: licences, prices, providers, models, GPUs, grids. Each one says where it comes from and when.

``table("prices")`` gives the typed rows of one table. Rows of the user come first and win over ours, key by key:
``./alambic.catalog.yaml``, then ``$XDG_CONFIG_HOME/alambic/*.yaml`` (one file may hold several tables), then what
`distill catalog prices --refresh` put into ``imported/`` there. A table is read and checked when it is first asked for;
nothing here uses the network.
"""

from __future__ import annotations

import datetime
import difflib
import functools
import os
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from pydantic import BaseModel, ValidationError

from distill.catalog.rows import Fx, GpuRow, GridRow, LicenceRow, ModelRow, PriceRow, PriceSheet, ProviderRow
from distill.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = LicenceRow | PriceRow | ProviderRow | ModelRow | GpuRow | GridRow
R = TypeVar("R", bound=BaseModel)

# table -> the type of its rows
TABLES: dict[str, type[BaseModel]] = {
    "licences": LicenceRow,
    "prices": PriceSheet,
    "providers": ProviderRow,
    "models": ModelRow,
    "gpus": GpuRow,
    "grid": GridRow,
}
# What a licence may ask, in one sentence each.
OBLIGATIONS: dict[str, str] = {
    "NOTICE": "ship the licence text and notices with the weights",
    "NAME_PREFIX_LLAMA": "a model that is passed on has a name that starts with 'Llama'",
    "BUILT_WITH_LLAMA": "show 'Built with Llama' on the site, the interface or the documentation",
    "LLAMA_AUP": "pass on Llama's acceptable use policy",
    "MAU_700M": "no rights for who had more than 700 million monthly users at the release",
    "GEMMA_FLOWDOWN": "pass on Gemma's use restrictions, a copy of its terms and its notice",
    "USE_RESTRICTIONS_FLOWDOWN": "pass on the licence's use restrictions",
    "REVENUE_CAP_20M_MONTH": "no rights for a group with more than USD 20M revenue per month, clients included",
    "DISPLAY_NAME": "show the model's name in a product above 100 million monthly users or USD 20M monthly revenue",
    "MAAS_SEPARATE_LICENCE": "offering it as a service needs a separate licence",
    "NON_COMMERCIAL": "no commercial use",
    "NO_REVERSE_ENGINEERING": "do not use outputs to find out weights or components",
    "NO_HUMAN_MISREPRESENTATION": "do not present outputs as made by a person",
    "PRIOR_AUTHORISATION": "needs the vendor's written authorisation",
    "NOT_DISTRIBUTED": "the student may not be distributed or sold",
    "NO_BRAND_USE": "do not suggest a tie with the vendor",
    "DATA_TRANSFER_CN": "inputs are processed in China: no personal or confidential data",
    "BUILT_WITH_QWEN": "show 'Built with Qwen' when outputs train a model that is passed on",
    "MAU_100M": "more than 100 million monthly users need a separate licence",
    "DATA_TERMS": "read the data set's own licence: the catalogue has not",
    "HOST_TERMS": "read the host's own terms on outputs: the catalogue has not",
}
USER_FILE = "alambic.catalog.yaml"
STALE_WARN_DAYS = 45
STALE_BLOCK_DAYS = 120


def licences() -> tuple[LicenceRow, ...]:
    """Which weights and which terms of service allow what."""
    return cast("tuple[LicenceRow, ...]", _rows("licences"))


def prices() -> tuple[PriceRow, ...]:
    """Token prices, one row for each provider and model: the first sheet that has it, the user's before ours."""
    sheets = cast("tuple[PriceSheet, ...]", _rows("prices"))
    found: dict[tuple[str, str], PriceRow] = {}
    for row in (row for sheet in sheets for row in sheet.rows()):
        found.setdefault((row.provider, row.model.casefold()), row)
    return tuple(found.values())


def providers() -> tuple[ProviderRow, ...]:
    """Endpoints: host, region, name of the key's environment variable, capabilities."""
    return cast("tuple[ProviderRow, ...]", _rows("providers"))


def models() -> dict[str, ModelRow]:
    """Short name -> model: its official id, sizes, licence, and the sources its weights come from."""
    return {row.name: row for row in cast("tuple[ModelRow, ...]", _rows("models"))}


def gpus() -> tuple[GpuRow, ...]:
    """Accelerators: memory, dense bfloat16 speed, power, and dated prices per hour."""
    return cast("tuple[GpuRow, ...]", _rows("gpus"))


def grid() -> tuple[GridRow, ...]:
    """Carbon intensity of electricity, by zone."""
    return cast("tuple[GridRow, ...]", _rows("grid"))


def fx() -> Fx:
    """Dated exchange rates, in units of each currency for one euro."""
    for file, values in _sources():
        if "fx" in values:
            return _validate(Fx, values["fx"], f"{file}: fx")
    return _validate(Fx, _package("prices").get("fx"), "prices.yaml: fx")


def find_model(name: str) -> ModelRow | None:
    """The model called ``name``: its short name, its official id, or an alias; case does not matter."""
    wanted = name.casefold()
    return next((m for m in models().values() if wanted in {n.casefold() for n in (m.name, m.id, *m.aliases)}), None)


def search(name: str, text: str = "") -> list[Row]:
    """Rows of a table that hold every word of ``text``: as the beginning of a word, or whole when of two letters."""
    if name not in TABLES:
        close = difflib.get_close_matches(name, TABLES, n=1)
        raise ConfigError(
            f"no table {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
            next=f"one of: {', '.join(TABLES)}",
        )
    rows = cast("tuple[Row, ...]", prices() if name == "prices" else _rows(name))
    wanted = [re.compile(rf"\b{re.escape(w)}" + (r"\b" if len(w) < 3 else ""), re.IGNORECASE) for w in text.split()]
    return [row for row in rows if all(pattern.search(_text(row.model_dump(mode="json"))) for pattern in wanted)]


def _text(value: Any) -> str:
    """The values, without the names of the fields."""
    if isinstance(value, dict):
        return " ".join([_text(v) for v in value.values()] + [k for k in value if "/" in k or "-" in k])
    return " ".join(map(_text, value)) if isinstance(value, list) else str(value)


def today() -> datetime.date:
    """The day that ages are counted from."""
    return datetime.datetime.now(tz=datetime.UTC).date()


def staleness(as_of: datetime.date) -> Literal["fresh", "stale", "expired"]:
    """``stale`` after 45 days: warn. ``expired`` after 120 days: no quote, no plan in euros."""
    age = (today() - as_of).days
    return "expired" if age > STALE_BLOCK_DAYS else "stale" if age > STALE_WARN_DAYS else "fresh"


# -- reading ----------------------------------------------------------------------------------------------------


def user_files() -> list[Path]:
    """The user's own catalogue files that exist, the winning one first."""
    folder = config_folder()
    found = [Path(USER_FILE).absolute(), *sorted(folder.glob("*.yaml")), *sorted(folder.glob("imported/*.yaml"))]
    return [path for path in found if path.is_file()]


def config_folder() -> Path:
    """Where a user's own files are, for all projects."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "alambic"


def _rows(name: str) -> tuple[BaseModel, ...]:
    return _table(name, tuple((path, path.stat().st_mtime_ns) for path in user_files()))


@functools.lru_cache(maxsize=32)
def _table(name: str, stamps: tuple[tuple[Path, int], ...]) -> tuple[BaseModel, ...]:
    """Rows of the user's files, then ours whose key they do not redefine."""
    rows: dict[str, BaseModel] = {}
    for where, values in [*((str(path), _user(path, stamp)) for path, stamp in stamps), ("", _package(name))]:
        key = "sheets" if name == "prices" and not where else name
        for index, item in enumerate(_list(values.get(key, []), f"{where or name + '.yaml'}: {key}")):
            row = _validate(TABLES[name], item, f"{where or name + '.yaml'}: {key}.{index}")
            rows.setdefault(getattr(row, "key")(), row)  # noqa: B009 - every row type has key()
    return tuple(rows.values())


def _sources() -> list[tuple[Path, dict[str, Any]]]:
    return [(path, _user(path, path.stat().st_mtime_ns)) for path in user_files()]


@functools.lru_cache(maxsize=32)
def _user(path: Path, stamp: int) -> dict[str, Any]:  # noqa: ARG001 - the time of change is part of the cache key
    values = _parse(path.read_text("utf-8", errors="replace"), str(path))
    unknown = sorted(set(values) - set(TABLES) - {"fx"})
    if unknown:
        raise ConfigError(f"no table {unknown[0]!r}", where=str(path), next=f"one of: {', '.join(TABLES)}, fx")
    return values


@functools.lru_cache(maxsize=16)
def _package(name: str) -> dict[str, Any]:
    return _parse((resources.files(__package__) / f"{name}.yaml").read_text("utf-8"), f"{name}.yaml")


def _parse(text: str, where: str) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        values = YAML(typ="safe").load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{where}:{mark.line + 1}" if mark else where
        raise ConfigError(f"not YAML: {getattr(error, 'problem', error)}", where=line) from None
    if not isinstance(values, dict):
        raise ConfigError("expected a mapping of tables", where=where, next=f"tables: {', '.join(TABLES)}")
    return values


def _list(value: Any, where: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise ConfigError("expected a list of rows", where=where)
    return value


def _validate(model: type[R], value: Any, where: str) -> R:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        lines = [
            f"{where}.{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors(include_url=False)
        ]
        raise ConfigError(f"{len(lines)} problem(s)", problems=tuple(lines)) from None
