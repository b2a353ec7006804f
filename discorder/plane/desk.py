"""Where those who read the bus ask the control plane: their commands, and the last READY. See `publishers.protocol.Desk`."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from discorder.outbound.outbound import Outbound
from discorder.tracking.shard_tracker import ShardTracker
from discorder.wire import Event

NOW = 0.0  # seconds that a command may wait: the other process is told instead, and can wait by itself


class PlaneDesk:
    """The desk of one control plane. ``shards`` are those that it has at the moment."""

    def __init__(self, outbound: Outbound, shards: Callable[[], Sequence[ShardTracker]]) -> None:
        self._outbound = outbound
        self._shards = shards

    async def command(
        self, name: str, d: Any, *, shard: int | None, guild_id: int | str | None
    ) -> Mapping[str, object]:
        """See `Desk`. A request for members is told its nonce: each chunk, an event like any other, bears it."""
        told = {}
        if name == "members" and isinstance(d, Mapping):
            told["nonce"] = d.get("nonce") or secrets.token_hex(8)
            d = {**d, **told}
        await self._outbound.command(name, d, shard=shard, guild_id=guild_id, timeout=NOW)
        return told

    def last_ready(self, shard: int) -> Event | None:
        """See `Desk`."""
        return next((one.ready for one in self._shards() if one.shard_id == shard), None)
