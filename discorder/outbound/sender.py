"""The way out of one shard for what a bot says: its outbox, and the answers that it collects."""

from __future__ import annotations

import random
from collections.abc import Callable

from discorder.clock import Clock
from discorder.outbound.members import MemberRequests, Watcher
from discorder.outbound.outbox import Outbox, Write
from discorder.stats import GatewayStats


class Sender:
    """Made and told by the shard's driver, asked by `outbound.Outbound`."""

    def __init__(
        self,
        shard_id: int,
        *,
        clock: Clock,
        rng: random.Random,
        stats: GatewayStats,
        watch: Callable[[Watcher | None], None],
    ) -> None:
        self.outbox = Outbox(shard_id, clock, stats)
        self.members = MemberRequests(self.outbox, clock=clock, rng=rng, watch=watch)

    def ready(self, write: Write, failed: Callable[[BaseException], None], *, new_session: bool) -> None:
        """The shard is Ready: see `Outbox.open`. What an old session still owed is asked for again in a new one."""
        self.outbox.open(write, failed, new_session=new_session)
        if new_session:
            self.members.session_lost()

    def close(self) -> None:
        """The shard has ended; who waits is told."""
        self.outbox.close()
        self.members.close()
