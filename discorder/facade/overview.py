"""Describe the bots of a façade for its status."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter

from discorder.facade.clients import REAL, Client
from discorder.facade.live import FacadeServices
from discorder.tracking.facade_status import FacadeClientStatus, FacadeSessionStatus, FacadeStatus

LONGEST_REASON = 200  # characters of a refusal, which may list intents


def describe_bots(services: FacadeServices, url: str, opened_at: float) -> FacadeStatus:
    """Return the sessions that have a connection, and the bots that may connect.

    ``url``: where the façade listens; ``opened_at``: since when, in seconds since the epoch.

    Thread-safe. Costs a few microseconds per session.
    """
    now = services.now()
    sessions = [one.status(now, url) for one in services.live.all()]
    sessions.sort(key=attrgetter("client", "shard"))
    by_client = {name: list(of_one) for name, of_one in groupby(sessions, attrgetter("client"))}
    clients = [
        _client(services, one, max(0.0, now - opened_at), by_client.get(one.name, ())) for one in services.clients
    ]
    return FacadeStatus(
        url,
        tuple(sessions),
        tuple(one for one in clients if one.name != REAL or one.seen_at is not None),
    )


def _client(
    services: FacadeServices, client: Client, open_for: float, sessions: Sequence[FacadeSessionStatus]
) -> FacadeClientStatus:
    now = services.now()
    seen_at = now if sessions else services.places.seen_at(client.name)
    total = services.counts.total(client.name)
    return FacadeClientStatus(
        name=client.name,
        sessions=len(sessions),
        lag=max((one.lag for one in sessions), default=0),
        lag_s=max((one.lag_s for one in sessions), default=0.0),
        seen_at=None if seen_at is None else datetime.fromtimestamp(seen_at, UTC),
        away_s=max(0.0, min(open_for, now - (seen_at or 0.0))),
        catch_up=client.catch_up,
        identifies=total.identifies,
        resumes=total.resumes,
        invalid_sessions=total.invalid_sessions,
        refused=services.counts.refused.get(client.name, "")[:LONGEST_REASON],
    )
