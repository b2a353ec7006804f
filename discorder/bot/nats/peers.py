"""What the workers of a group tell each other: how many shards each has, so that each gets its share."""

from __future__ import annotations

import secrets
import time

import msgspec

TELL_EVERY = 2.0  # seconds
FORGOTTEN_AFTER = 6.0  # seconds without a word


class _Word(msgspec.Struct):
    """``shards``: how many it has of each layout, by the number of shards. ``leaves``: it ends now."""

    id: str
    shards: dict[int, int] = {}
    leaves: bool = False


class Peers:
    """The other workers of a group, as far as they were heard."""

    def __init__(self) -> None:
        self._id = secrets.token_hex(8)
        self._heard: dict[str, tuple[float, dict[int, int]]] = {}

    def word(self, shards: dict[int, int], *, leaves: bool = False) -> bytes:
        """Return what to tell the others."""
        return msgspec.json.encode(_Word(self._id, shards, leaves))

    def hear(self, payload: bytes) -> None:
        """Take what a worker tells. Raises ValueError for something else."""
        word = msgspec.json.decode(payload, type=_Word)
        oldest = time.monotonic() - FORGOTTEN_AFTER
        self._heard = {name: heard for name, heard in self._heard.items() if heard[0] > oldest and name != word.id}
        if word.id != self._id and not word.leaves:
            self._heard[word.id] = time.monotonic(), word.shards

    def may_take(self, count: int, mine: int) -> bool:
        """Return whether a worker with ``mine`` of ``count`` shards has less than its share."""
        return mine * (len(self._others(count)) + 1) < count

    def is_surplus(self, count: int, mine: int) -> bool:
        """Return whether this worker is to release one of its shards: another has two less, and none has more than this one."""
        others = self._others(count)
        has_most = all((mine, self._id) > (one, name) for name, one in others.items())
        return has_most and mine - min(others.values(), default=mine) > 1

    def _others(self, count: int) -> dict[str, int]:
        oldest = time.monotonic() - FORGOTTEN_AFTER
        return {name: shards.get(count, 0) for name, (at, shards) in self._heard.items() if at > oldest}
