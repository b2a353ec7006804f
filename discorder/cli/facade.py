"""Make the tokens of the bots that connect to the façade: `discorder facade`."""

from __future__ import annotations

from typing import Annotated

import typer

from discorder.cli.options import Config, Group, Overrides

app = typer.Typer(cls=Group, no_args_is_help=True, help="The façade, where bots connect instead of Discord.")


@app.command("token")
def make_token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The bot, as in [facade.clients.NAME].")],
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Make the token with which the bot NAME connects to the façade; it never gets the real one.

    The token is written to the token_file of [facade.clients.NAME], or to NAME.token while the configuration has no such
    table. The file is readable by you alone and must not exist. The id of the bot is read out of the real token.
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
    if known is None:
        typer.echo(f"Add to the configuration:\n\n[facade.clients.{name}]\ntoken_file = {json.dumps(str(path))}")
