"""The bus in the document: who is connected, which topics are wanted, what the ring holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zmq

from discorder.simulator import Simulator
from tests.status.conftest import Watch

if TYPE_CHECKING:
    from tests.harness import StartStage


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:0", "ipc://{folder}/bus"])
async def test_connections_and_topics_come_and_go(
    sim: Simulator, start_stage: StartStage, watch: Watch, tmp_path: Path, address: str
) -> None:
    stage = start_stage(sim, f"publishers.zmq.bind={address.format(folder=tmp_path)}", "publishers.zmq.kind=zmq")
    watched = watch(stage)
    await stage.ready()
    bus = watched.document["bus"]
    assert (bus["connections"], bus["subscriptions"]) == ([], [])
    assert bus["ring"]["bytes"] > 0
    assert bus["ring"]["bytes_limit"] == 67_108_864
    context = zmq.Context()
    clients = [context.socket(zmq.SUB) for _ in range(2)]
    try:
        for client in clients:
            client.connect(bus["bind"])
            client.subscribe(b"MESSAGE_CREATE")
        clients[0].subscribe(b"GUILD_")
        await stage.until(lambda: len(watched.document["bus"]["subscriptions"]) == 2)
        await stage.until(lambda: watched.document["bus"]["subscriptions"][0]["count"] == 2)
        bus = watched.document["bus"]
        assert bus["subscriptions"] == [{"topic": "MESSAGE_CREATE", "count": 2}, {"topic": "GUILD_", "count": 1}]
        assert len(bus["connections"]) == 2
        start = "127.0.0.1:" if address.startswith("tcp") else "process "
        assert all(connection["peer"].startswith(start) for connection in bus["connections"])
        clients.pop(0).close(linger=0)
        await stage.until(lambda: watched.document["bus"]["subscriptions"] == [{"topic": "MESSAGE_CREATE", "count": 1}])
        await stage.until(lambda: len(watched.document["bus"]["connections"]) == 1)
    finally:
        context.destroy(linger=0)
    await stage.until(lambda: watched.document["bus"]["connections"] == [])


async def test_without_a_bus_it_is_null(sim: Simulator, start_stage: StartStage, watch: Watch) -> None:
    stage = start_stage(sim)
    watched = watch(stage)
    await stage.ready()
    assert watched.document["bus"] is None


async def test_requests_of_readers_are_counted(sim: Simulator, start_stage: StartStage, watch: Watch) -> None:
    stage = start_stage(sim, "publishers.zmq.bind=tcp://127.0.0.1:0", "publishers.zmq.kind=zmq")
    watched = watch(stage)
    await stage.ready()
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    try:
        dealer.connect(watched.document["bus"]["router_bind"])
        dealer.send(b'{"v": 1, "id": 7, "op": "positions"}')
        await stage.until(lambda: watched.document["bus"]["requests_total"] == 1)
    finally:
        context.destroy(linger=0)


async def test_topics_of_any_length_leave_room_for_the_others(
    sim: Simulator, start_stage: StartStage, watch: Watch, tmp_path: Path
) -> None:
    """One topic is far too long for the bus, which cuts its client; one is just too long to be an event's name."""
    stage = start_stage(sim, f"publishers.zmq.bind=ipc://{tmp_path}/bus", "publishers.zmq.kind=zmq")
    watched = watch(stage)
    await stage.ready()
    context = zmq.Context()
    clients = [context.socket(zmq.SUB) for _ in range(2)]
    try:
        for client, topics in zip(clients, ((b"x" * 100_000,), (b"y" * 80, b"MESSAGE_CREATE")), strict=True):
            client.connect(watched.document["bus"]["bind"])
            for topic in topics:
                client.subscribe(topic)
        await stage.until(lambda: len(watched.document["bus"]["subscriptions"]) == 2)
        shown = [one["topic"] for one in watched.document["bus"]["subscriptions"]]
    finally:
        context.destroy(linger=0)
    assert shown == ["MESSAGE_CREATE", f"{'y' * 63}…"]
