"""Operate a control plane that runs, through its HTTP server: `discorder status`, `shards`, `shutdown` and `healthcheck`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from discorder.cli.options import Config, Group, Overrides, Url

if TYPE_CHECKING:
    from discorder.cli.plane_client import PlaneClient

Shard = Annotated[int, typer.Argument(metavar="ID", min=0, help="The number of the shard.")]

shards = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Act on a shard of the control plane that runs. Needs the operator token (http.operator_token_file).",
)


def status(
    config: Config = None,
    overrides: Overrides = None,
    url: Url = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The document discorder.status/1; with --watch one event per line.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Follow it until Ctrl-C; not in a terminal, each change is a line.")
    ] = False,
) -> None:
    """Show how the control plane of this configuration is: well or not, why, and what happens next.

    The words are those of the status page. Asks its HTTP server ([http] in the configuration), which must answer within 2 seconds
    (exit code 69). From another host it needs --url, and http.operator_token_file set to a file with the operator token.
    Of serve --processes N it shows all processes together.
    """
    from discorder.cli.status import show_status, watch_status

    show = watch_status if watch else show_status
    show(_client(config, overrides, url), as_json=as_json)


def facade_status(
    config: Config = None,
    overrides: Overrides = None,
    url: Url = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The part facade of the document discorder.status/1.")
    ] = False,
) -> None:
    """Show the bots of the façade: which are connected, how far each is behind, how often it resumed or got op 9.

    Asks the control plane of this configuration, as `discorder status` does, which must answer within 2 seconds (exit code 69).
    Of serve --processes N it shows the bots of all processes together. At most 64 sessions are listed, those that are furthest
    behind.
    """
    from discorder.cli.status import show_bots

    show_bots(_client(config, overrides, url), as_json=as_json)


def shutdown(
    config: Config = None,
    overrides: Overrides = None,
    url: Url = None,
    goodbye: Annotated[
        bool,
        typer.Option("--goodbye", help="End the Discord sessions: the bot goes offline, the next start identifies."),
    ] = False,
) -> None:
    """Stop the control plane of this configuration gracefully, as SIGTERM does. Its sessions are kept for the next start.

    Returns when the stop has begun. A supervisor may start it again. Needs the operator token (http.operator_token_file).
    Of serve --processes N all processes stop.
    """
    typer.echo(_client(config, overrides, url).command("/shutdown", {"goodbye": goodbye}))


def healthcheck(
    config: Config = None,
    overrides: Overrides = None,
    url: Url = None,
    ready: Annotated[
        bool, typer.Option("--ready", help="Ask whether every shard serves, instead of whether the process is alive.")
    ] = False,
) -> None:
    """Check the control plane of this configuration, for a container without curl: one line, exit code 0 or 1.

    Without --ready an outage of Discord counts as healthy: a restart would not end it. Of serve --processes N every process must
    be healthy.
    """
    from discorder.errors import DiscorderError

    try:
        healthy, verdict = _health(_client(config, overrides, url), ready=ready)
    except DiscorderError as error:  # whatever keeps it from being known counts as unhealthy
        healthy, verdict = False, " ".join(str(error).split())
    typer.echo(verdict)
    raise typer.Exit(0 if healthy else 1)


def _health(client: PlaneClient, *, ready: bool) -> tuple[bool, str]:
    """Return whether the control plane is healthy, and a sentence."""
    answer = client.health("/readyz", "ready") if ready else client.health("/livez", "live")
    if not ready:
        reasons = "; ".join(answer.get("reasons", ()))
        return bool(answer["live"]), "live: the control plane answers" if answer["live"] else f"not live: {reasons}"
    verdict = "ready" if answer["ready"] else "not ready"
    return bool(answer["ready"]), f"{verdict}: {answer['headline']}" if "headline" in answer else verdict


@shards.command("restart")
def restart(shard: Shard, config: Config = None, overrides: Overrides = None, url: Url = None) -> None:
    """Close the shard's connection and open a new one, which resumes its session. A back-off that sleeps is woken.

    Waits that Discord asks for are kept: Retry-After, the pause of 1 to 2 s before a new session after op 9, the identify bucket,
    and the reserve of the budget.
    """
    _command("restart", shard, config, overrides, url)


@shards.command("pause")
def pause(shard: Shard, config: Config = None, overrides: Overrides = None, url: Url = None) -> None:
    """Close the shard's connection and leave it closed, also after a restart, until it is unpaused."""
    _command("pause", shard, config, overrides, url)


@shards.command("unpause")
def unpause(shard: Shard, config: Config = None, overrides: Overrides = None, url: Url = None) -> None:
    """Let a paused shard connect again."""
    _command("unpause", shard, config, overrides, url)


@shards.command("release")
def release(shard: Shard, config: Config = None, overrides: Overrides = None, url: Url = None) -> None:
    """Give the shard up, so that another control plane on the same session store can start it. Its session is kept.

    Closes its connection, waits up to session.drain_timeout until the publishers have its events, and stores how far they came.
    Start it elsewhere soon: Discord keeps a session for some minutes only. A restart of this process takes the shards of its
    configuration again.
    """
    _command("release", shard, config, overrides, url)


@shards.command("start")
def start(shard: Shard, config: Config = None, overrides: Overrides = None, url: Url = None) -> None:
    """Run one more shard here: it resumes its stored session, or identifies if there is none.

    Another process that has the shard must release it first.
    """
    _command("start", shard, config, overrides, url)


def _command(verb: str, shard: int, config: Path | None, overrides: list[str] | None, url: str | None) -> None:
    typer.echo(_client(config, overrides, url).command(f"/shards/{shard}/{verb}"))


def _client(config: Path | None, overrides: list[str] | None, url: str | None) -> PlaneClient:
    from discorder.cli.plane_client import PlaneClient
    from discorder.config import load_config

    return PlaneClient(load_config(config, overrides or (), publishers=False), url)
