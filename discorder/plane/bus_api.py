"""Answer what programs on the bus request of the control plane: commands, the last READY, the guilds; and take reports."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from discorder.facade.reports import FacadeReports
from discorder.guilds.feed import Feed
from discorder.outbound.outbound import Outbound
from discorder.tracking.shard_tracker import ShardTracker
from discorder.wire import Event


class PlaneBusApi:
    """Answers the requests to the control plane. ``shards`` returns the present ones."""

    def __init__(
        self,
        outbound: Outbound,
        shards: Callable[[], Sequence[ShardTracker]],
        feed: Feed | None,
        reports: FacadeReports,
    ) -> None:
        self.feed = feed
        self._outbound = outbound
        self._shards = shards
        self._reports = reports

    async def command(
        self, name: str, d: Any, *, shard: int | None, guild_id: int | str | None, wait_s: float = 0.0
    ) -> Mapping[str, object]:
        """See `BusApi`.

        A request for members is answered with its nonce, which every chunk carries. A presence that Discord's limit of five in
        20 s delays is answered with ``deferred``, in seconds: a newer one takes its place, so that the last of a burst is shown.
        """
        if name == "presence":
            deferred = await self._outbound.show_presence(d, shard=shard)
            return {"deferred": round(deferred, 3)} if deferred else {}
        fields = {}
        if name == "members" and isinstance(d, Mapping):
            fields["nonce"] = d.get("nonce") or secrets.token_hex(8)
            d = {**d, **fields}
        await self._outbound.command(name, d, shard=shard, guild_id=guild_id, timeout=wait_s)
        return fields

    def take_report(self, door: str, part: int, parts: int, status: bytes) -> None:
        """See `BusApi`."""
        self._reports.take(door, part, parts, status)

    def last_ready(self, shard: int) -> Event | None:
        """See `BusApi`."""
        return next((one.ready for one in self._shards() if one.shard_id == shard), None)
