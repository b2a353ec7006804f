"""`discorder send`: a command to the gateway, through a control plane that runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from discorder.bot.commands import Commands
from discorder.bot.sockets import DEFAULT_ADDRESS
from discorder.cli.bus import SecretFile, ServerKey, keys_of

T = TypeVar("T")
Shard = Annotated[int | None, typer.Option(help="Only this shard.")]
Guild = Annotated[int, typer.Argument(help="A guild's id.")]

send = typer.Typer(no_args_is_help=True)


@send.callback()
def bus(
    context: typer.Context,
    address: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where the control plane publishes.")
    ] = DEFAULT_ADDRESS,
    server_key: ServerKey = None,
    secret_file: SecretFile = None,
) -> None:
    """Send a command to the gateway through the control plane that runs, as a bot in another process does.

    Exits with 1 and the reason when it is refused; nothing waits for room in Discord's limits.
    """
    keys = keys_of(server_key, secret_file)
    context.obj = lambda: Commands(address, keys=keys)


@send.command("presence")
def presence(
    context: typer.Context,
    status: Annotated[str, typer.Argument(help="online, dnd, idle, invisible or offline.")] = "online",
    text: Annotated[str, typer.Option(help="A custom status text.")] = "",
    shard: Shard = None,
) -> None:
    """Set the bot's status, on every shard unless --shard names one."""
    activities = [{"name": "Custom Status", "type": 4, "state": text}] if text else []
    _run(context, lambda commands: commands.presence(status=status, activities=activities, shard=shard))


@send.command("members")
def members(
    context: typer.Context,
    guild_id: Guild,
    query: Annotated[str, typer.Option(help="A prefix of user names.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0: all.")] = 0,
) -> None:
    """Ask for members of a guild; they come on the bus as GUILD_MEMBERS_CHUNK with the nonce that this prints."""
    typer.echo(_run(context, lambda commands: commands.members(guild_id, query=query, limit=limit)))


@send.command("voice-state")
def voice_state(
    context: typer.Context,
    guild_id: Guild,
    channel_id: Annotated[int | None, typer.Argument(help="A voice channel's id; left out: leave.")] = None,
    self_mute: Annotated[bool, typer.Option("--self-mute")] = False,
    self_deaf: Annotated[bool, typer.Option("--self-deaf")] = False,
) -> None:
    """Join a voice channel, move to it, or leave."""
    _run(context, lambda c: c.voice_state(guild_id, channel_id, self_mute=self_mute, self_deaf=self_deaf))


@send.command("command")
def command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="presence, members, voice_state, soundboard_sounds or channel_info.")],
    body: Annotated[str, typer.Argument(metavar="JSON", help="Discord's d for it.")],
    shard: Shard = None,
) -> None:
    """Send any command, with its body as JSON."""
    try:
        d: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except ValueError as error:
        msg = f"the body is no JSON object: {error}"
        raise typer.BadParameter(msg) from error
    _run(context, lambda commands: commands.send(name, d, shard=shard))


def _run(context: typer.Context, work: Callable[[Commands], Awaitable[T]]) -> T:
    async def run() -> T:
        try:
            commands: Commands = context.obj()
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        async with commands:
            return await work(commands)

    return asyncio.run(run())
