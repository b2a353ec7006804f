"""`discorder replay`: a recorded session through the whole control plane and its publishers, without a network."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from discorder.cli.serve import Config, Overrides


def replay(
    file: Annotated[Path, typer.Argument(help="A session recorded with 'discorder serve --record FILE'.")],
    speed: Annotated[
        float | None, typer.Option(min=0.001, help="1 = as fast as it was recorded; without it, as fast as possible.")
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Play a recorded session through the whole control plane and its publishers. No network, no token.

    The clock is the recording's, so that zombies and back-offs happen as they did. What the control plane sends is compared
    with what was recorded; exit code 1 and the first difference if it behaves otherwise.
    """
    from discorder.config import load_config  # noqa: PLC0415  # only this command and serve need it
    from discorder.replaying import replay as play  # noqa: PLC0415
    from discorder.transport import Recording  # noqa: PLC0415

    recording = Recording.load(file)
    replayed = asyncio.run(play(recording, load_config(config, overrides or ()), speed=speed))
    stats = replayed.tracker.stats
    typer.echo(
        f"replayed {file}: published={stats.published_event_count} identifies={stats.identify_count} "
        f"resumes={stats.resume_count} restarts={stats.restart_count}"
    )
    if replayed.error is not None:
        typer.echo(f"ended as recorded: {replayed.error}")
