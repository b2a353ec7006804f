"""`discorder tail`: subscribe to a control plane and print what it publishes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
from typing import Annotated

import msgspec
import typer

from discorder.subscriber import DEFAULT_ADDRESS, subscribe
from discorder.wire import ReceivedEvent


def tail(
    address: Annotated[str, typer.Argument(help="Where the control plane publishes.")] = DEFAULT_ADDRESS,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="T", help="Only this event, e.g. MESSAGE_CREATE; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document per line.")] = False,
) -> None:
    """Subscribe to a control plane over ZeroMQ and print its events until SIGINT or SIGTERM."""
    try:
        asyncio.run(_tail(address, types, as_json=as_json))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


async def _tail(address: str, types: list[str] | None, *, as_json: bool) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError, BrokenPipeError):  # a signal, or `discorder tail | head`
        async for event in subscribe(address, types):
            line = msgspec.json.encode(event) if as_json else readable(event).encode()
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()


def readable(event: ReceivedEvent) -> str:
    """One line that fits the terminal."""
    time = f"{event.timestamp:%H:%M:%S}.{event.timestamp.microsecond // 1000:03d}"
    seq = "" if event.seq is None else f"seq {event.seq}"
    line = f"{time} {event.type:<32} shard {event.shard[0]} {seq:<10} {event.data.decode()}"
    width = shutil.get_terminal_size((120, 24)).columns
    return line if len(line) <= width else line[: width - 1] + "…"
