"""Print what a control plane publishes: `discorder tail`."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import os
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from importlib import resources

import msgspec
import typer

from discorder.bot.positions import POSITION_RECORD
from discorder.bot.subscriber import Gap, Subscription
from discorder.escapes import escape_controls, escape_json
from discorder.records import RecordType
from discorder.wire import ReceivedEvent

USER_MESSAGES = {0, 19}  # DEFAULT and REPLY; a system message has no contents of its own
NO_CONTENT = (
    "Messages come without their contents: the control plane lacks the privileged intent message_content. Add it to "
    'gateway.intents, as in intents = ["default", "message_content"], and enable it in Discord\'s developer portal.'
)


def print_events(
    subscription: Callable[[], Subscription[ReceivedEvent]], *, as_json: bool, hint: Coroutine[None, None, None]
) -> None:
    """Print what a subscription yields, until a signal or until the reader closes the pipe; run ``hint`` beside it."""
    asyncio.run(_print_events(subscription, as_json=as_json, hint=hint))


async def _print_events(
    subscription: Callable[[], Subscription[ReceivedEvent]], *, as_json: bool, hint: Coroutine[None, None, None]
) -> None:
    hinting = asyncio.create_task(hint)
    try:
        with _ended_by(asyncio.current_task()):
            async with subscription() as events:
                await _print(events, as_json=as_json)
    finally:
        hinting.cancel()
        await asyncio.gather(hinting, return_exceptions=True)


async def _print(events: Subscription[ReceivedEvent], *, as_json: bool) -> None:
    hinted = False
    async for item in events:
        if not hinted and not isinstance(item, Gap) and lacks_content(item):
            hinted = True
            typer.echo(NO_CONTENT, err=True)
        event = gap_event(item) if isinstance(item, Gap) else item
        line = escape_json(msgspec.json.encode(event)) if as_json else readable(event).encode()
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()


@contextlib.contextmanager
def _ended_by(task: asyncio.Task[None] | None) -> Iterator[None]:
    """End the body, and ``task``, quietly: by a signal, or when the reader of the pipe is gone, as in `discorder tail | head`.

    The end of the reader is noticed at once, not only when the next event is written.
    """
    loop, output = asyncio.get_running_loop(), sys.stdout.fileno()

    def leave() -> None:
        loop.remove_reader(output)
        if task is not None:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, leave)
    if stat.S_ISFIFO(os.fstat(output).st_mode):  # the end that we write to is readable only when there is no reader
        loop.add_reader(output, leave)
    try:
        yield
    except asyncio.CancelledError:
        return
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)  # for what is still in the buffer
    finally:
        loop.remove_reader(output)


def event_names(types: Sequence[str] | None) -> list[str] | None:
    """Return the names that ``types`` stand for, such as MESSAGE_CREATE for message_create. Say which of them nobody knows."""
    if types is None:
        return None
    names = [name.strip().upper().replace("-", "_").replace(" ", "_") for name in types]
    known = _known_names()
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=2)
            meant = f"; did you mean {' or '.join(close)}?" if close else ""
            typer.echo(f"discorder: --type {name}: no event has this name as far as is known{meant}", err=True)
    return names


def _known_names() -> set[str]:
    """Return the names of Discord's events, which the simulator can play, and of the control plane's own records."""
    payloads = (resources.files("discorder.simulator") / "payloads").iterdir()
    return {payload.name.partition(".")[0] for payload in payloads} | {*RecordType, POSITION_RECORD}


def lacks_content(event: ReceivedEvent) -> bool:
    """Return whether this is a user's message in a guild without its contents, as without the intent ``message_content``."""
    if event.type != "MESSAGE_CREATE":
        return False
    try:
        message = event.decode(_Message)
    except ValueError:
        return False
    empty = message == _Message(guild_id=message.guild_id, type=message.type)
    return empty and message.guild_id != "" and message.type in USER_MESSAGES


class _Message(msgspec.Struct, frozen=True):
    """The fields with the contents of a message; all are empty without the intent."""

    guild_id: str = ""
    type: int = 0
    content: str = ""
    attachments: list[msgspec.Raw] = []
    embeds: list[msgspec.Raw] = []
    components: list[msgspec.Raw] = []
    sticker_items: list[msgspec.Raw] = []
    message_snapshots: list[msgspec.Raw] = []
    poll: msgspec.Raw | None = None


def gap_event(gap: Gap) -> ReceivedEvent:
    """Return the gap as an event, in the form of the control plane's own records."""
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
    """Return the event as one line that fits the terminal."""
    time = f"{event.timestamp:%H:%M:%S}.{event.timestamp.microsecond // 1000:03d}"
    seq = "" if event.seq is None else f"seq {event.seq}"
    width = shutil.get_terminal_size((120, 24)).columns
    line = escape_controls(f"{time} {event.type:<32} shard {event.shard[0]} {seq:<10} {event.data.decode()[:width]}")
    return line if len(line) <= width else line[: width - 1] + "…"
