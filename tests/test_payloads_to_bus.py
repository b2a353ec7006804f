"""All sample frames travel from the simulator's socket to a ZeroMQ subscriber, and arrive byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import discorder
from discorder.config import load_config
from discorder.control_plane import serve_config
from discorder.publishers.zeromq import ZmqPublisher
from discorder.rest import BotClient
from discorder.simulator import Simulator
from discorder.wire import ReceivedEvent

SECONDS = 40.0  # READY and RESUMED in the middle of a session are breaches: each costs a restart


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(guilds=1, keep_documents=True) as simulator:
        yield simulator


@pytest.mark.parametrize("compress", ["zlib-stream", "zstd-stream", "payload", "none"])
async def test_all_135_payloads_arrive_byte_identical(sim: Simulator, compress: str) -> None:
    ref = discorder.TrackerRef()
    settings = [
        f"gateway.api={sim.api_url}",
        f"gateway.compress={compress}",
        "session.store=",
        "publishers.zmq.bind=tcp://127.0.0.1:0",
        "log.level=error",
    ]
    serving = serve_config(lambda: load_config(None, settings), client=BotClient(sim.token), tracker_ref=ref)
    plane = asyncio.create_task(serving)
    try:
        tracker = await ref.ready(timeout=SECONDS)
        (bus,) = (publisher for publisher in tracker.publishers if isinstance(publisher, ZmqPublisher))
        async with discorder.subscribe(bus.endpoints[0]) as events:
            while bus.subscriptions == 0:  # noqa: ASYNC110  # ZeroMQ tells of a subscription when asked
                await asyncio.sleep(0.01)
            before = len(sim.sent_documents)
            await sim.play_all_payloads()
            wanted = [(sent.seq, sent.type, sent.data) for sent in sim.sent_documents[before:]]
            received = []
            async with asyncio.timeout(SECONDS):
                async for event in events:
                    assert isinstance(event, ReceivedEvent), event
                    received.append((event.seq, event.type, event.data))
                    if event.seq == wanted[-1][0]:
                        break
    finally:
        plane.cancel()
        await asyncio.gather(plane, return_exceptions=True)
    played = [entry for entry in received if entry in wanted]
    assert len(wanted) == 135
    assert played == wanted
    assert sim.identifies == 1
