"""`distill catalog TABLE [TEXT]`: the dated facts, as a table or as JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from distill import artifacts, catalog
from distill.errors import ConfigError
from distill.progress import say

if TYPE_CHECKING:
    import argparse

COLUMNS: dict[str, tuple[str, ...]] = {
    "licences": ("id", "kind", "verdict", "obligations", "models", "note", "as_of", "verified"),
    "prices": ("provider", "model", "input", "cached", "output", "currency", "batch", "as_of", "verified"),
    "providers": ("id", "hq", "regions", "base_url", "env", "top_logprobs", "batch", "as_of", "verified"),
    "models": ("name", "id", "params_b", "licence", "tokenizer", "languages", "as_of", "verified"),
    "gpus": ("id", "memory_gb", "bf16_tflops", "tdp_w", "hourly", "as_of", "verified"),
    "grid": ("zone", "g_per_kwh", "year", "note", "source"),
}
LONG = frozenset({"models", "note", "obligations", "source", "languages", "base_url", "env"})  # columns that may wrap
SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `distill catalog`."""
    parser.add_argument("table", metavar="TABLE", help=f"one of: {', '.join(catalog.TABLES)}")
    parser.add_argument("text", nargs="*", metavar="TEXT", help="show only rows that hold all of these words")
    parser.add_argument("--json", action="store_true", help="every field, for machines")
    parser.add_argument(
        "--refresh", action="store_true", help="prices: take over those of the package genai-prices, for all projects"
    )
    parser.add_argument(
        "--online", action="store_true", help="with --refresh: fetch its newest file (uses the network)"
    )


def main(args: argparse.Namespace) -> int:
    """Print the rows found, after renewing them where that is asked for."""
    if args.online and not args.refresh:
        raise ConfigError("goes with --refresh", where="--online")
    if args.refresh:
        if args.table != "prices":
            raise ConfigError(
                "only prices can be refreshed", where="--refresh", next="distill catalog prices --refresh"
            )
        _refresh(online=args.online)
    rows = [flat(row.model_dump(mode="json")) for row in catalog.search(args.table, " ".join(args.text))]
    if args.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    _show(args.table, rows)
    return 0


def _refresh(*, online: bool) -> None:
    """Write the package's prices where the catalogue reads them: before ours, after the user's own."""
    from distill.catalog import genai

    sheets = genai.sheets(online=online)
    path = catalog.config_folder() / "imported" / "genai-prices.yaml"
    lines = "".join(f"  - {json.dumps(sheet, ensure_ascii=False)}\n" for sheet in sheets)
    head = "# Made by `distill catalog prices --refresh`; your own rows belong into a file beside this folder.\n"
    artifacts.write_text(path, f"{head}prices:\n{lines}")
    models = sum(len(sheet["models"]) for sheet in sheets)
    say(f"{models} prices of {len(sheets)} providers, as of {max(sheet['as_of'] for sheet in sheets)}: {path}")


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A price row with its rates beside the other fields, numbers as numbers."""
    rates = row.pop("rates", None)
    if rates is not None:
        row |= {name: rates[name] and float(rates[name]) for name in ("input", "cached", "output", "batch_discount")}
        row |= {name: rates[name] for name in ("tiers", "hours", "later", "aliases") if rates[name]}
    return row


def _show(name: str, rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{name}: {len(rows)} row(s)", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in COLUMNS[name]:
        table.add_column(column, overflow="fold", no_wrap=column not in LONG)
    for row in rows:
        table.add_row(*(escape(_cell(row, column)) for column in COLUMNS[name]))
    console = Console() if sys.stdout.isatty() else Console(width=140, soft_wrap=True)
    console.print(table)
    if any(not row.get("verified", True) for row in rows):
        console.print("verified 'no': from memory or second-hand. --json shows every field and its source.")
    console.print(f"your own rows: {catalog.USER_FILE} in this folder, or $XDG_CONFIG_HOME/alambic/*.yaml")


def _cell(row: dict[str, Any], column: str) -> str:
    if column == "batch" and "batch_discount" in row:
        return "" if row["batch_discount"] is None else f"-{row['batch_discount']:.0%}"
    if column == "hourly":
        return "\n".join(
            f"{p['provider']} {float(p['per_hour']):g} {p['currency']} ({p['as_of']})" for p in row["prices"]
        )
    value = row[column]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        more = f" +{len(value) - SHOWN}" if len(value) > SHOWN else ""
        return ", ".join(value[:SHOWN]) + more
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
