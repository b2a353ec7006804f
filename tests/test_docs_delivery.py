"""docs/delivery.md: each claim of its tables names an existing test, and its rules find every gap."""

from __future__ import annotations

import ast
import asyncio
import functools
import json
import random
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zmq

from discorder.clock import FakeClock
from discorder.publishers.zeromq.protocol import position_document
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.publishers.zeromq.ring import Ring
from discorder.records import LossKind, LostEvents, gap_record
from discorder.wire import Event

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "delivery.md"
TEXT = PAGE.read_text(encoding="utf-8")
LINK = re.compile(r"\[[^\]]+\]\(([^)\s#]+)(?:#[^)\s]*)?(?: \"(\w+)\")?\)")


def table(name: str) -> list[list[str]]:
    """Return the cells of the rows of the table behind ``<!-- name -->``, without its head."""
    (found,) = re.findall(rf"<!-- {name} -->\n((?:\|.*\n)+)", TEXT)
    rows = [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in found.splitlines()]
    return rows[2:]


@functools.cache
def functions_of(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(function.name for function in functions if function.name.startswith("test_"))


def test_every_link_leads_to_a_file_and_every_test_exists() -> None:
    links = LINK.findall(TEXT)
    assert len(links) > 50
    for target, test in links:
        path = (PAGE.parent / target).resolve()
        assert path.exists(), target
        if path.is_relative_to(ROOT / "tests"):
            assert test in functions_of(path), f"{target} has no {test!r}"


def test_every_promise_and_every_reader_is_backed_by_a_test() -> None:
    for _, shown_by in table("promises"):
        assert any(test for _, test in LINK.findall(shown_by)), shown_by
    rows = table("guarantees")
    assert len(rows) == 11
    unproved = ("is lost with the process", "lost with the process", "what is in the file stays")  # these claim nothing
    for reader, *cells in rows:
        assert len(cells) == 4, reader
        for cell in cells:
            assert LINK.search(cell) or any(words in cell for words in unproved), f"{reader}: {cell}"


# ---------------------------------------------------------------- the rules, run from the page's code

LARGE = b'"' + b"x" * 5_000 + b'"'
Missing = tuple[str | None, int, int | None]
NAMES = ("MESSAGE_CREATE", "TYPING_START", "GUILD_MEMBER_ADD", "PRESENCE_UPDATE")
SESSIONS = ("0123456789abcdef", "fedcba9876543210")


def reader(types: Iterable[str] | None = None) -> Any:
    names: dict[str, Any] = {}
    (code,) = re.findall(r"<!-- run: gap-finder -->\n```python\n(.*?)```", TEXT, re.DOTALL)
    exec(code, names)  # noqa: S102  # the page's own code
    return names["GapFinder"](None if types is None else set(types))


class Bus:
    """Produces what a control plane publishes: events with `prev`, records, and the positions of the bus's own ring."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._ring = Ring(max_bytes=10_000_000, max_seconds=600.0)
        self.documents: list[dict[str, Any]] = []
        self.session = ""
        self._seq = 0
        self._previous: dict[str, int] = {}
        self._complete = True

    def begin(self, session: str) -> None:
        if self.session:
            gap = LostEvents(LossKind.SESSION, None, self._seq + 1, None, "op 9", _moment(), _moment())
            self._publish(gap_record((0, 1), self.session, _moment(), gap))
        self.session, self._seq, self._previous, self._complete = session, 0, {}, True
        self._event("READY")

    def restart(self) -> None:
        """Resume the session in another process, which does not know the events before."""
        self._previous, self._complete = {}, False
        self._ring = Ring(max_bytes=10_000_000, max_seconds=600.0)

    def run(self, count: int) -> None:
        for _ in range(count):
            self._seq += self._rng.choice((0, 0, 0, 1, 5))  # Discord also counts events that it does not send
            self._event(self._rng.choice(NAMES))

    def position(self) -> None:
        (position,) = self._ring.positions()
        self.documents.append(json.loads(position_document(position, _moment())))

    def _event(self, name: str) -> None:
        self._seq += 1
        prev = self._previous.get(name, 0 if self._complete else None)
        self._previous[name] = self._seq
        self._publish(Event(name, (0, 1), self._seq, prev, self.session, _moment(), b"{}"))

    def _publish(self, event: Event) -> None:
        self._ring.append([event], [event.document], 0.0)
        self.documents.append(json.loads(event.document))


def _moment() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


def stream(rng: random.Random) -> list[dict[str, Any]]:
    bus = Bus(rng)
    bus.begin(SESSIONS[0])
    for _ in range(6):
        bus.run(rng.randrange(8))
        bus.position()
    return bus.documents


def lost(documents: list[dict[str, Any]], kept: set[int], types: Iterable[str] | None) -> set[tuple[str, int]]:
    """Return (type, seq) of the wanted events that were not kept."""
    return {
        (document["type"], document["seq"])
        for index, document in enumerate(documents)
        if document["seq"] is not None and index not in kept and concerns(document, types)
    }


def concerns(document: dict[str, Any], types: Iterable[str] | None) -> bool:
    """Return whether a reader of ``types`` uses the document."""
    return document["type"] == "DISCORDER_POSITION" or types is None or document["type"] in types


def covered(gaps: list[Missing], event: tuple[str, int]) -> bool:
    name, seq = event
    return any(kind in {None, name} and after < seq and (upto is None or seq <= upto) for kind, after, upto in gaps)


@pytest.mark.parametrize("types", [None, ("TYPING_START", "READY"), ("PRESENCE_UPDATE",)], ids=str)
def test_a_reader_that_gets_everything_finds_no_gap(types: tuple[str, ...] | None) -> None:
    """There is no false alarm, wherever in the stream the reader starts."""
    for seed in range(100):
        rng = random.Random(seed)
        documents = stream(rng)
        finder = reader(types)
        for document in documents[rng.randrange(len(documents)) :]:
            assert finder.take(document) == [], f"seed {seed}: {document}"


@pytest.mark.parametrize("types", [None, ("TYPING_START", "READY"), ("PRESENCE_UPDATE",)], ids=str)
def test_every_lost_event_is_found(types: tuple[str, ...] | None) -> None:
    """It is found at the next event of its type or the next position. No reported gap covers a received event."""
    for seed in range(200):
        rng = random.Random(seed)
        documents = stream(rng)
        keep = {index for index in range(len(documents)) if rng.random() < 0.6} | {len(documents) - 1}
        finder, reported = reader(types), []
        for index in sorted(keep):
            reported += finder.take(documents[index])
        start = next(index for index in sorted(keep) if concerns(documents[index], types))
        missing = lost(documents, keep | {*range(start)}, types)
        for event in missing:
            assert covered(reported, event), f"seed {seed}: {event} of {reported}"
        received = [documents[index] for index in keep if documents[index]["seq"] is not None]
        assert not any(covered(reported, (one["type"], one["seq"])) for one in received if concerns(one, types))
        assert bool(missing) == bool(reported)


def test_after_a_restart_of_the_control_plane_every_possible_gap_is_reported() -> None:
    """The new process does not know the predecessor of the first event of each type, so each of them may follow a gap."""
    for seed in range(200):
        rng = random.Random(seed)
        bus = Bus(rng)
        bus.begin(SESSIONS[0])
        bus.run(20)
        before = len(bus.documents)
        bus.run(5)  # lost: the bus or the reader is down
        bus.restart()
        bus.run(20)
        bus.position()
        finder, reported = reader(), []
        received = [*range(before), *range(before + 5, len(bus.documents))]
        for index in received:
            reported += finder.take(bus.documents[index])
        for event in lost(bus.documents, set(received), None):
            assert covered(reported, event), f"seed {seed}: {event} of {reported}"


def test_the_missed_end_of_a_session_is_found() -> None:
    """The gap record shows it; without the record, the first event of the next session."""
    bus = Bus(random.Random(1))
    bus.begin(SESSIONS[0])
    bus.run(10)
    bus.begin(SESSIONS[1])
    bus.run(3)
    (end,) = (index for index, document in enumerate(bus.documents) if document["type"] == "DISCORDER_GAP")
    last = bus.documents[end - 1]["seq"]
    for missing in ({end}, {end - 1, end}, set()):
        finder, reported = reader(), []
        for index, document in enumerate(bus.documents):
            if index not in missing:
                reported += finder.take(document)
        assert len(reported) == 1, reported
        (kind, after, upto) = reported[0]
        assert kind is None
        assert upto is None
        assert after == (last if end not in missing else 0), "from the gap record, or from the floor"


def test_the_missed_beginning_of_a_session_is_found() -> None:
    """A reader of the session before knows that no event precedes READY."""
    for seed in range(50):
        bus = Bus(random.Random(seed))
        bus.begin(SESSIONS[0])
        bus.run(10)
        bus.begin(SESSIONS[1])
        begin = len(bus.documents) - 1
        bus.run(20)
        bus.position()
        received = {*range(begin), *range(begin + 1 + seed % 5, len(bus.documents))}
        finder, reported = reader(), []
        for index in sorted(received):
            reported += finder.take(bus.documents[index])
        for event in lost(bus.documents, received, None):
            assert covered(reported[1:], event), f"seed {seed}: {event} of {reported}"
        assert reported[0][2] is None, "the end of the first session"


async def test_the_rules_hold_for_a_slow_reader_of_the_bus_itself() -> None:
    """The reader uses a socket and a parser, as the page describes, and loses most of a flood."""
    clock = FakeClock()
    bus = ZmqPublisher("tcp://127.0.0.1:*", hwm=50, replay="", clock=clock)
    await bus.open()
    context = zmq.Context()
    sock = context.socket(zmq.SUB)
    sock.set(zmq.RCVHWM, 50)
    sock.set(zmq.RCVTIMEO, 5_000)
    for topic in (b"TYPING_START", b"DISCORDER_GAP", b"DISCORDER_POSITION"):
        sock.subscribe(topic)
    sock.connect(bus.endpoints[0])
    try:
        while bus.subscriptions < 3:  # noqa: ASYNC110  # ZeroMQ reports subscriptions only when polled
            await asyncio.sleep(0.005)
        finder, reported, received = reader(["TYPING_START"]), [], set()
        last: dict[str, int] = {}
        for seq in range(1, 30_001):
            name = NAMES[seq % 3] if seq > 1 else "TYPING_START"
            bus.publish_nowait([Event(name, (0, 1), seq, last.get(name, 0), SESSIONS[0], _moment(), LARGE)])
            last[name] = seq
        while True:
            topic, document = await asyncio.to_thread(sock.recv_multipart)
            parsed = json.loads(document)
            assert topic.decode() == parsed["type"]
            reported += finder.take(parsed)
            if parsed["type"] == "DISCORDER_POSITION":
                break
            received.add(parsed["seq"])
            if sock.poll(0) == 0:  # all is read: the bus publishes the position again
                await clock.advance(11.0)
        sent = {seq for seq in range(1, 30_001) if (NAMES[seq % 3] if seq > 1 else "TYPING_START") == "TYPING_START"}
        assert 0 < len(received) < len(sent), "the flood is more than pipes and buffers hold"
        assert all(covered(reported, ("TYPING_START", seq)) for seq in sent - received)
        assert not any(covered(reported, ("TYPING_START", seq)) for seq in received)
    finally:
        await bus.close()
        sock.close(linger=0)
        context.term()
