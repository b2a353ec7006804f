"""The typer application: the commands with their options and help, in the order of the help.

Each command imports what it runs when it is called, so that `--help` and short commands start fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from discorder.cli import facade, operate, send, sessions
from discorder.cli.options import (
    Config,
    FaultOnDiscord,
    Faults,
    Group,
    Overrides,
    SecretFile,
    ServerKey,
    load_keys,
    parse_faults,
    refuse_faults_elsewhere,
)
from discorder.escapes import escape_controls
from discorder.paths import DEFAULT_ADDRESS
from discorder.pictures import PictureFormat, Subject

if TYPE_CHECKING:
    from discorder.config import Config as LoadedConfig

app = typer.Typer(
    cls=Group,
    name="discorder",
    help=(
        "A control plane for the Discord gateway: holds a bot's sessions through every failure and publishes each event.\n\n"
        "Start with 'discorder demo' (no token needed), then 'discorder init' and 'discorder serve --config discorder.toml'."
    ),
    epilog=(
        "Exit codes: 0 asked to stop, 1 internal error, 2 usage, 69 gateway, bus or control plane unreachable, "
        "73 port or shards in use, 74 log or store not writable, 75 identify budget spent, 76 failure under fail_on_error, "
        "77 token or intents refused, "
        "78 configuration. After 2, 77 and 78 a restart does not help."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from discorder.version import installed_version

        typer.echo(f"discorder {installed_version()}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take the options of every command."""


@app.command()
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
        typer.Option(
            metavar="SECONDS", min=0.0, help="Wait at most so long for the process that holds the shards to end."
        ),
    ] = 0.0,
    processes: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Divide the shards among N processes, which this one starts and supervises."
        ),
    ] = 1,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="Also stop when standard input ends, as a supervisor's pipe does.")
    ] = False,
    fault: Faults = None,
    fault_on_discord: FaultOnDiscord = False,
) -> None:
    """Run the control plane in the foreground until SIGINT or SIGTERM.

    The bot token comes from the environment variable DISCORD_BOT_TOKEN, or from the file that gateway.token_file names.
    Stopping keeps the Discord session: the next start resumes it. A second signal stops at once. SIGHUP reopens the log file and
    reloads [log] from the configuration.

    A start while another process holds the same shards of the same store is refused (exit code 73, naming that process).
    --take-over sends that process SIGTERM and gives it 30 seconds (or --wait) to release the shards. --wait alone only waits, as
    in a rolling upgrade, which starts the new process before it stops the old one.

    With --processes N the shards are divided among N processes, since one process uses one core. They share the session store and
    its identify budget; each publishes on ports of its own, and discorder.subscribe reads several buses as one. A process that
    crashes is started again; one that ends with another exit code ends all of them with that code, and one that is asked to stop
    stops all.

    --fault KIND[=VALUE][@MOMENT][/PERIOD] breaks the connections on purpose, on this side only, to see in staging how a bot lives
    through it. Kinds: drop, stall=10s, close=4000, zombie, slow-dial=3s; drop@30s is once, drop/5m every five minutes.
    """
    from discorder.config import load_config, refuse_shared_files
    from discorder.control_plane import run_config
    from discorder.paths import FileUse, resolve_path
    from discorder.plane.session_persistence import Claim

    if record_raw and record is None:
        msg = "--record-raw goes with --record FILE"
        raise typer.BadParameter(msg)
    try:
        recording = None if record is None else resolve_path(record)
    except ValueError as error:
        msg = f"--record: {error}"
        raise typer.BadParameter(msg) from None

    faults = parse_faults(fault)
    if faults:
        refuse_faults_elsewhere(load_config(config, overrides or ()), allowed=fault_on_discord)
    if processes > 1:
        from discorder.cli.processes import serve_processes

        if record is not None or until_eof:
            msg = "--record and --until-eof are for one process; leave out --processes"
            raise typer.BadParameter(msg)
        options = [*(["--take-over"] if take_over else []), *(["--wait", str(wait)] if wait else [])]
        options += [word for one in faults for word in ("--fault", one.text)]
        options += ["--fault-on-discord"] if fault_on_discord else []
        raise typer.Exit(serve_processes(config, overrides or (), processes, options))

    def load() -> LoadedConfig:
        loaded = load_config(config, overrides or ())
        if recording is not None:
            refuse_shared_files(loaded, [FileUse("--record", recording)])
        return loaded

    run_config(
        load,
        claim=Claim(take_over, wait),
        record=recording,
        record_raw=record_raw,
        faults=faults,
        until_eof=until_eof,
    )


@app.command()
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


app.command()(operate.status)
app.command()(operate.shutdown)
app.command()(operate.healthcheck)


@app.command()
def doctor(
    config: Config = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")] = False,
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", min=0.1, help="Time limit of each check; they run side by side."),
    ] = 10.0,
) -> None:
    """Check token, intents, shards, budget, network, clock, ports, status page, store, publishers and log before a start.

    Each line is ok, warn or fail, with the remedy. Exit code 1 if anything failed. Changes nothing, sends no IDENTIFY, shows no
    token. It requests GET /gateway, /gateway/bot, /users/@me and /applications/@me, and dials the gateway up to its Hello.
    """
    from discorder.cli.doctor.report import run_doctor

    raise typer.Exit(run_doctor(config, overrides or (), as_json=as_json, limit=timeout))


@app.command()
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


@app.command()
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
    from discorder.cli.simulated import run_simulator
    from discorder.simulator import Simulator

    sim = Simulator(port=port, guilds=guilds, rate=rate, max_concurrency=max_concurrency, seed=seed)
    run_simulator(sim, port)


@app.command()
def tail(
    addresses: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ADDRESS…",
            help=f"Where control planes publish, by default {DEFAULT_ADDRESS}; ipc://PATH/ stands for all sockets in a folder.",
        ),
    ] = None,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="T", help="Only this event, e.g. MESSAGE_CREATE, in any case; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document per line.")] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Begin with the oldest event that the control plane can repeat.")
    ] = False,
    cursor: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Store the position in FILE, and continue there at the next start."),
    ] = None,
    server_key: ServerKey = None,
    secret_file: SecretFile = None,
) -> None:
    """Subscribe to a control plane over ZeroMQ and print its events until SIGINT or SIGTERM.

    Missing events are requested again. If the control plane no longer has them, a line DISCORDER_GAP names what is missing.
    A control plane that does not answer within 2 seconds, or refuses the key, is named on stderr; the command goes on waiting.
    """
    from discorder.bot.subscriber import subscribe
    from discorder.cli.bus_hint import hint
    from discorder.cli.tail import event_names, print_events

    keys = load_keys(server_key, secret_file)
    several = addresses or [DEFAULT_ADDRESS]
    address = several[0] if len(several) == 1 else several
    start: Literal["oldest", "now"] = "oldest" if replay else "now"
    names = event_names(types)
    try:
        print_events(
            lambda: subscribe(address, names, start=start, cursor=cursor, keys=keys),
            as_json=as_json,
            hint=hint(several, keys),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
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


@app.command("check-config")
def check_config(
    file: Annotated[Path, typer.Argument(help="The TOML file to check.")],
    overrides: Overrides = None,
) -> None:
    """Validate a configuration and print what would run with it, without opening anything. Exit code 78 if it is wrong."""
    from discorder.config import describe, load_config

    typer.echo(describe(load_config(file, overrides or ())))


app.add_typer(operate.shards, name="shards")
app.add_typer(sessions.app, name="sessions")
app.add_typer(send.app, name="send")
facade.app.command("status")(operate.facade_status)
app.add_typer(facade.app, name="facade")
