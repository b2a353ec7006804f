"""Describe the bots of a façade for its status."""

from __future__ import annotations

from datetime import UTC, datetime

from discorder.facade.clients import REAL, Client
from discorder.facade.live import FacadeServices, LiveSession
from discorder.tracking.facade_status import FacadeClientStatus, FacadeSessionStatus, FacadeStatus


def describe_bots(services: FacadeServices, url: str | None) -> FacadeStatus:
    """Return the sessions that have a connection, and the bots that may connect. ``url``: where the façade listens.

    Thread-safe. Costs a few microseconds per session.
    """
    sessions = [_session(one) for one in services.live.all()]
    connected = {one.client for one in sessions}
    clients = [_client(services, one, connected=one.name in connected) for one in services.clients]
    return FacadeStatus(
        url,
        tuple(sorted(sessions, key=lambda one: (one.client, one.shard))),
        tuple(one for one in clients if one.name != REAL or one.seen_at is not None),
    )


def _session(session: LiveSession) -> FacadeSessionStatus:
    counts = session.counts
    return FacadeSessionStatus(
        client=session.client_name,
        shard=session.shard_id,
        library=counts.library,
        position=session.position,
        lag=session.lag,
        lag_s=session.lag_seconds(),
        since=session.since,
        identifies=counts.identifies,
        resumes=counts.resumes,
        invalid_sessions=counts.invalid_sessions,
    )


def _client(services: FacadeServices, client: Client, *, connected: bool) -> FacadeClientStatus:
    seen_at = services.now() if connected else services.places.seen_at(client.name)
    total = services.counts.total(client.name)
    return FacadeClientStatus(
        name=client.name,
        seen_at=None if seen_at is None else datetime.fromtimestamp(seen_at, UTC),
        catch_up=client.catch_up,
        identifies=total.identifies,
        resumes=total.resumes,
        invalid_sessions=total.invalid_sessions,
    )
