"""Publish events to the log: one INFO line each, by standard logging under ``discorder.events``.

The control plane's log writes them to its file; the console shows them only where there is no file.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from discorder.publishers.options import DeliveryOptions
from discorder.wire import Event

logger = logging.getLogger("discorder.events")


class LogPublisher:
    """Log one line per event: type, shard, seq, size, session and the whole ``data``. Meant for development.

    The lines contain the texts of users and the tokens of interactions, but not the bot's token.
    """

    Options = DeliveryOptions
    durable = False

    def __init__(self, name: str = "log") -> None:
        self.name = name

    async def open(self) -> None:
        """Do nothing: the application configures the log handlers."""

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""

    async def publish(self, events: Sequence[Event]) -> None:
        """Log the batch."""
        self.publish_nowait(events)

    def publish_nowait(self, events: Sequence[Event]) -> int:
        """Log the batch; it is accepted even if INFO is off."""
        if logger.isEnabledFor(logging.INFO):
            for event in events:
                logger.info(
                    "%s shard=%d/%d seq=%s size=%d session=%s data=%s",
                    event.type,
                    *event.shard,
                    event.seq,
                    len(event.data),
                    event.session,
                    event.data.decode(errors="replace"),
                )
        return len(events)
