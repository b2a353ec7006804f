"""Filter events by the intents of a bot (docs/protocol.md#intents)."""

from __future__ import annotations

import msgspec

from discorder.event_intents import allows

OWN_UPDATES = "GUILD_MEMBER_UPDATE"  # every bot gets those of its own member


class _Guild(msgspec.Struct):
    guild_id: msgspec.Raw = msgspec.Raw()


class _User(msgspec.Struct):
    id: str = ""


class _Member(msgspec.Struct):
    user: _User = msgspec.field(default_factory=_User)


_guild = msgspec.json.Decoder(_Guild).decode
_member = msgspec.json.Decoder(_Member).decode


class EventFilter:
    """Decides for one bot. ``user_id`` is that of the bot's own user."""

    def __init__(self, intents: int, user_id: int) -> None:
        self._intents = intents
        self._user_id = str(user_id)
        self._by_type: dict[str, bool | None] = {}  # None: it depends on whether the event comes from a guild

    def passes(self, kind: str, data: bytes) -> bool:
        """Return whether the bot gets an event."""
        try:
            known = self._by_type[kind]
        except KeyError:
            in_guild, in_dm = (allows(self._intents, kind, in_guild=place) for place in (True, False))
            known = self._by_type[kind] = in_guild if in_guild is in_dm else None
        if known is None:
            return allows(self._intents, kind, in_guild=_is_of_guild(data))
        return known or (kind == OWN_UPDATES and self._is_own(data))

    def _is_own(self, data: bytes) -> bool:
        try:
            return _member(data).user.id == self._user_id
        except msgspec.DecodeError:
            return False


def _is_of_guild(data: bytes) -> bool:
    try:
        return bytes(_guild(data).guild_id) not in {b"", b"null"}
    except msgspec.DecodeError:  # a lone surrogate, for example
        return b'"guild_id":"' in data
