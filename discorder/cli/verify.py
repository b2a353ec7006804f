"""`discorder verify`: prove the table, or check recorded transitions against it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def verify(
    trace: Annotated[
        list[Path] | None,
        typer.Option(
            "--trace",
            metavar="FILE",
            help="Check recorded transitions instead: DISCORDER_STATE documents as 'discorder tail --type DISCORDER_STATE "
            "--json' prints them, or a log with log.level=debug. May be repeated.",
        ),
    ] = None,
    liveness: Annotated[
        bool, typer.Option("--liveness", help="Also check with spin what is to happen some day; needs spin and gcc.")
    ] = False,
) -> None:
    """Prove the table of the life cycle: a static check, and a search through everything a small world can do to it.

    Exit code 1 when something is wrong; the shortest run that shows it is printed.
    """
    from discorder.proofs import reports  # noqa: PLC0415  # only this command needs them

    lines = reports.traces(trace) if trace else reports.proofs(liveness=liveness)
    sound = True
    for line in lines:
        sound = sound and line.sound
        typer.echo(line.text, err=not line.sound)
    if not sound:
        raise typer.Exit(1)
