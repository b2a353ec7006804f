"""Define the commands that need neither Discord nor a control plane that runs: to try out, replay, verify, draw, make files.

Each command imports what it runs when it is called, so that `--help` and short commands start fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from discorder.cli.options import Config, Overrides
from discorder.escapes import escape_controls
from discorder.pictures import PictureFormat, Subject

if TYPE_CHECKING:
    from discorder.simulator import Simulator


def demo(
    seconds: Annotated[float, typer.Option(min=1.0, help="How long the story takes once the session is up.")] = 20.0,
    rate: Annotated[float, typer.Option(min=0.0, help="Events per second that the simulator plays.")] = 25.0,
    bot: Annotated[bool, typer.Option("--bot", help="Kill a bot of discord.py behind the façade instead.")] = False,
    overrides: Overrides = None,
) -> None:
    """Show on this machine, without a token, how a cut connection is resumed and no event is lost.

    A simulated Discord gateway, a control plane that connects to it, and a subscriber in a process of its own that receives
    the events over ZeroMQ on port 6000. After a while the connection is cut; the lines say what the control plane does. Ends with
    published=… received=… lost=…; exit code 3 if anything was lost.

    With --bot the story is another one: an unmodified bot of discord.py is killed and started again behind the façade, and has
    missed no message.
    """
    from discorder.cli.demo import run_demo
    from discorder.cli.demo_bot import run_bot_demo
    from discorder.cli.demo_narrator import EVENTS_LOST

    outcome = (run_bot_demo if bot else run_demo)(seconds, rate, overrides or ())
    typer.echo(str(outcome))
    if outcome.lost:
        raise typer.Exit(EVENTS_LOST)


def simulate(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of gateway and REST; 0 picks a free one.")] = 0,
    guilds: Annotated[int, typer.Option(min=0, max=2500, help="Guilds that the bot is in.")] = 3,
    rate: Annotated[float, typer.Option(min=0.0, help="Events per second.")] = 5.0,
    max_concurrency: Annotated[int, typer.Option(min=1, help="Identifies allowed at once, per 5 seconds.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the random choices: the same seed gives the same events.")] = 0,
) -> None:
    """Run a Discord gateway and REST API on loopback until SIGINT or SIGTERM, to test a bot without a token.

    The first line on stdout is JSON: {"api": …, "gateway": …, "token": …}, written when connections are accepted.
    """
    import asyncio

    from discorder.simulator import Simulator

    sim = Simulator(port=port, guilds=guilds, rate=rate, max_concurrency=max_concurrency, seed=seed)
    asyncio.run(_run_simulator(sim, port))


async def _run_simulator(sim: Simulator, port: int) -> None:
    """Run ``sim`` until SIGINT or SIGTERM. Raises `AddressInUse` when ``port`` is taken."""
    import asyncio
    import json
    import os
    import signal

    from discorder.errors import AddressInUse

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        await sim.start()
    except OSError as error:
        msg = (
            f"--port {port}: 127.0.0.1:{port} cannot be listened on: {os.strerror(error.errno) if error.errno else error}; "
            "end the program that has it, or choose another port (0 picks a free one)"
        )
        raise AddressInUse(msg) from error
    try:
        typer.echo(json.dumps({"api": sim.api_url, "gateway": sim.gateway_url, "token": sim.token}))
        await stop.wait()
    finally:
        await sim.stop()


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
    with the recording; a difference is printed, with exit code 1.
    """
    import asyncio

    from discorder.config import load_config
    from discorder.replaying import replay as play
    from discorder.transport.recorded import Recording

    recording = Recording.load(file)
    replayed = asyncio.run(play(recording, load_config(config, overrides or ()), speed=speed))
    stats = replayed.tracker.stats
    typer.echo(
        f"replayed {file}: published={stats.published_event_count} identifies={stats.identify_count} "
        f"resumes={stats.resume_count} restarts={stats.restart_count}"
    )
    if replayed.error is not None:
        typer.echo(f"ended as recorded: {escape_controls(str(replayed.error))}")


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
        bool, typer.Option("--liveness", help="Also check liveness with spin; needs spin and gcc.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="NAME", help="With --liveness: check this liveness property only. May be repeated."
        ),
    ] = None,
) -> None:
    """Verify the transition table: a static check, and a search of every state of a small model.

    Exit code 1 if a check fails; the shortest counterexample is printed.
    """
    from discorder.proofs import reports

    if only and (trace or not liveness):
        msg = "--only selects liveness properties: give --liveness, without --trace"
        raise typer.BadParameter(msg)
    try:
        checks = reports.liveness_checks(only) if liveness else ()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    sound = True
    for line in reports.traces(trace) if trace else reports.proofs(checks):
        sound = sound and line.sound
        typer.echo(line.text, err=not line.sound)
    if not sound:
        raise typer.Exit(1)


def diagram(
    subject: Annotated[Subject, typer.Argument(help="What to draw.")] = Subject.LIFE_CYCLE,
    format: Annotated[PictureFormat, typer.Option("--format", help="How to draw it.")] = PictureFormat.SVG,  # noqa: A002
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="F", help="A file; or a folder, for the whole set that the project keeps."
        ),
    ] = None,
    highlight: Annotated[
        str | None,
        typer.Option(
            "--highlight", metavar="STATE", help="Mark this state in the picture of the life cycle, e.g. Ready."
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            metavar="FILE",
            help="Draw the path that a recorded session took through the life cycle, or a trace as 'discorder verify' reads it.",
        ),
    ] = None,
    shard: Annotated[int, typer.Option(min=0, help="The shard whose path is drawn, if several were recorded.")] = 0,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Write nothing; exit 1 when the set in the folder (default: diagrams) is outdated."
        ),
    ] = False,
) -> None:
    """Draw the life cycle of a session from the transition table, sequence diagrams from runs of the machine, or the package."""
    from discorder.cli.diagram import check_folder, draw
    from discorder.pictures.render import write_all

    if check:
        check_folder(Path("diagrams") if output is None else output)
    elif output is not None and output.is_dir():
        write_all(output)
    elif subject is not Subject.LIFE_CYCLE and (highlight is not None or trace is not None):
        msg = f"--highlight and --trace belong to the picture of the life cycle, not to {subject}"
        raise typer.BadParameter(msg)
    else:
        draw(subject, format, output, highlight=highlight, trace=trace, shard=shard)


def keygen(
    name: Annotated[Path, typer.Argument(help="NAME.key and NAME.key_secret are written; neither may exist.")],
) -> None:
    """Make a CURVE key pair: one for the bus, and one for each bot that may connect from another host.

    The bus gets curve_secret_file = "NAME.key_secret" and curve_clients = [the bots' public keys]; a bot gets its own
    NAME.key_secret and the bus's public key. The secret file is readable by you alone, and no key is sent anywhere.
    """
    from discorder.curve import generate

    public_file, secret_file, public = generate(name)
    typer.echo(f"secret  {secret_file} (keep it where it is used)")
    typer.echo(f"public  {public_file}")
    typer.echo(public)


def init(
    file: Annotated[Path, typer.Argument(help="Where to write it; must not exist.")] = Path("discorder.toml"),
    dev: Annotated[
        bool, typer.Option("--dev", help="For development: ends on the first failure, logs everything.")
    ] = False,
) -> None:
    """Write a configuration file in which every key is explained, ready for `discorder serve --config FILE`."""
    from discorder.config import sample_config
    from discorder.errors import ConfigError, UnusableFile

    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(sample_config("dev" if dev else "prod"))
    except FileExistsError:
        msg = f"{file} exists; name another file, or remove it first"
        raise ConfigError(msg) from None
    except OSError as error:
        msg = f"{file} cannot be written: {error.strerror}"
        raise UnusableFile(msg) from error
    typer.echo(f"wrote {file}; look it over, then: discorder check-config {file}")


def check_config(
    file: Annotated[Path, typer.Argument(help="The TOML file to check.")],
    overrides: Overrides = None,
) -> None:
    """Validate a configuration and print what would run with it, without opening anything. Exit code 78 if it is wrong."""
    from discorder.config import describe, load_config

    typer.echo(describe(load_config(file, overrides or ())))
