"""What happens to a broker and to the control plane in the middle of the events; and which bus has which story."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.buses.broker import Broker
from tests.buses.nats import NatsBroker, NatsCluster, SyncedNatsBroker
from tests.buses.scene import RATE, Scene, Story
from tests.buses.valkey import ValkeyBroker

STANDS_STILL = 8  # seconds: longer than the publishers wait for an answer


async def broker_killed(scene: Scene) -> None:
    """``kill -9`` of the broker, which comes back; twice."""
    for _ in range(2):
        await scene.events(100, 400)
        await scene.broker.kill()
        await scene.events(200, 600)
        await scene.broker.start()


async def broker_frozen(scene: Scene) -> None:
    """SIGSTOP of the broker, first for a moment, then for longer than the publisher waits."""
    for seconds in (0.5, STANDS_STILL):
        await scene.events(100, 300)
        await scene.broker.freeze()
        count = int(seconds * RATE)
        await scene.events(count, count)
        await scene.broker.thaw()


async def plane_killed(scene: Scene) -> None:
    """``kill -9`` of the control plane, three times. The next life resumes."""
    for _ in range(3):
        await scene.events(100, 400)
        await scene.kill_plane()
        await scene.start_plane()


async def both_killed(scene: Scene) -> None:
    """``kill -9`` of both at once, twice; either may be back first."""
    for _ in range(2):
        await scene.events(100, 400)
        await scene.broker.kill()
        await scene.kill_plane()
        await scene.events(50, 200)
        if scene.rng.random() < 0.5:
            await scene.start_plane()
            await scene.broker.start()
        else:
            await scene.broker.start()
            await scene.start_plane()


async def empty_disk(scene: Scene) -> None:
    """The broker comes back without its store. What it had is lost, and told."""
    scene.may_lose = True
    await scene.events(100, 400)
    await scene.broker.kill()
    await scene.broker.wipe()
    await scene.events(50, 200)
    await scene.broker.start()


async def empty_disk_and_plane_killed(scene: Scene) -> None:
    """The same, while the control plane is away: the next life knows from its store what was delivered."""
    scene.may_lose = True
    await scene.events(100, 400)
    await scene.broker.kill()
    await scene.kill_plane()
    await scene.broker.wipe()
    await scene.broker.start()
    await scene.start_plane()


STORIES: dict[str, Story] = {
    "broker killed": broker_killed,
    "broker frozen": broker_frozen,
    "plane killed": plane_killed,
    "both killed": both_killed,
    "empty disk": empty_disk,
    "empty disk and plane killed": empty_disk_and_plane_killed,
}


@dataclass(frozen=True, slots=True)
class Bus:
    """A broker and the names of its stories."""

    make: Callable[[Path], Broker]
    stories: tuple[str, ...]


BUSES: dict[str, Bus] = {
    "nats": Bus(NatsBroker, tuple(STORIES)),
    "nats, synced": Bus(SyncedNatsBroker, ("broker killed", "broker frozen", "both killed")),
    "nats, three servers": Bus(NatsCluster, ("broker killed", "broker frozen", "both killed")),
    "valkey": Bus(ValkeyBroker, tuple(STORIES)),
}
