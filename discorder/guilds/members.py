"""Fold the events about members, their presences and their voice states."""

from __future__ import annotations

import msgspec

from discorder.guilds.guild import Guild
from discorder.guilds.json_parts import ByUser, Id, User, decoder, without
from discorder.guilds.lists import Row


class _Member(msgspec.Struct):
    user: User
    guild_id: Id | None = None


class _Presence(msgspec.Struct):
    user: User
    guild_id: Id | None = None
    status: str | None = None


class _VoiceState(msgspec.Struct):
    user_id: Id
    guild_id: Id | None = None
    channel_id: Id | None = None
    member: msgspec.Raw = msgspec.Raw()


_member = decoder(ByUser).decode


def _add(guild: Guild, member: _Member, data: bytes, own: int) -> None:
    """Count the member once, though Discord repeats some events. A large guild lists few members: the bot asks for others."""
    user = member.user.id
    if guild.large and user != own:
        guild.joined += 1
        return
    if not guild.is_present("members", user):
        guild.joined += 1
        if not guild.has_changed("members", user):
            guild.doubtful.add(user)
    guild.patch("members", user, data)


def _update(guild: Guild, member: _Member, data: bytes, own: int) -> None:
    """Merge, for ``deaf`` and ``mute`` may be missing."""
    guild.merge("members", member.user.id, data, insert=member.user.id == own)


def _remove(guild: Guild, member: _Member, _data: bytes, _own: int) -> None:
    user = member.user.id
    if guild.large or guild.is_present("members", user) or not guild.has_changed("members", user):
        guild.joined -= 1
    for field in ("members", "presences", "voice_states"):
        guild.patch(field, user, None)


def _presence(guild: Guild, presence: _Presence, data: bytes, _own: int) -> None:
    guild.patch("presences", presence.user.id, None if presence.status == "offline" else data)


def _voice_state(guild: Guild, state: _VoiceState, data: bytes, own: int) -> None:
    """Keep the member too: some libraries need the member of each voice state, in large guilds as well."""
    connected = state.channel_id is not None
    if state.member and (member := bytes(state.member)) != b"null":
        user = _member(member).user.id
        if connected:
            guild.patch("members", user, member)
        else:
            guild.merge("members", user, member, insert=False)
    guild.patch("voice_states", state.user_id, without(data, "member") if connected else None)
    if state.user_id == own:
        guild.in_voice = connected


ROWS: dict[str, Row] = {
    "GUILD_MEMBER_ADD": (decoder(_Member).decode, _add),
    "GUILD_MEMBER_UPDATE": (decoder(_Member).decode, _update),
    "GUILD_MEMBER_REMOVE": (decoder(_Member).decode, _remove),
    "PRESENCE_UPDATE": (decoder(_Presence).decode, _presence),
    "VOICE_STATE_UPDATE": (decoder(_VoiceState).decode, _voice_state),
}
