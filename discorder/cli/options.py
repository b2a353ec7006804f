"""Define the options that several commands share, and the form of the help of a group of commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

if TYPE_CHECKING:
    from discorder.bot.sockets import CurveKeys
    from discorder.config import Config as LoadedConfig
    from discorder.transport.fault_grammar import Fault

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="TOML file; without one the built-in defaults hold."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key, e.g. --set gateway.shards=2; may be repeated."),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Where its status page is, e.g. http://127.0.0.1:6080; by default that of http.bind.",
    ),
]
ServerKey = Annotated[
    str | None,
    typer.Option("--server-key", metavar="KEY", help="For a bus of ZeroMQ with CURVE: its public key, 40 characters."),
]
SecretFile = Annotated[
    Path | None,
    typer.Option(
        "--secret-file",
        metavar="FILE",
        help="For a bus of ZeroMQ with CURVE: your own key file, from discorder keygen.",
    ),
]

Faults = Annotated[
    list[str] | None,
    typer.Option("--fault", metavar="FAULT", help="For staging: break connections, e.g. drop@30s; may be repeated."),
]
FaultOnDiscord = Annotated[
    bool,
    typer.Option(
        "--fault-on-discord", help="Allow --fault where gateway.api is not this machine: for a staging bot of its own."
    ),
]


class Group(typer.core.TyperGroup):
    """A group of commands. Its help is plain text, because loading rich takes longer than everything else of `--help`."""

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]  # click's own Context
        """List the commands with their whole first sentence; click would cut it to one line."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(1000)) for name, command in commands if command])


def load_keys(server_key: str | None, secret_file: Path | None, addresses: Sequence[str] = ()) -> CurveKeys | None:
    """Return the keys to connect with, to ``addresses`` if they may be those of a broker; None for a bus without CURVE."""
    if server_key is None and secret_file is None:
        return None
    from discorder.bot.brokers import broker_of

    broker = next((address for address in addresses if broker_of(address) is not None), None)
    if broker is not None:
        option = "--secret-file" if server_key is None else "--server-key"
        msg = f"{option} is for a bus of ZeroMQ with CURVE; leave it out for {broker.partition('://')[0]}://"
        raise typer.BadParameter(msg)
    if server_key is None or secret_file is None:
        msg = "--server-key and --secret-file go together"
        raise typer.BadParameter(msg)
    from discorder.bot.sockets import CurveKeys

    return CurveKeys(server_key, secret_file)


def parse_faults(texts: list[str] | None) -> list[Fault]:
    """Return the faults of ``--fault``."""
    if not texts:
        return []
    from discorder.transport.fault_grammar import parse_fault

    try:
        return [parse_fault(text) for text in texts]
    except ValueError as error:
        msg = f"--fault: {error}"
        raise typer.BadParameter(msg) from None


def refuse_faults_elsewhere(config: LoadedConfig, *, allowed: bool) -> None:
    """Refuse faults for a bot that may be the one in production: each costs its users a pause, and some cost an IDENTIFY."""
    from urllib.parse import urlsplit

    from discorder.transport.address import is_loopback

    if not allowed and not is_loopback(urlsplit(config.gateway.api).hostname or ""):
        msg = (
            f"--fault breaks the connections of the bot, and gateway.api = {config.gateway.api} is not this machine; use a "
            "simulator (discorder simulate), or --fault-on-discord with the token of a staging bot"
        )
        raise typer.BadParameter(msg)
