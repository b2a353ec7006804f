"""Write the notes of a control plane: problems that affect no session now but need the operator's attention."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from discorder.publishers.delivery.health import PublisherHealth
from discorder.runtime.watchdog import LoopLag
from discorder.sessions import Budget, Health, OtherUse
from discorder.tracking.facade_status import FacadeSessionStatus, FacadeStatus

NOTED_BOT_LAG = 10.0  # seconds that the oldest event waits for a bot
NOTED_AWAY = 60.0  # seconds: no note during a redeployment of a bot that does not catch up


class NoteKind(StrEnum):
    """What a note is about."""

    BUDGET = "budget"
    TOKEN = "token"  # noqa: S105  # a kind of note
    PUBLISHER = "publisher"
    STORE = "store"
    LOOP = "loop"
    LOOK_UP = "look_up"
    BOT = "bot"


@dataclass(frozen=True, slots=True)
class Note:
    """One problem: a ``title`` that stays the same while it lasts, and ``text``, a sentence with details and the remedy."""

    kind: NoteKind
    title: str
    text: str


def parked(health: PublisherHealth) -> Note:
    """Return the note on a publisher that is parked."""
    text = (
        f"publisher {health.name} is parked{_last_error(health)}; its events are dropped until a retry succeeds, "
        f"{health.dropped} so far: repair what it writes to"
    )
    return Note(NoteKind.PUBLISHER, f"Publisher {health.name} is parked", text)


def lagging(health: PublisherHealth) -> Note:
    """Return the note on a required publisher that accepts no events."""
    text = (
        f"publisher {health.name} ({health.state}) has not accepted an event for {health.lag:.0f} s"
        f"{_last_error(health)}; it is required, so the resume point waits for it"
    )
    return Note(NoteKind.PUBLISHER, f"Publisher {health.name} accepts no events", text)


def store_trouble(health: Health) -> Note:
    """Return the note on a session store that is not in order."""
    return Note(NoteKind.STORE, "The session store is not in order", health.reason)


def shared_token(other: OtherUse) -> Note:
    """Return the note on another process that spends IDENTIFYs of this bot."""
    text = (
        f"another process uses this token: {other.identifies} IDENTIFYs that this store does not count, "
        f"last seen at {other.seen_at.isoformat(timespec='seconds')}"
    )
    return Note(NoteKind.TOKEN, "Another process uses this token", text)


def look_up_fails(trouble: str) -> Note:
    """Return the note on a look-up of the gateway that has no answer."""
    return Note(NoteKind.LOOK_UP, "The look-up of the gateway fails", trouble)


def no_guilds(shards: Sequence[int]) -> Note:
    """Return the note on shards whose guilds the journal does not have, while the budget allows no new session."""
    text = (
        f"the journal has no guilds of {'shard' if len(shards) == 1 else 'shards'} {', '.join(map(str, shards))}, and the "
        "identify budget allows no new session now: the façade serves no bot there until it does; other publishers miss nothing"
    )
    return Note(NoteKind.BUDGET, "The guilds of some shards are not known", text)


def no_facade(facade: FacadeStatus, configured: Collection[str]) -> Iterator[Note]:
    """Yield a note if the configuration has bots and no façade serves them."""
    if configured and facade.url is None and facade.absent_s > NOTED_AWAY:
        text = (
            f'no façade serves {", ".join(configured)}: facade.bind is "", and no `discorder facade` has reported for '
            f"{facade.absent_s:.0f} s; start it, or set facade.bind"
        )
        yield Note(NoteKind.BOT, "No façade serves the bots", text)


def bots_behind(facade: FacadeStatus) -> Iterator[Note]:
    """Yield a note for each bot that is connected to the façade and does not keep up."""
    slow: dict[str, list[FacadeSessionStatus]] = {}
    for session in facade.sessions:
        if session.lag_s >= NOTED_BOT_LAG:
            slow.setdefault(session.client, []).append(session)
    for client, sessions in slow.items():
        worst = max(sessions, key=lambda one: one.lag_s)
        others = len(sessions) - 1
        more = f", and on {others} other shard{'' if others == 1 else 's'}" if others else ""
        text = (
            f"bot {client} has yet to get events of shard {worst.shard} that are {worst.lag_s:.0f} s old, {worst.lag:,} of them"
            f"{more}: its process is too slow, or blocked; it misses nothing while the journal has them (facade.ring_seconds, "
            "facade.ring_bytes)"
        )
        yield Note(NoteKind.BOT, f"Bot {client} does not keep up", text)


def bots_away(facade: FacadeStatus, configured: Collection[str]) -> Iterator[Note]:
    """Yield a note for each bot of the configuration that has had no session for longer than it catches up."""
    for client in facade.clients:
        if client.name not in configured or client.away_s <= max(client.catch_up, NOTED_AWAY):
            continue
        away = "has not been connected since the façade was opened, or for hours"
        if client.seen_at is not None:
            away = (
                f"was last connected at {client.seen_at.isoformat(timespec='seconds')}; what it has missed since then it gets "
                f"within {client.catch_up:g} s only (facade.clients.{client.name}.catch_up)"
            )
        remedy = f"start it, or remove [facade.clients.{client.name}] if there is no such bot"
        if client.refused:
            remedy = f"the façade refused it with {client.refused}"
        text = f"bot {client.name} {away}: {remedy}"
        yield Note(NoteKind.BOT, f"Bot {client.name} is not connected", text)


def _last_error(health: PublisherHealth) -> str:
    return f", last error: {health.last_error}" if health.last_error else ""


def few_identifies(budget: Budget, shards: int) -> Note:
    """Return the note on a budget that does not suffice to identify each shard once."""
    text = (
        f"{budget.spendable} IDENTIFYs may be spent, for {shards} {'shard' if shards == 1 else 'shards'}: {budget}; "
        "RESUME costs none"
    )
    return Note(NoteKind.BUDGET, "Few IDENTIFYs may be spent", text)


def slow_loop(lag: LoopLag) -> Note:
    """Return the note on an event loop that is held up."""
    text = (
        f"the event loop is {lag.now:.1f} s late, at most {lag.worst:.1f} s so far: something in this process blocks it"
    )
    return Note(NoteKind.LOOP, "The event loop is slow", text)
