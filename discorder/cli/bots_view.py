"""Show the bots of the façade in a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

import msgspec
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from discorder.cli.tables import plain_table
from discorder.cli.wording import counted, short_span, span
from discorder.status.shard_ranges import shard_ranges

OFF = 'No façade: facade.bind is "", and no `discorder facade` reports to this control plane.'
_LIBRARY = re.compile(r"([\w./@-]+) \(v?(\d[\w.+-]*)")  # as in "hikari (2.7.0, aiohttp 3.13.2)"


class BotView(msgspec.Struct):
    """One bot that may connect."""

    name: str
    libraries: list[str]
    sessions: int
    shards: list[int]
    since: datetime | None
    seen_at: datetime | None
    lag_events: int
    lag_s: float
    identifies: int
    resumes: int
    invalid_sessions: int
    refused: str


class BotSessionView(msgspec.Struct):
    """One session of a bot."""

    bot: str
    shard: int
    since: datetime
    seq: int
    lag_events: int
    lag_s: float
    identifies: int
    resumes: int
    invalid_sessions: int


class FacadeView(msgspec.Struct):
    """The façade."""

    url: str
    bots: list[BotView]
    sessions: list[BotSessionView]


def render_facade(facade: FacadeView | None, now: datetime) -> RenderableType:
    """Return the bots and their sessions at ``now``, or that there is no façade."""
    if facade is None:
        return OFF
    connected = sum(bot.sessions > 0 for bot in facade.bots)
    parts: list[RenderableType] = [
        escape(f"Façade at {facade.url}: {connected} of {counted(len(facade.bots), 'bot')} connected.")
    ]
    if facade.bots:
        parts += ["", bots_table(facade.bots, now)]
    parts += [escape(f"{bot.name} was refused with {bot.refused}") for bot in facade.bots if bot.refused]
    if facade.sessions:
        head = ("bot", "shard", "seq", "connected", "behind", "IDENTIFYs", "RESUMEs", "op 9s")
        parts += ["", plain_table(head, [_session(one, now) for one in facade.sessions])]
    more = sum(bot.sessions for bot in facade.bots) - len(facade.sessions)
    if more > 0:
        parts.append(f"and {counted(more, 'session')} that {'is' if more == 1 else 'are'} no further behind")
    return Group(*parts)


def bots_table(bots: Sequence[BotView], now: datetime) -> Table:
    """Return one row per bot."""
    head = ("bot", "library", "shards", "connected", "behind", "IDENTIFYs", "RESUMEs", "op 9s")
    return plain_table(head, [_bot(bot, now) for bot in bots])


def _bot(bot: BotView, now: datetime) -> tuple[str, ...]:
    counts = (f"{bot.identifies:,}", f"{bot.resumes:,}", f"{bot.invalid_sessions:,}")
    shards = shard_ranges(bot.shards)
    if bot.sessions > len(bot.shards):
        shards = f"{shards} ({counted(bot.sessions, 'session')})"
    behind = _behind(bot.lag_events, bot.lag_s) if bot.sessions else ""
    return (bot.name, ", ".join(map(_library, bot.libraries)), shards, _connected(bot, now), behind, *counts)


def _library(name: str) -> str:
    """Return name and version of a library, so that a row fits into 80 columns: hikari names those of its parts, too."""
    found = _LIBRARY.match(name)
    return name if found is None else f"{found[1]} {found[2]}"


def _connected(bot: BotView, now: datetime) -> str:
    if bot.since is not None:
        return f"for {_age(bot.since, now)}"
    return "not yet" if bot.seen_at is None else f"not for {_age(bot.seen_at, now)}"


def _session(one: BotSessionView, now: datetime) -> tuple[str, ...]:
    connected, behind = f"for {_age(one.since, now)}", _behind(one.lag_events, one.lag_s)
    counts = (f"{one.identifies:,}", f"{one.resumes:,}", f"{one.invalid_sessions:,}")
    return (one.bot, str(one.shard), str(one.seq), connected, behind, *counts)


def _behind(events: int, seconds: float) -> str:
    return f"{counted(events, 'event')}, {short_span(seconds)}" if events else "nothing"


def _age(since: datetime, now: datetime) -> str:
    return span((now - since).total_seconds())
