"""Read the guilds that the control plane keeps, as Discord's GUILD_CREATE would show each of them now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from discorder.guilds import GuildsSnapshot

Read = Callable[[], list[GuildsSnapshot]]


class KnownGuilds(Mapping[int, dict[str, Any]]):
    """The guilds of all shards by id, each as a dictionary. Those in an outage are not in the mapping, but in ``ids``.

    Each call reads the present state, and a document takes up to 1 ms: to go through many guilds, iterate over the ids and let
    the loop run in between. Thread-safe. Raises `GuildsNotKept` without a journal, and `NotRunning`.
    """

    def __init__(self, read: Read) -> None:
        self._read = read

    @property
    def ids(self) -> tuple[int, ...]:
        """Return the ids of all guilds of the bot on these shards."""
        return tuple(guild_id for snapshot in self._read() for guild_id in snapshot.guild_ids)

    def document(self, guild_id: int | str) -> bytes:
        """Return the ``d`` of a GUILD_CREATE, with fields that have no documented meaning too. Raises KeyError."""
        wanted = int(guild_id)
        reasons = ["no shard has had its READY"]
        for snapshot in self._read():
            try:
                return snapshot.document(wanted)
            except LookupError as error:
                reasons.append(str(error))
        raise KeyError(reasons[-1])

    def __getitem__(self, guild_id: int | str) -> dict[str, Any]:
        """Return a guild decoded. Raises KeyError."""
        return msgspec.json.decode(self.document(guild_id), type=dict[str, Any])

    def __iter__(self) -> Iterator[int]:
        return iter([guild_id for snapshot in self._read() for guild_id in snapshot.states])

    def __len__(self) -> int:
        return sum(len(snapshot.states) for snapshot in self._read())

    def __contains__(self, guild_id: object) -> bool:
        return any(guild_id in snapshot.states for snapshot in self._read())

    __repr__ = object.__repr__  # that of a mapping would read every guild
