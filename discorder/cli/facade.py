"""Run the façade in a process of its own, and make the tokens of its bots: `discorder facade`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from discorder.cli.options import Config, Group, Overrides, SecretFile, ServerKey, load_keys
from discorder.paths import DEFAULT_ADDRESS

if TYPE_CHECKING:
    from discorder.bot.sockets import CurveKeys
    from discorder.config import Config as LoadedConfig

DEFAULT_BIND = "127.0.0.1:7000"

app = typer.Typer(cls=Group)


@app.callback(invoke_without_command=True)
def facade(
    context: typer.Context,
    bus: Annotated[str, typer.Option(metavar="ADDRESS", help="Where the control plane publishes.")] = DEFAULT_ADDRESS,
    bind: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help=f'Where bots connect, or "systemd". By default that of facade.bind, or {DEFAULT_BIND}.',
        ),
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
    server_key: ServerKey = None,
    secret_file: SecretFile = None,
) -> None:
    """Run the façade, where bots connect instead of Discord, in a process of its own.

    Its bots keep their connections through every restart of the control plane, also after kill -9.

    Uses the configuration and the bot token of `discorder serve`, whose facade.bind stays empty, and needs a control plane with a
    journal (facade.journal, or a table [facade.clients.NAME]), whose bus feeds it. It may start before the control plane.
    What the bots need is kept in a directory beside that journal, so that they resume after a restart of the façade too. The log
    goes to the console only. SIGINT or SIGTERM stops; a second signal stops at once.
    """
    if context.invoked_subcommand is None:
        _run(bus, bind, config, overrides or [], load_keys(server_key, secret_file))


@app.command("token")
def make_token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The bot, as in [facade.clients.NAME].")],
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Make the token with which the bot NAME connects to the façade; it never gets the real one.

    The token is written to the token_file of [facade.clients.NAME], or to NAME.token while the configuration has no such
    table. The file is readable by you alone and must not exist. The id of the bot is read out of the real token.
    Then restart `discorder serve`, and `discorder facade` if it runs: both read the bots at their start.
    """
    import json

    from discorder.config import load_config, read_token
    from discorder.config.facade import is_client_name
    from discorder.errors import ConfigError
    from discorder.facade import clients
    from discorder.paths import resolve_path

    if not is_client_name(name):
        msg = f"{name!r} is not a name for a bot; use 1 to 32 letters, digits, - and _"
        raise typer.BadParameter(msg)
    loaded = load_config(config, overrides or (), publishers=False)
    bot_id = clients.bot_id_of(read_token(loaded))
    if bot_id is None:
        msg = "the bot token does not begin with the id of a bot, as each of Discord's does; check it in the developer portal"
        raise ConfigError(msg)
    known = loaded.facade.clients.get(name)
    path = resolve_path(f"{name}.token" if known is None else known.token_file)
    clients.write_token(path, clients.make_token(bot_id))
    typer.echo(f"token  {path} (give its content to the bot {name} instead of the real token)")
    restart = "restart `discorder serve` (and `discorder facade` if it runs), which reads its bots at its start"
    if known is None:
        table = f"[facade.clients.{name}]\ntoken_file = {json.dumps(str(path))}"
        typer.echo(f"Add to the configuration, and {restart}:\n\n{table}")
    else:
        typer.echo(f"Then {restart}.")


def _run(bus: str, bind: str | None, config: Path | None, overrides: list[str], keys: CurveKeys | None) -> None:
    import json

    from discorder.config import load_config
    from discorder.facade_process import run_facade

    def load() -> LoadedConfig:
        where = bind
        if where is None and not load_config(config, overrides, publishers=False).facade.bind:
            where = DEFAULT_BIND
        bound = [] if where is None else [f"facade.bind={json.dumps(where)}"]
        return load_config(config, [*overrides, *bound], publishers=False)

    run_facade(load, bus, keys)
