"""Define the commands that read the session store: `discorder budget` and `discorder sessions`."""

from __future__ import annotations

from typing import Annotated

import typer

from discorder.cli.options import Config, Group, Overrides
from discorder.escapes import escape_controls

app = typer.Typer(cls=Group, no_args_is_help=True, help="Show or drop the sessions that the next start would resume.")


def budget(
    config: Config = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")] = False,
) -> None:
    """Show the identify ledger: what Discord says is left, what was spent here, and what a cold start would cost.

    Reads the session store of the configuration, which may be in use, and asks GET /gateway/bot once. Changes nothing and
    spends nothing. Without an answer it goes by what the store holds; exit code 69 when that has no ledger either.
    """
    import asyncio
    import json

    from rich.console import Console

    from discorder.cli.budget_report import as_document, as_table, survey
    from discorder.config import load_config, read_token

    loaded = load_config(config, overrides or ())
    found = asyncio.run(survey(loaded, read_token(loaded)))
    if as_json:
        typer.echo(json.dumps(as_document(found)))
        return
    console = Console(highlight=False)
    console.print(as_table(found))
    for line in found.sentences():
        console.print(escape_controls(line), soft_wrap=True, markup=False)


@app.command("list")
def list_sessions(
    config: Config = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")] = False,
) -> None:
    """List the stored sessions of this bot: shard, host, sequence, age, label. Changes nothing; the store may be in use.

    The label is the one on the bus. Session ids are never shown: with the token they let their reader act as the bot.
    """
    from discorder.cli.stored_sessions import list_stored

    list_stored(config, overrides or (), as_json=as_json)


@app.command("drop")
def drop(
    shards: Annotated[
        list[str] | None,
        typer.Argument(metavar="SHARD…", help="Shards as `list` shows them: 0/4, or 0 for every layout."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Drop every session of this bot.")] = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Drop stored sessions: the next start opens new ones, with an IDENTIFY for each. Events since the last one are lost.

    Refused with exit code 73 while a process holds one of the shards: stop it first.
    """
    from discorder.cli.stored_sessions import drop_stored

    if everything == bool(shards):
        msg = "name the shards to drop, or --all"
        raise typer.BadParameter(msg)
    drop_stored(config, overrides or (), None if everything else shards)
