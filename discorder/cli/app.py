"""Define the typer application: the commands with their options and help, in the order of the help.

Each command imports what it runs when it is called, so that `--help` and short commands start fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from discorder.cli import facade, offline, operate, send, sessions
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
from discorder.paths import DEFAULT_ADDRESS

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


app.command()(sessions.budget)
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
    token. It requests GET /gateway, /gateway/bot, /users/@me and /applications/@me, dials the gateway up to its Hello, and
    connects to the servers of the publishers nats and redis.
    """
    from discorder.cli.doctor.report import run_doctor

    raise typer.Exit(run_doctor(config, overrides or (), as_json=as_json, limit=timeout))


app.command()(offline.demo)
app.command()(offline.simulate)


@app.command()
def tail(
    addresses: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ADDRESS…",
            help=f"Where control planes publish, by default {DEFAULT_ADDRESS}; ipc://PATH/ stands for all sockets in a folder. "
            "Or a server of NATS, nats://HOST:4222, of Redis or Valkey, redis://HOST:6379.",
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
    """Subscribe to a control plane over ZeroMQ, NATS or Redis and print its events until SIGINT or SIGTERM.

    Missing events are requested again. If the control plane or the stream no longer has them, a line DISCORDER_GAP names what is
    missing. What does not answer within 2 seconds, or refuses the key, is named on stderr; the command goes on waiting.
    """
    from discorder.bot.subscriber import subscribe
    from discorder.cli.bus_hint import hint
    from discorder.cli.tail import event_names, print_events

    several = addresses or [DEFAULT_ADDRESS]
    keys = load_keys(server_key, secret_file, several)
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


app.command()(offline.keygen)
app.command()(offline.replay)
app.command()(offline.verify)
app.command()(offline.diagram)
app.command()(offline.init)
app.command("check-config")(offline.check_config)
app.add_typer(operate.shards, name="shards")
app.add_typer(sessions.app, name="sessions")
app.add_typer(send.app, name="send")
facade.app.command("status")(operate.facade_status)
app.add_typer(facade.app, name="facade")
