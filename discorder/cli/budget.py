"""`discorder budget`: what is left of the identify budget, and what a start would cost now."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from discorder.cli.serve import Config, Overrides


def budget(
    config: Config = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")] = False,
) -> None:
    """Show the identify ledger: what Discord says is left, what was spent here, and what a cold start would cost.

    Reads the session store of the configuration, which may be in use, and asks GET /gateway/bot once. Changes nothing and
    spends nothing. Without an answer it goes by what the store holds; exit code 69 when that has no ledger either.
    """
    from rich.console import Console  # noqa: PLC0415  # only this command needs them

    from discorder.cli.budget_report import as_document, as_table, survey  # noqa: PLC0415
    from discorder.config import load_config, read_token  # noqa: PLC0415

    loaded = load_config(config, overrides or ())
    found = asyncio.run(survey(loaded, read_token(loaded)))
    if as_json:
        typer.echo(json.dumps(as_document(found)))
        return
    console = Console(highlight=False)
    console.print(as_table(found))
    for line in found.sentences():
        console.print(line, soft_wrap=True, markup=False)
