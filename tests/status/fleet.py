"""Run a plane of hundreds of shards on in-memory connections."""

from __future__ import annotations

from discorder.rest import GatewayInfo, SessionStartLimit
from discorder.wire import Op
from tests.harness import Exchange, Line, Stage

GUILDS = [{"id": str(number), "unavailable": True} for number in range(1000)]


class Fleet(Exchange):
    """Connections of ``count`` shards. ``concurrency``: the shards that may identify at once, all by default."""

    def __init__(self, count: int, *, concurrency: int | None = None) -> None:
        super().__init__()
        self.count = count
        self.concurrency = concurrency or count
        self.by_shard: dict[int, Line] = {}

    def dial(self, shard: tuple[int, int]) -> Line:
        line = self.by_shard[shard[0]] = super().dial(shard)
        return line

    async def look_up(self) -> GatewayInfo:
        await self.answers.wait()
        limit = SessionStartLimit(
            total=1000 * self.count,
            remaining=1000 * self.count,
            reset_after_ms=86_400_000,
            max_concurrency=self.concurrency,
        )
        return GatewayInfo(url=self.url, shards=self.count, session_start_limit=limit)


async def all_ready(stage: Stage, fleet: Fleet) -> None:
    """Play the gateway until every shard is Ready, with a thousand guilds each."""
    await stage.until(lambda: len(fleet.by_shard) == fleet.count)
    for line in fleet.by_shard.values():
        line.hello()
    await stage.until(lambda: all(line.ops(Op.IDENTIFY) for line in fleet.by_shard.values()))
    for shard, line in fleet.by_shard.items():
        ready = {"session_id": f"s{shard}", "resume_gateway_url": "ws://resume.test", "guilds": GUILDS}
        line.feed(line.dispatched("READY", ready))
    await stage.until(lambda: stage.tracker.progress.complete)
