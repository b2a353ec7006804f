"""Find the journal of a configuration, and whether it holds anything, without locking or reading it."""

from __future__ import annotations

from pathlib import Path

from discorder.config import Config
from discorder.config.http import AUTO
from discorder.facade.journal_setup import directory_beside_store
from discorder.paths import resolve_path
from discorder.plane.shard_factory import configured_layout
from discorder.publishers.journal.segments import segment_paths
from discorder.publishers.journal.snapshot_file import NAME as SNAPSHOT
from discorder.rest import Token


def journal_directory(config: Config, token: str) -> Path | None:
    """Return the directory of the journal; None if none is kept. Raises `ConfigError`, and `UnusableFile`."""
    journal = config.facade.journal
    if not config.facade.keeps_journal:
        return None
    if journal != AUTO:
        return resolve_path(journal)
    return directory_beside_store(config, Token(token), configured_layout(config))


def is_empty(directory: Path) -> bool:
    """Return whether a journal holds nothing, so that a start has to get the guilds from Discord; False if unreadable. Blocks."""
    try:
        return not segment_paths(directory) and not (directory / SNAPSHOT).exists()
    except OSError:
        return False
