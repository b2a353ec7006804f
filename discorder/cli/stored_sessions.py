"""Read the session store for `discorder sessions`, and drop a session that cannot be resumed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer

from discorder.clock import SystemClock
from discorder.config import load_config, read_token
from discorder.errors import StoreLocked, StoreUnavailable
from discorder.sessions import StoredSession, bot_key, read_store, store_path
from discorder.sessions.seal import Seal
from discorder.sessions.sqlite import SqliteSessionStore
from discorder.wire import session_label


def list_stored(config: Path | None, overrides: Sequence[str], *, as_json: bool) -> None:
    """Print the stored sessions of the bot."""
    path, stored = _stored(config, overrides)
    now = SystemClock().now()
    rows = [_row(session, now) for session in stored]
    if as_json:
        typer.echo(json.dumps({"store": None if path is None else str(path), "sessions": rows}))
    elif not rows:
        typer.echo(_empty(path))
    else:
        typer.echo("\n".join(_table(rows)))


def drop_stored(config: Path | None, overrides: Sequence[str], names: Sequence[str] | None) -> None:
    """Drop the sessions of the named shards, None for all of them."""
    path, stored = _stored(config, overrides)
    wanted = list(stored) if names is None else _chosen(stored, names)
    if path is None or not wanted:
        typer.echo(_empty(path))
        return
    asyncio.run(_drop(path, read_token(load_config(config, overrides)), wanted))
    for session in wanted:
        typer.echo(f"dropped the session of shard {session.shard_id}/{session.shard_count}")


async def _drop(path: Path, token: str, wanted: Sequence[StoredSession]) -> None:
    bot = bot_key(token)
    store = SqliteSessionStore(path, bot=bot, clock=SystemClock(), seal=Seal.of(token))
    await store.open()
    try:
        await _hold(store, wanted)
        for session in wanted:
            store.forget(*session.shard)
        await store.flush()
    finally:
        await store.close()
    dropped = {session.shard for session in wanted}
    if any(session.shard in dropped for session in read_store(path, bot).sessions):
        msg = f"the session store {path} could not be written: {store.health.reason}"
        raise StoreUnavailable(msg)


async def _hold(store: SqliteSessionStore, wanted: Sequence[StoredSession]) -> None:
    try:
        await store.hold([session.shard for session in wanted])
    except StoreLocked as error:
        remedy = "Stop that process first: discorder shutdown, or its service manager if that would start it again"
        raise StoreLocked(error.held, error.pid, remedy) from error


def _stored(config: Path | None, overrides: Sequence[str]) -> tuple[Path | None, Sequence[StoredSession]]:
    """Return the store's file, None for memory, and its sessions."""
    loaded = load_config(config, overrides)
    bot = bot_key(read_token(loaded))
    path = store_path(loaded.session.store, bot)
    return path, read_store(path, bot).sessions if path is not None and path.exists() else ()


def _chosen(stored: Sequence[StoredSession], names: Sequence[str]) -> list[StoredSession]:
    chosen = [session for session in stored if {_name(session), str(session.shard_id)} & set(names)]
    known = {name for session in chosen for name in (_name(session), str(session.shard_id))}
    unknown = [name for name in names if name not in known]
    if unknown:
        there = ", ".join(_name(session) for session in stored) or "none"
        msg = f"no session is stored of shard {', '.join(unknown)}; there are: {there}"
        raise typer.BadParameter(msg)
    return chosen


def _name(session: StoredSession) -> str:
    return f"{session.shard_id}/{session.shard_count}"


def _row(session: StoredSession, now: datetime) -> dict[str, Any]:
    return {
        "shard": _name(session),
        "host": _host(session.resume_url),
        "seq": session.seq,
        "age_seconds": max(0, round((now - session.updated_at).total_seconds())),
        "label": session_label(session.session_id, session.ordinal),
    }


def _host(url: str) -> str:
    try:
        return ascii(urlsplit(url).hostname or "")[1:-1]
    except ValueError:
        return "(not a URL)"


def _table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    cells = [("shard", "host", "seq", "age", "label")]
    cells += [(r["shard"], r["host"], str(r["seq"]), f"{r['age_seconds']} s", r["label"]) for r in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _empty(path: Path | None) -> str:
    if path is None:
        return 'sessions are kept in memory only (session.store = ""): there is nothing to show or drop'
    return f"no session of this bot is stored in {path}"
