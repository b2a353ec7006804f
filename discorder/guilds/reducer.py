"""Fold the events of a shard into the state of its guilds."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from discorder.guilds.guild import Guild, compress
from discorder.guilds.json_parts import ByUserId, Id, User, decoder, items_of, merge, replace_lone_surrogates, split
from discorder.guilds.lists import ROWS as LIST_ROWS
from discorder.guilds.members import ROWS as MEMBER_ROWS
from discorder.guilds.snapshot import GuildsSnapshot, unpack_snapshot
from discorder.guilds.threads import ROWS as THREAD_ROWS

_ROWS = {**LIST_ROWS, **THREAD_ROWS, **MEMBER_ROWS}
FOLDED = frozenset(
    {*_ROWS, "READY", "GUILD_CREATE", "GUILD_DELETE", "USER_UPDATE"}
)  # the types of event that change a guild


class _Ready(msgspec.Struct):
    user: User
    guilds: msgspec.Raw


class _Create(msgspec.Struct):
    id: Id
    unavailable: object = None
    large: object = None
    voice_states: msgspec.Raw = msgspec.Raw()


class _Delete(msgspec.Struct):
    id: Id
    unavailable: object = None


_decode_ready = decoder(_Ready).decode
_decode_create = decoder(_Create).decode
_decode_delete = decoder(_Delete).decode
_decode_voice_states = decoder(list[ByUserId]).decode


def folds(kind: str) -> bool:
    """Return whether events of this type change the state of a guild."""
    return kind in FOLDED


class ShardGuilds:
    """Hold the guilds of a shard as its events show them.

    ``presences``: whether to keep presences, the largest part of the traffic. ``session`` is the label of the session of the
    last READY. ``oddities`` counts events that were ignored since their data is not what Discord documents.
    """

    def __init__(self, *, presences: bool = True) -> None:
        self.session: str | None = None
        self.oddities = 0
        self._presences = presences
        self._ready = b""
        self._user_id = 0
        self._guilds: dict[int, Guild | None] = {}  # None: known, but unavailable
        self._generation = 0

    def apply(self, session: str, kind: str, data: bytes) -> None:
        """Fold one event: the label of its session, its type and its ``d``.

        An event of another session than that of the last READY does nothing, nor does odd data.
        """
        if kind not in FOLDED:
            return
        try:
            self._apply(session, kind, data)
        except (ValueError, RecursionError):
            try:
                self._apply(session, kind, replace_lone_surrogates(data))
            except (ValueError, RecursionError):
                self.oddities += 1
                if kind == "READY":
                    self._forget(session)

    def freeze(self) -> GuildsSnapshot | None:
        """Return the guilds as they are now; None before the first READY."""
        if self.session is None:
            return None
        self._generation += 1  # each guild is copied before its next change
        return GuildsSnapshot(self.session, self._ready, self._user_id, dict(self._guilds))

    def load(self, packed: Iterable[bytes]) -> None:
        """Take the state over from `GuildsSnapshot.pack`. Raises ValueError for other bytes, and changes nothing then."""
        header, guilds = unpack_snapshot(packed, self._generation)
        self.session, self._ready, self._user_id, self._guilds = header.session, header.ready, header.user_id, guilds
        if not self._presences:
            for guild in filter(None, guilds.values()):
                guild.replace("presences", b"[]")

    def _apply(self, session: str, kind: str, data: bytes) -> None:
        if kind == "READY":
            if session != self.session:
                self._begin(session, data)
        elif session != self.session or (kind == "PRESENCE_UPDATE" and not self._presences):
            pass
        elif (row := _ROWS.get(kind)) is not None:
            decode, fold = row
            event = decode(data)
            guild = None if event.guild_id is None else self._writable(event.guild_id)
            if guild is not None:
                fold(guild, event, data, self._user_id)
                guild.fold()
        elif kind == "GUILD_CREATE":
            self._create(data)
        elif kind == "GUILD_DELETE":
            self._delete(data)
        else:
            user = merge(split(self._ready).get("user", b"{}"), data)
            self._ready = merge(self._ready, b'{"user":%b}' % user)

    def _begin(self, session: str, data: bytes) -> None:
        ready = _decode_ready(data)
        self._forget(session)
        self._ready = data
        self._user_id = ready.user.id
        stubs = items_of("guilds", ready.guilds)
        self._guilds = {guild_id: None for guild_id, _ in stubs if guild_id is not None}

    def _forget(self, session: str) -> None:
        """Forget the session before: Discord sends every guild again."""
        self.session, self._ready, self._user_id, self._guilds = session, b"{}", 0, {}

    def _create(self, data: bytes) -> None:
        event = _decode_create(data)
        if event.unavailable is True:
            self._guilds[event.id] = None
            return
        guild = Guild(event.id, compress(data), self._generation, large=event.large is True, in_voice=False)
        if event.unavailable is not False:  # absent from a guild that was joined: its absence says "just joined"
            guild.replace("unavailable", b"false")
        if not self._presences:
            guild.replace("presences", b"[]")
        try:
            guild.in_voice = any(
                state.user_id == self._user_id for state in _decode_voice_states(event.voice_states or b"[]")
            )
        except msgspec.ValidationError:
            self.oddities += 1
        self._guilds[event.id] = guild

    def _delete(self, data: bytes) -> None:
        event = _decode_delete(data)
        if event.unavailable is True:
            self._guilds[event.id] = None
        else:
            self._guilds.pop(event.id, None)

    def _writable(self, guild_id: int) -> Guild | None:
        """Return a guild that no snapshot shows; None for one without a state."""
        guild = self._guilds.get(guild_id)
        if guild is not None and guild.generation != self._generation:
            guild = self._guilds[guild_id] = guild.copy(self._generation)
        return guild
