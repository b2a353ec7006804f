"""Make the journal that the configuration asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from discorder.clock import Clock
from discorder.config import Config
from discorder.config.facade import JOURNAL
from discorder.config.http import AUTO
from discorder.errors import ConfigError
from discorder.paths import resolve_path
from discorder.publishers.journal import Journal
from discorder.publishers.options import DeliveryOptions
from discorder.rest import Token
from discorder.sessions import bot_key, store_path

Layout = tuple[Sequence[int], int]  # shard ids of this process, shard count
COPY = ".facade"  # the end of the name of the directory for the copy that a façade in a process of its own keeps

JOURNAL_OPTIONS = DeliveryOptions(
    kind=JOURNAL,
    required=True,
    max_events=100_000,
    max_bytes=2**28,  # Discord's opening burst: 80 MB for 1,000 guilds of 80 KB
)


def make_journal(config: Config, token: Token, layout: Layout | None, clock: Clock) -> Journal | None:
    """Return the journal, not opened; None if nothing needs one. ``layout``: as configured.

    Raises ConfigError for "auto" without a session store, and for a layout without shards.
    """
    facade = config.facade
    if not facade.keeps_journal:
        return None
    _check_has_shards(layout)
    directory = (
        directory_beside_store(config, token, layout) if facade.journal == AUTO else resolve_path(facade.journal)
    )
    return Journal(
        directory,
        ring_bytes=facade.ring_bytes,
        ring_seconds=facade.ring_seconds,
        presences=facade.presences,
        intents=config.gateway.intents_value,
        clock=clock,
        other=_copy_of(directory),
    )


def make_copy(config: Config, token: Token, clock: Clock) -> Journal:
    """Return the journal of a façade in a process of its own, not opened. Its directory is beside that of the control plane.

    Raises ConfigError for "auto" without a session store.
    """
    facade = config.facade
    kept = directory_beside_store(config, token, None) if facade.journal == AUTO else resolve_path(facade.journal)
    return Journal(
        _copy_of(kept),
        ring_bytes=facade.ring_bytes,
        ring_seconds=facade.ring_seconds,
        presences=facade.presences,
        clock=clock,
        other=kept,
        begin_as_copy=True,
    )


def _check_has_shards(layout: Layout | None) -> None:
    if layout is not None and not layout[0]:
        msg = "gateway.shards: ids is empty, and the journal of the façade does not move with a shard; name the shards"
        raise ConfigError(msg)


def _copy_of(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}{COPY}")


def directory_beside_store(config: Config, token: Token, layout: Layout | None) -> Path:
    """Return the directory beside the session store. Processes that share the store have other shards, and each its own."""
    store = store_path(config.session.store, bot_key(token.reveal()))
    if store is None:
        msg = 'facade.journal: "auto" is a directory beside the session store, and session.store is ""; set one of them to a path'
        raise ConfigError(msg)
    part = ""
    _check_has_shards(layout)
    if layout is not None and len(layout[0]) < layout[1]:
        ids, count = layout
        part = f".{ids[0]}-{ids[-1]}-of-{count}"
    return store.with_name(f"{store.name}.journal{part}")
