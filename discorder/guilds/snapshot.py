"""Show the guilds of a shard as they were at one moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from discorder.guilds.guild import Guild, unpack_guild
from discorder.guilds.json_parts import ByUser, decoder

_FORMAT = 1


class _Header(msgspec.Struct, array_like=True):
    """Hold the first item of `GuildsSnapshot.pack`."""

    format: int
    session: str
    user_id: int
    guild_ids: list[int]
    ready: bytes


_read_user = decoder(ByUser).decode
_read_header = msgspec.msgpack.Decoder(_Header).decode


class GuildsSnapshot:
    """Show the guilds of a shard as they were at one moment. Events that come later do not change it; threads may read it.

    ``session`` is the label of the session. ``ready`` is the ``d`` of its READY, with later changes of the bot's user.
    ``user_id`` is the bot's own, 0 if READY had none.
    """

    def __init__(self, session: str, ready: bytes, user_id: int, guilds: Mapping[int, Guild | None]) -> None:
        self.session = session
        self.ready = ready
        self.user_id = user_id
        self._guilds = guilds

    @property
    def guild_ids(self) -> Sequence[int]:
        """Return the ids of all guilds, those that are unavailable too."""
        return list(self._guilds)

    @property
    def states(self) -> Sequence[int]:
        """Return the ids of the guilds with a document."""
        return [guild_id for guild_id, guild in self._guilds.items() if guild is not None]

    def document(self, guild_id: int) -> bytes:
        """Return the ``d`` of a GUILD_CREATE with ``"unavailable": false``. Takes up to 1 ms. Raises LookupError."""
        return self._guild(guild_id).document()

    def packed(self, guild_id: int) -> bytes:
        """Return a guild for the wire and the disk; see `discorder.guilds.unpack`. Raises LookupError."""
        return self._guild(guild_id).pack()

    def pack(self) -> Iterator[bytes]:
        """Return all that `ShardGuilds.load` needs."""
        header = _Header(_FORMAT, self.session, self.user_id, list(self._guilds), self.ready)
        yield msgspec.msgpack.encode(header)
        for guild in self._guilds.values():
            if guild is not None:
                yield guild.pack()

    def voice_guilds(self) -> Sequence[int]:
        """Return the ids of the guilds in which the bot is in a voice channel."""
        return [guild_id for guild_id, guild in self._guilds.items() if guild is not None and guild.in_voice]

    def _guild(self, guild_id: int) -> Guild:
        guild = self._guilds.get(guild_id)
        if guild is None:
            why = "it is unavailable" if guild_id in self._guilds else "the bot is not in it, or it is of another shard"
            msg = f"there is no document of guild {guild_id}: {why}"
            raise LookupError(msg)
        return guild


def pack_again(session: str, ready: bytes, guild_ids: Sequence[int], guilds: Iterable[bytes]) -> Iterator[bytes]:
    """Return what `GuildsSnapshot.pack` yielded, from the parts of an answer of the bus: ``guilds`` are packed, too."""
    try:
        user_id = _read_user(ready).user.id
    except msgspec.DecodeError:
        user_id = 0
    yield msgspec.msgpack.encode(_Header(_FORMAT, session, user_id, list(guild_ids), ready))
    yield from guilds


def unpack_snapshot(packed: Iterable[bytes], generation: int) -> tuple[_Header, dict[int, Guild | None]]:
    """Return the header and the guilds of `GuildsSnapshot.pack`. Raises ValueError for other bytes."""
    parts = iter(packed)
    header = _read_header(next(parts, b""))
    if header.format != _FORMAT:
        msg = f"the guilds are packed in format {header.format}; this version reads format {_FORMAT} only"
        raise ValueError(msg)
    guilds: dict[int, Guild | None] = dict.fromkeys(header.guild_ids)
    for part in parts:
        guild = unpack_guild(part, generation)
        guilds[guild.id] = guild
    return header, guilds
