"""Check IDENTIFY and RESUME, and decide where the stream of a session begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from discorder.config.intents import intent_names
from discorder.event_intents import ALL, GUILDS
from discorder.facade.clients import UNKNOWN_CLIENT, Client, Clients
from discorder.facade.places import Place
from discorder.facade.session_id import FacadeSession, decode_session, new_tag
from discorder.guilds.feed import Feed, NotHeld, Snapshot
from discorder.logs import logger
from discorder.wire import MAX_SEQ, StreamPosition

MAX_INTENTS = 2**53
LONGEST_LIBRARY = 40  # characters of a library's name that are shown


class Refused(Exception):
    """The connection is closed with ``code`` and a reason for the bot. ``remedy`` is for the log."""

    def __init__(self, code: int, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.remedy = remedy


class Unresumable(Exception):
    """A RESUME of the bot ``client`` is answered with op 9. ``shard``: None if its session id names none."""

    def __init__(self, reason: str, client: str, shard: int | None) -> None:
        super().__init__(reason)
        self.client = client
        self.shard = shard


@dataclass(frozen=True, slots=True)
class Identify:
    """A checked IDENTIFY. ``shard`` is (id, count); ``library`` is what the bot says of itself."""

    client: Client
    shard: tuple[int, int]
    intents: int
    library: str
    presence: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Resume:
    """A RESUME of a session that this façade has made. ``seq`` is Discord's, of the last event that the bot has."""

    client: Client
    session: FacadeSession
    seq: int


def check_identify(d: Any, clients: Clients) -> Identify:
    """Return the IDENTIFY. Raises `Refused`."""
    fields = d if isinstance(d, Mapping) else {}
    client = _client(fields, clients)
    shard = fields.get("shard", [0, 1])
    if not (isinstance(shard, list) and len(shard) == 2 and all(type(one) is int and one >= 0 for one in shard)):
        raise Refused(4010, "shard must be [id, count]")
    intents = fields.get("intents")
    if type(intents) is not int or not 0 <= intents <= MAX_INTENTS:
        raise Refused(4013, "intents must be a number")
    properties, presence = fields.get("properties"), fields.get("presence")
    library = ""
    if isinstance(properties, Mapping):
        library = str(properties.get("browser") or properties.get("$browser") or "")[:LONGEST_LIBRARY]
    known = intents & ALL  # bits without a name bring no events; interactions.py asks for one
    return Identify(client, (shard[0], shard[1]), known, library, presence if isinstance(presence, Mapping) else None)


def check_layout(identify: Identify, feed: Feed) -> None:
    """Raise `Refused` unless this control plane runs the shard and gets the events. The layout must be known."""
    layout = feed.layout
    assert layout is not None  # noqa: S101  # the caller has waited for it
    ids, count = layout
    shard = identify.shard
    if shard[1] != count:
        raise Refused(
            4010,
            f"the control plane has {count} {'shard' if count == 1 else 'shards'}, not {shard[1]}",
            f"set the bot's shard count to {count}, or let it ask GET /gateway/bot",
        )
    if shard[0] not in ids:
        raise Refused(
            4010,
            f"shard {shard[0]} is not run by this control plane",
            f"this process runs the shards {', '.join(map(str, ids))}; connect to the one that runs shard {shard[0]}",
        )
    missing = identify.intents & ~feed.intents
    if missing:
        names, rest = intent_names(missing)
        shown = ", ".join([*names, *([str(rest)] if rest else [])])
        raise Refused(
            4014,
            f"the control plane has not the intents {shown}",
            f"add them to gateway.intents and restart the control plane, or take them from the bot: {shown}",
        )


def check_resume(d: Any, clients: Clients, key: bytes) -> Resume:
    """Return the RESUME. Raises `Refused` for an unknown token, `Unresumable` for a session that is not the bot's."""
    fields = d if isinstance(d, Mapping) else {}
    client = _client(fields, clients)
    session_id, seq = fields.get("session_id"), fields.get("seq")
    session = decode_session(session_id, key, client.name) if isinstance(session_id, str) else None
    if session is None:
        msg = "its session id is not from this façade, or not of this bot"
        raise Unresumable(msg, client.name, None)
    if type(seq) is not int or not 0 <= seq <= MAX_SEQ:
        msg = "its seq is not a number"
        raise Unresumable(msg, client.name, session.shard[0])
    if seq < session.burst_end:
        msg = "it had not got all guilds yet"
        raise Unresumable(msg, client.name, session.shard[0])
    return Resume(client, session, seq - session.shift)


def check_held(resume: Resume, feed: Feed) -> None:
    """Raise `Unresumable` unless the session can go on. The layout must be known."""
    reason = _why_not_held(resume, feed)
    if reason is not None:
        raise Unresumable(reason, resume.client.name, resume.session.shard[0])


def _why_not_held(resume: Resume, feed: Feed) -> str | None:
    layout, shard = feed.layout, resume.session.shard
    end = feed.end(shard[0])
    if layout is None or layout[1] != shard[1] or shard[0] not in layout[0]:
        return f"shard {shard[0]} of {shard[1]} is not run by this control plane"
    if resume.session.intents & ~feed.intents:
        return "the control plane has fewer intents than at its IDENTIFY"
    if end is None or end.session != resume.session.label:
        return "Discord's session has ended meanwhile"
    if resume.seq > end.seq:
        return "it has later events than the journal"
    if _held_from(feed, shard[0], StreamPosition(end.session, resume.seq), end.seq) > resume.seq:
        return "the events that it missed are not held any more; more of them are with a larger facade.ring_bytes"
    return None


def begin_session(identify: Identify, feed: Feed, snapshot: Snapshot, place: Place | None) -> FacadeSession:
    """Return the new session. ``place``: where the bot was cut off, None for one that is not to catch up."""
    end = snapshot.place.seq
    start = end
    if place is not None:
        wanted = cut_off_at(place, snapshot.place)
        start = _held_from(feed, identify.shard[0], StreamPosition(snapshot.place.session, wanted), end)
        if start > wanted:
            logger.warning(
                "A bot was away for longer than its events are kept; raise facade.ring_bytes or ring_seconds",
                client=identify.client.name,
                shard=identify.shard[0],
                not_sent=start - wanted,
            )
    guilds = len(snapshot.guilds.states) if identify.intents & GUILDS else 0
    return FacadeSession(
        shard=identify.shard,
        label=snapshot.place.session,
        shift=guilds + 1 - start,
        start=start,
        folded=end,
        intents=identify.intents,
        tag=new_tag(),
    )


def cut_off_at(place: Place, end: StreamPosition) -> int:
    """Return the sequence up to which a bot has the events of the session that is at ``end``; 0 if it has none of them."""
    return min(place.position.seq, end.seq) if place.position.session == end.session else 0


def _client(fields: Mapping[str, Any], clients: Clients) -> Client:
    client = clients.find(fields.get("token"))
    if client is None:
        raise Refused(
            4004,
            "this is no token of the façade",
            UNKNOWN_CLIENT,
        )
    return client


def _held_from(feed: Feed, shard: int, position: StreamPosition, end: int) -> int:
    """Return the sequence of ``position``, or the next one after which all events up to ``end`` are held."""
    try:
        feed.entries(shard, position, 1)
    except NotHeld as error:
        return end if error.held_after is None else error.held_after
    return position.seq
