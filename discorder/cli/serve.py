"""`discorder serve`: the control plane in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="TOML file; without one the built-in defaults hold."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key, e.g. --set gateway.shards=2; may be repeated."),
]


def serve(
    config: Config = None,
    overrides: Overrides = None,
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Record the session, to replay it in a test; must not exist. Secrets are replaced."
        ),
    ] = None,
    record_raw: Annotated[
        bool, typer.Option("--record-raw", help="Keep message contents and names in the recording as they are.")
    ] = False,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="Ask the process that holds the shards of this store to hand them over, and wait for it.",
        ),
    ] = False,
    wait: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0.0, help="Wait so long for the process that holds the shards to leave."),
    ] = 0.0,
) -> None:
    """Run the control plane in the foreground until SIGINT or SIGTERM.

    The bot token comes from the environment variable DISCORD_BOT_TOKEN, or from the file that gateway.token_file names.
    Stopping keeps the Discord session: the next start resumes it. A second signal stops at once.

    A start while another process holds the same shards of the same store is refused (exit code 78, naming that process).
    With --take-over it is sent SIGTERM and given 30 seconds (or --wait) to hand over; with --wait alone nobody is asked, which
    is how a rolling upgrade starts the new process before it stops the old one.
    """
    from discorder.config import load_config  # noqa: PLC0415  # only this command needs it
    from discorder.control_plane import run_config  # noqa: PLC0415
    from discorder.plane.keeping import Claim  # noqa: PLC0415

    if record_raw and record is None:
        msg = "--record-raw goes with --record FILE"
        raise typer.BadParameter(msg)
    run_config(
        lambda: load_config(config, overrides or ()),
        claim=Claim(take_over, wait),
        record=record,
        record_raw=record_raw,
    )
