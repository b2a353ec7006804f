"""Follow a change of ``log.events`` while the plane runs."""

from __future__ import annotations

import contextlib

from discorder.config import Config
from discorder.config.schema import EVENT_LOG
from discorder.errors import NotRunning
from discorder.publishers import registry
from discorder.publishers.delivery.fanout import FanOut


def follow_events(fan_out: FanOut, before: Config, after: Config) -> None:
    """Add or remove the publisher that writes events to the log, as the two configurations differ."""
    had, tables = EVENT_LOG in before.publisher_tables(), after.publisher_tables()
    with contextlib.suppress(NotRunning, ValueError):  # the plane ends; or the program has added or removed it itself
        if EVENT_LOG in tables and not had:
            publisher, options = registry.build(EVENT_LOG, tables[EVENT_LOG])
            fan_out.add(publisher, options)
        elif had and EVENT_LOG not in tables:
            fan_out.remove(EVENT_LOG)
