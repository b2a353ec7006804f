"""Describe the façade and its bots for the document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import nsmallest

from discorder.status.document import BotPart, BotSessionPart, FacadePart, moment
from discorder.tracking.facade_status import FacadeClientStatus, FacadeSessionStatus, FacadeStatus

MOST_SESSIONS = 64  # in the document, those that are furthest behind
MOST_LIBRARIES = 4  # of one bot; one has several while instances of it differ


def describe_facade(facade: FacadeStatus) -> FacadePart | None:
    """Return the façade; None while it is off."""
    if facade.url is None:
        return None
    by_client: dict[str, list[FacadeSessionStatus]] = {client.name: [] for client in facade.clients}
    for session in facade.sessions:
        by_client.setdefault(session.client, []).append(session)
    return FacadePart(
        url=", ".join(dict.fromkeys([facade.url, *(one.url for one in facade.sessions if one.url)])),
        bots=[_bot(client, by_client[client.name]) for client in facade.clients],
        sessions=[_session(one) for one in nsmallest(MOST_SESSIONS, facade.sessions, key=_by_lag)],
    )


def furthest_behind(sessions: Iterable[BotSessionPart]) -> list[BotSessionPart]:
    """Return at most `MOST_SESSIONS`: first those that lag, by seconds; then by bot and shard."""
    return nsmallest(MOST_SESSIONS, sessions, key=lambda one: (-one.lag_s, -one.lag_events, one.bot, one.shard))


def listed_libraries(names: Iterable[str]) -> list[str]:
    """Return the names of the libraries without those that are not known, each once, at most `MOST_LIBRARIES`."""
    return sorted({name for name in names if name})[:MOST_LIBRARIES]


def _by_lag(session: FacadeSessionStatus) -> tuple[float, int, str, int]:
    return -session.lag_s, -session.lag, session.client, session.shard


def _bot(client: FacadeClientStatus, sessions: Sequence[FacadeSessionStatus]) -> BotPart:
    return BotPart(
        name=client.name,
        libraries=listed_libraries(one.library for one in sessions),
        sessions=client.sessions,
        shards=sorted({one.shard for one in sessions}),
        since=moment(min(one.since for one in sessions)) if sessions else None,
        seen_at=None if sessions or client.seen_at is None else moment(client.seen_at),
        catch_up_s=client.catch_up,
        lag_events=client.lag,
        lag_s=round(client.lag_s, 3),
        identifies=client.identifies,
        resumes=client.resumes,
        invalid_sessions=client.invalid_sessions,
        refused=client.refused,
    )


def _session(one: FacadeSessionStatus) -> BotSessionPart:
    return BotSessionPart(
        bot=one.client,
        shard=one.shard,
        library=one.library,
        since=moment(one.since),
        session=one.position.session,
        seq=one.position.seq,
        lag_events=one.lag,
        lag_s=round(one.lag_s, 3),
        identifies=one.identifies,
        resumes=one.resumes,
        invalid_sessions=one.invalid_sessions,
    )
