"""Print the status of a control plane once, or follow it: `discorder status`."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from types import FrameType
from typing import TypeVar

import msgspec
import typer
from rich.console import Console
from rich.live import Live

from discorder.cli.bots_view import FacadeView, render_facade
from discorder.cli.plane_client import PlaneClient
from discorder.cli.status_view import BudgetView, NoteView, PublisherView, ShardView, StatusView, VerdictView, render
from discorder.errors import ControlPlaneAbsent, OperatorRefused
from discorder.escapes import escape_controls, escape_controls_in_json, escape_json

T = TypeVar("T")

SILENCE_SECONDS = 5.0  # after which what is shown counts as not known; the control plane sends something each second
AGAIN_SECONDS = 1.0  # between two attempts to connect
LINES_BESIDE_SHARDS = 14  # of a terminal: verdict, headings, publishers, budget

NOT_KNOWN = "Not known: no news from the control plane"


def show_status(client: PlaneClient, *, as_json: bool) -> None:
    """Print the status once, as text or as the document itself. Raises like `PlaneClient.status`."""
    document = client.status()
    if as_json:
        typer.echo(document.decode())
    else:
        console().print(render(decode(document)))


def show_bots(client: PlaneClient, *, as_json: bool) -> None:
    """Print the bots once, as text or as the part ``facade`` of the status document. Raises like `PlaneClient.status`."""
    document = client.status()
    view = decode(document)
    if as_json:
        typer.echo(escape_json(msgspec.json.encode(msgspec.json.decode(document).get("facade"))).decode())
    else:
        console().print(render_facade(view.facade, view.at))


def watch_status(client: PlaneClient, *, as_json: bool) -> None:
    """Follow the status until a signal, or until the reader closes the pipe.

    In a terminal the view is drawn anew; elsewhere each change is a line. The first connection must succeed, later ones are
    repeated. Raises like `PlaneClient.status`.
    """
    in_terminal = sys.stdout.isatty() and not as_json
    # A terminal must get its screen back. Otherwise each line is flushed, and nothing is left to do: an exception of a signal
    # handler can be lost, if it is raised in a destructor.
    signal.signal(signal.SIGTERM, signal.default_int_handler if in_terminal else _end_at_once)
    try:
        if as_json:
            _print_events(client)
        elif in_terminal:
            _draw(client)
        else:
            _print_changes(client)
    except (BrokenPipeError, KeyboardInterrupt):
        return


def decode(document: bytes) -> StatusView:
    """Return what is shown of a document. Raises `ControlPlaneAbsent` for one of another version."""
    return _decode(document, StatusView)


def _decode(document: bytes, kind: type[T]) -> T:
    """Return a document as ``kind``, its texts without control characters."""
    try:
        return msgspec.convert(_printable(msgspec.json.decode(document)), kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        msg = f"the status document is of another version than this command: {error}; use the discorder of the control plane"
        raise ControlPlaneAbsent(msg) from error


def _printable(value: object) -> object:
    """Return a value of JSON with its texts escaped: they may repeat what a peer of the control plane sent."""
    if isinstance(value, str):
        return escape_controls(value)
    if isinstance(value, list):
        return [_printable(item) for item in value]
    if isinstance(value, dict):
        return {key: _printable(item) for key, item in value.items()}
    return value


class _Step(msgspec.Struct):
    """A transition in an event."""

    shard: int
    source: str
    trigger: str
    target: str
    cause: str | None


class _Part(msgspec.Struct):
    """An event of the stream; it has some of these keys, with the meaning that they have in the document."""

    at: datetime
    verdict: VerdictView | None = None
    notes: list[NoteView] | None = None
    shards: list[ShardView] | None = None
    publishers: list[PublisherView] | None = None
    budget: BudgetView | None = None
    facade: FacadeView | msgspec.UnsetType | None = msgspec.UNSET
    transition: _Step | None = None


class _Watched:
    """The view, kept up to date with the events of a stream."""

    def __init__(self) -> None:
        self.view: StatusView | None = None
        self._heard_at = time.monotonic()

    def take(self, name: str, data: bytes) -> _Part | None:
        """Apply one event. Return it if it is a part of the document, None for the whole."""
        self._heard_at = time.monotonic()
        view = self.view
        if name == "status" or view is None:
            self.view = decode(data)
            return None
        part = _decode(data, _Part)
        view.at = part.at
        view.verdict = part.verdict or view.verdict
        view.budget = part.budget or view.budget
        view.notes = view.notes if part.notes is None else part.notes
        view.publishers = view.publishers if part.publishers is None else part.publishers
        view.facade = view.facade if part.facade is msgspec.UNSET else part.facade
        changed = {shard.id: shard for shard in part.shards or ()}
        view.shards = [changed.get(shard.id, shard) for shard in view.shards]
        return part

    @property
    def now(self) -> datetime:
        """The time of the control plane's clock, carried on by the monotonic one since the last event."""
        assert self.view is not None  # noqa: S101  # asked for after the first event
        return self.view.at + timedelta(seconds=time.monotonic() - self._heard_at)


def _events(client: PlaneClient) -> Iterator[tuple[str, bytes] | None]:
    """Yield the events, for ever; None while there are none. Raises `ControlPlaneAbsent` if no event ever came."""
    begun = False
    while True:
        try:
            for event in client.events(SILENCE_SECONDS):
                begun = True
                yield event
        except (ControlPlaneAbsent, OperatorRefused):
            if not begun:
                raise
        yield None
        time.sleep(AGAIN_SECONDS)


def _print_events(client: PlaneClient) -> None:
    known = True
    for event in _events(client):
        _check_reader()
        if event is not None:
            name, data = event
            line = escape_controls_in_json(f'{{"event":{json.dumps(name)},"data":{data.decode(errors="replace")}}}')
            _write(line.encode())
        elif known:
            typer.echo(NOT_KNOWN, err=True)
        known = event is not None


def _print_changes(client: PlaneClient) -> None:
    """Print the status once, then a line for each transition and each change of the verdict."""
    watched, headline = _Watched(), ""
    for event in _events(client):
        _check_reader()
        part = None if event is None else watched.take(*event)
        view = watched.view
        if view is None:
            continue
        if not headline:
            console().print(render(view))
        if part is not None and part.transition is not None:
            step = part.transition
            cause = f": {step.cause}" if step.cause else ""
            _write(
                f"{view.at:%H:%M:%S} shard {step.shard} {step.source} → {step.target} ({step.trigger}){cause}".encode()
            )
        said = NOT_KNOWN if event is None else view.verdict.headline
        if headline not in {"", said}:
            _write(f"{watched.now:%H:%M:%S} {said}".encode())
        headline = said


def _draw(client: PlaneClient) -> None:
    terminal, watched = console(), _Watched()
    with Live(console=terminal, screen=True, auto_refresh=False) as live:
        for event in _events(client):
            if event is not None:
                watched.take(*event)
            if watched.view is not None:
                stale = NOT_KNOWN if event is None else ""
                bots = 0 if watched.view.facade is None else len(watched.view.facade.bots) + 2
                rows = max(1, terminal.height - LINES_BESIDE_SHARDS - bots)
                live.update(render(watched.view, now=watched.now, stale=stale, rows=rows), refresh=True)


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


def _check_reader() -> None:
    """Raise BrokenPipeError if the reader of stdout has gone; without a change, nothing would be written for hours."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    if any(flags & select.POLLERR for _, flags in poll.poll(0)):
        raise BrokenPipeError


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def console() -> Console:
    """Return the console that the status is printed on."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())
