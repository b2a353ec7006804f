"""Take over the guilds of shards that another journal keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from discorder.errors import PublisherError
from discorder.guilds import ShardGuilds
from discorder.publishers.journal.loading import Loaded
from discorder.publishers.journal.shard import JournaledShard
from discorder.publishers.journal.snapshots import Snapshots
from discorder.wire import StreamPosition

Shard = tuple[int, int]


class PackedGuilds(NamedTuple):
    """The guilds of a shard in the form of `GuildsSnapshot.pack`; they contain every event up to ``place``."""

    place: StreamPosition
    packed: Iterable[bytes]


async def replace_shards(
    loaded: Loaded, snapshots: Snapshots, states: Mapping[Shard, PackedGuilds], new_guilds: Callable[[], ShardGuilds]
) -> None:
    """Replace the shards and write a snapshot, without which a restart would join later events to the older guilds.

    Raises PublisherError, and ValueError for guilds that are not packed as they should be.
    """
    if snapshots.saving is not None:
        await asyncio.wait([snapshots.saving])
    for shard, (place, packed) in states.items():
        guilds = new_guilds()
        guilds.load(packed)
        replaced = JournaledShard(shard, guilds)
        replaced.continue_from(place)
        loaded.shards[shard[0]] = replaced
    written = snapshots.begin(loaded)
    await asyncio.wait([written])
    if not written.result():
        msg = "the guilds that were taken over cannot be written"
        raise PublisherError(msg)
