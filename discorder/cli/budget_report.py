"""Collect the identify budget for `discorder budget`, and format it. Never writes to the store, never shows a token."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from discorder.cli.journal import is_empty, journal_directory
from discorder.cli.wording import counted, moment, span
from discorder.clock import SystemClock
from discorder.config import Config, Gateway
from discorder.daemon_thread import in_daemon_thread
from discorder.errors import AuthenticationFailed, DiscorderError, GatewayUnreachable, StoreUnavailable
from discorder.plane.session_persistence import Layout, start_limit
from discorder.plane.shard_factory import configured_layout
from discorder.rest import BotClient, GatewayInfo
from discorder.sessions import (
    SPACING,
    Budget,
    ColdStart,
    Ledger,
    Reading,
    Refusal,
    StoredSession,
    bot_key,
    fitting,
    read_store,
    store_path,
    token_key,
)

ANSWER_SECONDS = 10.0  # seconds for Discord's answer


@dataclass(frozen=True, slots=True)
class Survey:
    """The result of `survey`.

    ``path`` is None for a store in memory, ``discord`` without an answer. ``known`` is the budget by the store alone, None
    before its first look-up; ``budget`` takes Discord's answer in. ``to_identify``: shards without a session to resume.
    ``lacks_guilds``: the journal of the façade is empty, so that each shard that is resumed identifies as well.
    """

    at: datetime
    bot: str
    path: Path | None
    discord: GatewayInfo | None
    known: Budget | None
    budget: Budget
    layout: Layout
    cold: ColdStart
    to_identify: tuple[int, ...]
    lacks_guilds: bool
    notes: tuple[str, ...]

    @property
    def identifies(self) -> int:
        """How many IDENTIFYs a start now costs."""
        return len(self.layout[0] if self.lacks_guilds else self.to_identify)

    def sentences(self) -> Iterator[str]:
        """Yield the conclusions as sentences."""
        cold, (ids, count) = self.cold, self.layout
        which = counted(count, "shard") if len(ids) == count else f"{len(ids)} of {count} shards"
        pace = (
            "at once" if cold.rounds <= 1 else f"in {cold.rounds} rounds of {SPACING:g} s, {cold.seconds:.0f} s in all"
        )
        yield f"A cold start now ({which}) costs {counted(cold.identifies, 'IDENTIFY')}, {pace}."
        if isinstance(cold.answer, Refusal):
            until = moment(cold.answer.until, self.at)
            yield f"The ledger would pay for {cold.paid} of them and park the rest until {until}: {cold.answer.reason}."
        resumable = cold.identifies - len(self.to_identify)
        if resumable:
            left = counted(self.identifies, "IDENTIFY")
            why = ", since the journal of the façade has no guilds of them yet" if self.lacks_guilds else ""
            yield f"With the stored sessions {counted(resumable, 'shard')} would be resumed: {left} then{why}."
        if self.budget.foreign:
            spent = counted(self.budget.foreign, "IDENTIFY")
            yield f"Another process uses this token: {spent} since the last look-up were not paid for from this store."
        yield from self.notes


async def survey(config: Config, token: str) -> Survey:
    """Read the store and request Discord's numbers.

    Raises AuthenticationFailed, and GatewayUnreachable if neither has a budget.
    """
    clock, bot, notes = SystemClock(), bot_key(token), list[str]()
    path = store_path(config.session.store, bot)
    reading = await in_daemon_thread(lambda: _read(path, bot, notes), "read-store")
    asked_at = clock.now().timestamp()
    info = await _ask(token, config.gateway, notes)
    at = clock.now()
    now = at.timestamp()
    stored = reading.ledger.tidied(now)
    ledger = stored if info is None else stored.reconciled(start_limit(info), at=asked_at, now=now)
    if ledger.look_up is None:
        msg = "there is no identify budget to show: " + " ".join(notes)
        raise GatewayUnreachable(msg)
    ids, count = _layout(config, info, reading.sessions, notes)
    journal = journal_directory(config, token)
    resumable = fitting(reading.sessions, count, config.gateway.intents_value, token_key(token))
    return Survey(
        at=at,
        bot=bot[:16],
        path=path,
        discord=info,
        known=None if stored.look_up is None else stored.budget(now, count),
        budget=ledger.budget(now, count),
        layout=(ids, count),
        cold=ledger.cold_start(ids, now, count),
        to_identify=tuple(shard for shard in ids if shard not in resumable),
        lacks_guilds=journal is not None and await in_daemon_thread(lambda: is_empty(journal), "look-at-journal"),
        notes=tuple(notes),
    )


def _read(path: Path | None, bot: str, notes: list[str]) -> Reading:
    nothing = Reading((), Ledger())
    if path is None:
        notes.append('Sessions and ledger are kept in memory only (session.store = ""): nothing outlives the process.')
        return nothing
    try:
        return read_store(path, bot)
    except StoreUnavailable as error:
        notes.append(f"{_sentence(str(error))}.")
        return nothing


async def _ask(token: str, gateway: Gateway, notes: list[str]) -> GatewayInfo | None:
    try:
        client = BotClient(token, api=gateway.api, proxy=gateway.proxy, trust_env=gateway.trust_env)
        async with asyncio.timeout(ANSWER_SECONDS), client:
            return await client.gateway_bot(tries=1, waits=False)
    except AuthenticationFailed:
        raise
    except TimeoutError:
        notes.append(f"Discord did not answer within {ANSWER_SECONDS:g} s.")
    except DiscorderError as error:
        notes.append(f"Discord could not be asked: {error}.")
    return None


def _layout(config: Config, info: GatewayInfo | None, sessions: Sequence[StoredSession], notes: list[str]) -> Layout:
    """Return the configured layout; otherwise Discord's, that of the newest stored session, or one shard."""
    configured = configured_layout(config)
    if configured is not None:
        return configured
    if info is not None:
        return range(info.shards), info.shards
    if sessions:
        count = max(sessions, key=lambda session: session.updated_at).shard_count
        notes.append(f"How many shards there are is for Discord to say; the last start had {count}.")
    else:
        count = 1
        notes.append("How many shards there are is for Discord to say; this is the cost of one.")
    return range(count), count


# ---------------------------------------------------------------- shown


def as_table(found: Survey) -> Table:
    """Return a table of Discord's numbers beside those of the store."""
    table = Table(title=f"Identify budget of bot {found.bot}", title_justify="left")
    table.add_column("")
    table.add_column("Discord says", justify="right")
    table.add_column("this store knows", justify="right")
    limit = None if found.discord is None else found.discord.session_start_limit
    budget, known = found.budget, found.known
    for label, theirs, ours in (
        ("total", limit and limit.total, known and known.total),
        ("remaining", limit and limit.remaining, known and known.remaining),
        ("whole again", limit and _until(budget, found.at), known and _until(known, found.at)),
        ("identified here in 24 h", None, budget.spent_here),
        ("kept in reserve", None, budget.reserve),
        ("may be spent now", None, budget.spendable),
        ("identify buckets", limit and limit.max_concurrency, None),
        ("last look-up", limit and "now", known and _age(found.at, known.looked_up_at)),
    ):
        table.add_row(label, _cell(theirs), _cell(ours))
    table.caption = f"store: {found.path or 'in memory'}"
    return table


def as_document(found: Survey) -> dict[str, Any]:
    """Return the result as plain JSON values, times in RFC 3339."""
    ids, count = found.layout
    cold, refusal = found.cold, found.cold.answer if isinstance(found.cold.answer, Refusal) else None
    document = {
        "bot": found.bot,
        "store": None if found.path is None else str(found.path),
        "discord": None
        if found.discord is None
        else {
            "shards": found.discord.shards,
            "total": found.discord.session_start_limit.total,
            "remaining": found.discord.session_start_limit.remaining,
            "reset_at": found.budget.reset_at,
            "max_concurrency": found.discord.session_start_limit.max_concurrency,
        },
        "known": found.known,
        "budget": found.budget,
        "start": {
            "shards": len(ids),
            "shard_count": count,
            "resumable": len(ids) - len(found.to_identify),
            "identifies": found.identifies,
        },
        "cold_start": {
            "identifies": cold.identifies,
            "rounds": cold.rounds,
            "seconds": cold.seconds,
            "paid": cold.paid,
            "refused_until": None if refusal is None else refusal.until,
            "reason": "" if refusal is None else refusal.reason,
        },
        "notes": found.notes,
    }
    plain: dict[str, Any] = msgspec.to_builtins(document)
    return plain


def _cell(value: object) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _until(budget: Budget, now: datetime) -> str:
    """Return when the window ends. Discord opens one with the first IDENTIFY (docs/protocol.md#connection)."""
    seconds = (budget.reset_at - now).total_seconds()
    return f"in {span(seconds)}" if seconds > 0 else "no window open"


def _age(now: datetime, moment: datetime) -> str:
    return f"{span((now - moment).total_seconds())} ago"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
