"""Discord's payloads go from the simulator's socket to a ZeroMQ subscriber and into a file, and arrive byte for byte."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

import discorder
from discorder.config import load_config
from discorder.control_plane import serve_config
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.rest import BotClient
from discorder.simulator import Simulator
from discorder.wire import ReceivedEvent, decode_envelope

SECONDS = 40.0  # READY and RESUMED in the middle of a session are breaches: each costs a restart
COMPRESSIONS = ["zlib-stream", "zstd-stream", "payload", "none"]
Entry = tuple[int | None, str, bytes]  # seq, type, data


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(guilds=1, keep_documents=True) as simulator:
        yield simulator


async def carried(
    sim: Simulator, play: Callable[[], Awaitable[None]], *settings: str
) -> tuple[list[Entry], list[Entry]]:
    """Return what the simulator dispatched in ``play``, and which of it the bus published, in order."""
    ref = discorder.TrackerRef()
    given = [
        f"gateway.api={sim.api_url}",
        "session.store=",
        "publishers.zmq.bind=tcp://127.0.0.1:0",
        "log.level=error",
        "http.bind=",
        *settings,
    ]
    serving = serve_config(lambda: load_config(None, given), client=BotClient(sim.token), tracker_ref=ref)
    plane = asyncio.create_task(serving)
    try:
        tracker = await ref.ready(timeout=SECONDS)
        (bus,) = (publisher for publisher in tracker.publishers if isinstance(publisher, ZmqPublisher))
        async with discorder.subscribe(bus.endpoints[0]) as events:
            while bus.subscriptions == 0:  # noqa: ASYNC110  # ZeroMQ tells of a subscription when asked
                await asyncio.sleep(0.01)
            before = len(sim.sent_documents)
            await play()
            wanted: list[Entry] = [(sent.seq, sent.type, sent.data) for sent in sim.sent_documents[before:]]
            received: list[Entry] = []
            async with asyncio.timeout(SECONDS):
                async for event in events:
                    assert isinstance(event, ReceivedEvent), event
                    received.append((event.seq, event.type, event.data))
                    if event.seq == wanted[-1][0]:
                        break
    finally:
        plane.cancel()
        await asyncio.gather(plane, return_exceptions=True)
    return wanted, [entry for entry in received if entry in wanted]


@pytest.mark.parametrize("compress", COMPRESSIONS)
async def test_all_135_payloads_arrive_byte_identical(sim: Simulator, compress: str) -> None:
    wanted, arrived = await carried(sim, sim.play_all_payloads, f"gateway.compress={compress}")
    assert len(wanted) == 135
    assert arrived == wanted
    assert sim.identifies == 1


def large_guild() -> bytes:
    """Return some 2.5 MB of members with names in many scripts, as the JSON that Discord would send."""
    names = ["Zoë", "نمر", "虎", "🐅🏽", "e\u0301", "\u2028", 'quo"te', "back\\slash", "tab\t", "\x7f"]
    members = [
        {"user": {"id": str(10**17 + n), "username": names[n % len(names)] * 20, "avatar": None}, "roles": [str(n)] * 8}
        for n in range(10_000)
    ]
    return msgspec.json.encode({"id": "1", "name": "Größe", "unavailable": False, "members": members})


ODD = {
    "letters of all kinds": '{"content":"Zoë نمر 虎 🐅🏽 e\u0301 \u2028\u2029 \x7f"}'.encode(),
    "escapes": rb'{"c":"\u0000 \" \\ \/ \b\f\n\r\t \u00e9 \ud83d\udc3e \u2028"}',
    "huge integers": b'{"permissions":123456789012345678901234567890,"n":-9223372036854775809,"d":18446744073709551616}',
    "numbers as they are written": b'{"a":1.0,"b":1E400,"c":0.10,"d":-0,"e":1e-7,"f":100000000000000000000.5}',
    "keys that come twice": b'{"a":1,"a":2,"":3}',
    "white space": b'{ "a" :\t[ 1 ,\r\n 2 ] }',
    "null": b"null",
    "true": b"true",
    "a string": b'"text"',
    "a list": b"[[],{},[[]]]",
    "deep nesting": b"[" * 500 + b"]" * 500,
    "a guild of megabytes": large_guild(),
}


@pytest.mark.parametrize("compress", COMPRESSIONS)
async def test_whatever_is_json_arrives_as_it_was_written(sim: Simulator, tmp_path: Path, compress: str) -> None:
    """It is not parsed and written anew. In the file line breaks between tokens become spaces, and nothing else changes."""
    assert len(ODD["a guild of megabytes"]) > 2_000_000

    async def play() -> None:
        for name, data in ODD.items():
            await sim.dispatch_raw(f"ODD_{name}", data)

    path = tmp_path / "events.tsv"
    file = ("publishers.file.kind=delimited_file", f"publishers.file.path={path}", "publishers.file.required=true")
    wanted, arrived = await carried(sim, play, f"gateway.compress={compress}", *file)
    assert [data for _, _, data in wanted] == list(ODD.values())
    assert arrived == wanted
    with path.open(newline="", encoding="utf-8") as lines:
        filed = [
            (row[4], row[0], row[6].encode()) for row in csv.reader(lines, delimiter="\t") if row[0].startswith("ODD")
        ]
    on_one_line = bytes.maketrans(b"\r\n", b"  ")
    assert filed == [(str(seq), kind, data.translate(on_one_line)) for seq, kind, data in wanted]
    assert sim.connects == 1


def test_nesting_beyond_any_reason_is_refused_as_what_cannot_be_read() -> None:
    """The error is a breach of protocol, not a RecursionError."""
    with pytest.raises(ValueError, match="nests deeper than"):
        decode_envelope(b'{"op":0,"t":"X","s":1,"d":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
