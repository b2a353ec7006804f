"""Fold the events about roles, channels, emojis, sounds, stages and scheduled events: one item, or a whole list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from discorder.guilds.guild import Guild
from discorder.guilds.json_parts import Buffer, ById, Id, decoder, items_of, join_list, split

Fold = Callable[[Guild, Any, bytes, int], None]  # the guild, what the decoder read, d, the bot's own user id
Row = tuple[Callable[[bytes], Any], Fold]

_FINISHED = frozenset({3, 4})  # status of a scheduled event: completed, cancelled


class _Item(msgspec.Struct):
    id: Id
    guild_id: Id | None = None


class _ScheduledEvent(msgspec.Struct):
    id: Id
    guild_id: Id | None = None
    status: int | None = None


class _Sound(msgspec.Struct):
    sound_id: Id
    guild_id: Id | None = None


class _Role(msgspec.Struct):
    role: msgspec.Raw
    guild_id: Id | None = None


class _RoleDelete(msgspec.Struct):
    role_id: Id
    guild_id: Id | None = None


class _Emojis(msgspec.Struct):
    emojis: list[msgspec.Raw]
    guild_id: Id | None = None


class _Stickers(msgspec.Struct):
    stickers: list[msgspec.Raw]
    guild_id: Id | None = None


class _Sounds(msgspec.Struct):
    soundboard_sounds: list[msgspec.Raw]
    guild_id: Id | None = None


class _Guild(msgspec.Struct):
    guild_id: Id = msgspec.field(name="id")


class _Parent(msgspec.Struct):
    parent_id: Id | None = None


_parent = decoder(_Parent).decode
_role = decoder(ById).decode


def parent_of(thread: Buffer) -> int | None:
    """Return the channel of a thread; None for what has none."""
    try:
        parent: int | None = _parent(thread).parent_id
    except msgspec.ValidationError:
        return None
    return parent


def _put(field: str) -> Fold:
    return lambda guild, item, data, _own: guild.patch(field, item.id, data)


def _remove(field: str) -> Fold:
    return lambda guild, item, _data, _own: guild.patch(field, item.id, None)


def _channel_delete(guild: Guild, channel: _Item, _data: bytes, _own: int) -> None:
    guild.patch("channels", channel.id, None)
    threads = items_of("threads", guild.current("threads"))
    kept = [thread for _, thread in threads if parent_of(thread) != channel.id]
    if len(kept) < len(threads):
        guild.replace("threads", join_list(kept))


def _role_put(guild: Guild, event: _Role, _data: bytes, _own: int) -> None:
    guild.patch("roles", _role(event.role).id, bytes(event.role))


def _role_delete(guild: Guild, event: _RoleDelete, _data: bytes, _own: int) -> None:
    guild.patch("roles", event.role_id, None)


def _sound_put(guild: Guild, sound: _Sound, data: bytes, _own: int) -> None:
    guild.patch("soundboard_sounds", sound.sound_id, data)


def _sound_delete(guild: Guild, sound: _Sound, _data: bytes, _own: int) -> None:
    guild.patch("soundboard_sounds", sound.sound_id, None)


def _scheduled_event_put(guild: Guild, event: _ScheduledEvent, data: bytes, _own: int) -> None:
    guild.patch("guild_scheduled_events", event.id, None if event.status in _FINISHED else data)


def _replace(field: str) -> Fold:
    return lambda guild, event, _data, _own: guild.replace(field, join_list(getattr(event, field)))


def _guild_update(guild: Guild, _event: _Guild, data: bytes, _own: int) -> None:
    """Replace the fields that ``data`` has; it has no channels, members, threads and presences."""
    for field, value in split(data).items():
        guild.replace(field, value)


_item = decoder(_Item).decode
_scheduled_event = decoder(_ScheduledEvent).decode
_sound = decoder(_Sound).decode

ROWS: dict[str, Row] = {
    "GUILD_UPDATE": (decoder(_Guild).decode, _guild_update),
    "CHANNEL_CREATE": (_item, _put("channels")),
    "CHANNEL_UPDATE": (_item, _put("channels")),
    "CHANNEL_DELETE": (_item, _channel_delete),
    "GUILD_ROLE_CREATE": (decoder(_Role).decode, _role_put),
    "GUILD_ROLE_UPDATE": (decoder(_Role).decode, _role_put),
    "GUILD_ROLE_DELETE": (decoder(_RoleDelete).decode, _role_delete),
    "GUILD_EMOJIS_UPDATE": (decoder(_Emojis).decode, _replace("emojis")),
    "GUILD_STICKERS_UPDATE": (decoder(_Stickers).decode, _replace("stickers")),
    "GUILD_SOUNDBOARD_SOUNDS_UPDATE": (decoder(_Sounds).decode, _replace("soundboard_sounds")),
    "GUILD_SOUNDBOARD_SOUND_CREATE": (_sound, _sound_put),
    "GUILD_SOUNDBOARD_SOUND_UPDATE": (_sound, _sound_put),
    "GUILD_SOUNDBOARD_SOUND_DELETE": (_sound, _sound_delete),
    "STAGE_INSTANCE_CREATE": (_item, _put("stage_instances")),
    "STAGE_INSTANCE_UPDATE": (_item, _put("stage_instances")),
    "STAGE_INSTANCE_DELETE": (_item, _remove("stage_instances")),
    "GUILD_SCHEDULED_EVENT_CREATE": (_scheduled_event, _scheduled_event_put),
    "GUILD_SCHEDULED_EVENT_UPDATE": (_scheduled_event, _scheduled_event_put),
    "GUILD_SCHEDULED_EVENT_DELETE": (_item, _remove("guild_scheduled_events")),
}
