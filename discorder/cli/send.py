"""Send a command to the gateway through a control plane that runs: `discorder send`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import typer

from discorder.cli.options import Group, SecretFile, ServerKey, load_keys
from discorder.paths import DEFAULT_ADDRESS

if TYPE_CHECKING:
    from discorder.bot.commands import Commands
    from discorder.bot.sockets import CurveKeys

T = TypeVar("T")
Shard = Annotated[int | None, typer.Option(help="Only this shard.")]
Guild = Annotated[int, typer.Argument(help="A guild's id.")]


class BusOptions(NamedTuple):
    """The bus of a command: how to connect to it, where it is, and the keys."""

    connect: Callable[[], Commands]
    address: str
    keys: CurveKeys | None


app = typer.Typer(cls=Group, no_args_is_help=True)


@app.callback()
def bus(
    context: typer.Context,
    address: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Where the control plane publishes: a bus of ZeroMQ with replay, or a server of NATS, nats://HOST:4222, if "
            "publishers.nats.commands is true there.",
        ),
    ] = DEFAULT_ADDRESS,
    server_key: ServerKey = None,
    secret_file: SecretFile = None,
) -> None:
    """Send a command to the gateway through the control plane that runs, as a bot in another process does.

    Exits with 1 and the reason if the command is refused. A command beyond Discord's rate limit is refused, not delayed.
    """
    from discorder.bot.commands import Commands

    keys = load_keys(server_key, secret_file, [address])
    context.obj = BusOptions(lambda: Commands(address, keys=keys), address, keys)


@app.command("presence")
def presence(
    context: typer.Context,
    status: Annotated[str, typer.Argument(help="online, dnd, idle, invisible or offline.")] = "online",
    text: Annotated[str, typer.Option(help="A custom status text.")] = "",
    shard: Shard = None,
) -> None:
    """Set the bot's status on every shard, or on one with --shard."""
    activities = [{"name": "Custom Status", "type": 4, "state": text}] if text else []
    _run(context, lambda commands: commands.presence(status=status, activities=activities, shard=shard))


@app.command("members")
def members(
    context: typer.Context,
    guild_id: Guild,
    query: Annotated[str, typer.Option(help="A prefix of user names.")] = "",
    limit: Annotated[
        int | None,
        typer.Option(min=0, help="The largest number of members. Default: 100 with a query, otherwise 0: all."),
    ] = None,
) -> None:
    """Request members of a guild. They are published as GUILD_MEMBERS_CHUNK with the nonce that this prints."""
    typer.echo(_run(context, lambda commands: commands.members(guild_id, query=query, limit=limit)))


@app.command("voice-state")
def voice_state(
    context: typer.Context,
    guild_id: Guild,
    channel_id: Annotated[int | None, typer.Argument(help="A voice channel's id; left out: leave.")] = None,
    self_mute: Annotated[bool, typer.Option("--self-mute")] = False,
    self_deaf: Annotated[bool, typer.Option("--self-deaf")] = False,
) -> None:
    """Join a voice channel, move to it, or leave."""
    _run(context, lambda c: c.voice_state(guild_id, channel_id, self_mute=self_mute, self_deaf=self_deaf))


@app.command("command")
def command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="presence, members, voice_state, soundboard_sounds or channel_info.")],
    body: Annotated[str, typer.Argument(metavar="JSON", help="Discord's d for it.")],
    shard: Shard = None,
) -> None:
    """Send any command, with its body as JSON."""
    import msgspec

    try:
        d: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except ValueError as error:
        msg = f"the body is no JSON object: {error}"
        raise typer.BadParameter(msg) from error
    _run(context, lambda commands: commands.send(name, d, shard=shard))


def _run(context: typer.Context, work: Callable[[Commands], Awaitable[T]]) -> T:
    import asyncio

    from discorder.bot.brokers import broker_of
    from discorder.cli.bus_hint import hint
    from discorder.wire import replay_address

    bus: BusOptions = context.obj

    async def run() -> T:
        try:
            commands = bus.connect()
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        router = bus.address if broker_of(bus.address) is not None else replay_address(bus.address)
        hinting = asyncio.create_task(hint([router], bus.keys))
        try:
            async with commands:
                return await work(commands)
        finally:
            hinting.cancel()
            await asyncio.gather(hinting, return_exceptions=True)

    return asyncio.run(run())
