"""Show what a simulator has seen and sent: the read-only half of its public API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from discorder.clock import Clock
from discorder.simulator.gateway import SimulatedGateway
from discorder.simulator.records import Close, Frame, Records, RestRequest, SentDocument, Violation
from discorder.simulator.world import World


class Observed:
    """Each list is the live one, its oldest entry first."""

    def __init__(self, gateway: SimulatedGateway, records: Records, world: World, clock: Clock) -> None:
        self._gateway = gateway
        self._records = records
        self._world = world
        self._clock = clock

    @property
    def connects(self) -> int:
        """Upgrades that were accepted."""
        return self._records.connects

    @property
    def refused_upgrades(self) -> int:
        return self._records.refused_upgrades

    @property
    def identifies(self) -> int:
        """IDENTIFYs received, refused ones included."""
        return self._records.identifies

    @property
    def resumes(self) -> int:
        """RESUMEs received, refused ones included; `resumed` counts those that were answered by RESUMED."""
        return self._records.resumes

    @property
    def resumed(self) -> int:
        return self._records.resumed

    @property
    def frames_received(self) -> int:
        """Client frames, heartbeats and garbage included."""
        return self._records.frames_received

    @property
    def remaining(self) -> int:
        """IDENTIFYs left in the 24 h window, as in ``GET /gateway/bot``."""
        return self._gateway.gate.remaining(self._clock.monotonic())

    @property
    def sent(self) -> list[tuple[str, int, str]]:
        """(session id, seq, type) of every dispatch to a session, with a socket or without."""
        return self._records.sent

    @property
    def sent_documents(self) -> list[SentDocument]:
        """The same with the bytes of ``d``; filled under ``keep_documents`` only."""
        return self._records.sent_documents

    @property
    def received(self) -> list[Frame]:
        """Decoded client frames; the token reads ``"<token>"``."""
        return self._records.received

    @property
    def closes(self) -> list[Close]:
        """Connections that ended, and how."""
        return self._records.closes

    @property
    def violations(self) -> list[Violation]:
        """Violations of Discord's limits by clients."""
        return self._records.violations

    @property
    def rest_requests(self) -> list[RestRequest]:
        return self._records.rest_requests

    @property
    def sessions(self) -> list[str]:
        """Ids of the live sessions, with a socket or without."""
        return list(self._gateway.sessions)

    @property
    def open_connections(self) -> int:
        """The number of open sockets, including stalled ones."""
        return len(self._gateway.open_clients())

    @property
    def connected_shards(self) -> list[int]:
        """Ids of the shards whose session has an open socket, each once."""
        return sorted({client.shard for client in self._gateway.open_clients() if client.shard is not None})

    @property
    def guild_ids(self) -> list[int]:
        return [self._world.guild_id(index) for index in range(self._world.count)]

    async def wait_for(self, predicate: Callable[[], object], timeout: float = 5.0) -> None:
        """Return once ``predicate()``, called after each change of the above, is true.

        Raises TimeoutError after ``timeout`` seconds of real time, whatever the clock.
        """
        async with asyncio.timeout(timeout):
            await self._records.wait_for(predicate)
