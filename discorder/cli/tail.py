"""`discorder tail`: subscribe to a control plane and print what it publishes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from discorder.bot.sockets import DEFAULT_ADDRESS
from discorder.bot.subscriber import Gap, Subscription, subscribe
from discorder.cli.bus import Address, SecretFile, ServerKey, keys_of
from discorder.wire import ReceivedEvent


def tail(
    address: Address = DEFAULT_ADDRESS,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="T", help="Only this event, e.g. MESSAGE_CREATE; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document per line.")] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Begin with the oldest event that the control plane can repeat.")
    ] = False,
    cursor: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Remember in FILE how far this came, and go on there.")
    ] = None,
    server_key: ServerKey = None,
    secret_file: SecretFile = None,
) -> None:
    """Subscribe to a control plane over ZeroMQ and print its events until SIGINT or SIGTERM.

    What was lost on the way is asked for again; where that is not possible, a line DISCORDER_GAP says what is missing.
    """
    keys = keys_of(server_key, secret_file)
    try:
        subscription = lambda: subscribe(  # noqa: E731  # made on the loop
            address, types, start="oldest" if replay else "now", cursor=cursor, keys=keys
        )
        asyncio.run(_tail(subscription, as_json=as_json))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


async def _tail(subscription: Callable[[], Subscription[ReceivedEvent]], *, as_json: bool) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError, BrokenPipeError):  # a signal, or `discorder tail | head`
        async with subscription() as events:
            async for item in events:
                event = gap_event(item) if isinstance(item, Gap) else item
                line = msgspec.json.encode(event) if as_json else readable(event).encode()
                sys.stdout.buffer.write(line + b"\n")
                sys.stdout.buffer.flush()


def gap_event(gap: Gap) -> ReceivedEvent:
    """The gap in the form of the control plane's own records, so that every line looks alike."""
    data = {
        "kind": gap.kind,
        "publisher": None,
        "from_seq": gap.from_seq,
        "to_seq": gap.to_seq,
        "types": None if gap.types is None else sorted(gap.types),
        "cause": gap.cause,
    }
    now = datetime.now(UTC)
    return ReceivedEvent(gap.type, gap.shard, None, None, gap.session, now, msgspec.Raw(msgspec.json.encode(data)))


def readable(event: ReceivedEvent) -> str:
    """One line that fits the terminal."""
    time = f"{event.timestamp:%H:%M:%S}.{event.timestamp.microsecond // 1000:03d}"
    seq = "" if event.seq is None else f"seq {event.seq}"
    line = f"{time} {event.type:<32} shard {event.shard[0]} {seq:<10} {event.data.decode()}"
    width = shutil.get_terminal_size((120, 24)).columns
    return line if len(line) <= width else line[: width - 1] + "…"
