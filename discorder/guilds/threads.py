"""Fold the events about threads. A guild shows its active ones, and in each the bot's own thread member if it is in it."""

from __future__ import annotations

from typing import Any

import msgspec

from discorder.guilds.guild import Guild, clean_thread_member
from discorder.guilds.json_parts import Buffer, ById, Id, decoder, items_of, join, join_list, merge, split, without
from discorder.guilds.lists import Row, parent_of

_PRIVATE = b"12"  # the type of a private thread


class _Metadata(msgspec.Struct):
    archived: bool = False


class _Thread(msgspec.Struct):
    id: Id
    guild_id: Id | None = None
    thread_metadata: _Metadata | None = None


class _Deleted(msgspec.Struct):
    id: Id
    guild_id: Id | None = None


class _ListSync(msgspec.Struct):
    guild_id: Id
    threads: list[msgspec.Raw]
    channel_ids: list[Id] | None = None  # None: the whole guild
    members: list[msgspec.Raw] = []


class _Added(msgspec.Struct):
    user_id: Id | None = None


class _MembersUpdate(msgspec.Struct):
    id: Id
    guild_id: Id
    member_count: int | None = None
    added_members: list[msgspec.Raw] = []
    removed_member_ids: list[Id] = []


_added = decoder(_Added).decode
_member = decoder(ById).decode


def _put(guild: Guild, thread: _Thread, data: bytes, _own: int) -> None:
    """Merge, for an update does not repeat ``member``. A thread that comes out of the archive was not there."""
    if thread.thread_metadata is not None and thread.thread_metadata.archived:
        guild.patch("threads", thread.id, None)
    else:
        guild.merge("threads", thread.id, data, insert=True)


def _delete(guild: Guild, thread: _Deleted, _data: bytes, _own: int) -> None:
    guild.patch("threads", thread.id, None)


def _list_sync(guild: Guild, event: _ListSync, _data: bytes, _own: int) -> None:
    """Replace the threads of the channels that are named."""
    named = event.channel_ids
    members = {_member(member).id: member for member in event.members}
    listed: dict[int | None, Buffer] = {}
    for thread_id, thread in items_of("threads", join_list(event.threads)):
        listed[thread_id] = thread
        if thread_id in members:
            listed[thread_id] = merge(thread, _as_member(members[thread_id]))
    kept = [
        thread
        for thread_id, thread in items_of("threads", guild.current("threads"))
        if named is not None and parent_of(thread) not in named and thread_id not in listed
    ]
    guild.replace("threads", join_list([*kept, *listed.values()]))


def _member_update(guild: Guild, thread: _Thread, data: bytes, _own: int) -> None:
    guild.merge("threads", thread.id, _as_member(data), insert=False)


def _members_update(guild: Guild, event: _MembersUpdate, _data: bytes, own: int) -> None:
    changes: dict[str, Any] = {}
    if event.member_count is not None:
        changes["member_count"] = event.member_count
    for added in event.added_members:
        if _added(added).user_id == own:
            changes["member"] = msgspec.Raw(clean_thread_member(added))
    guild.merge("threads", event.id, join(changes), insert=False)
    if own in event.removed_member_ids:
        _leave(guild, event.id)


def _leave(guild: Guild, thread_id: int) -> None:
    """Remove the bot's own thread member. A private thread is visible to its members only."""
    for found, thread in items_of("threads", guild.current("threads")):
        if found == thread_id:
            private = split(thread).get("type") == msgspec.Raw(_PRIVATE)
            guild.patch("threads", thread_id, None if private else without(thread, "member"))


def _as_member(member: Buffer) -> bytes:
    return join({"member": msgspec.Raw(clean_thread_member(member))})


_thread = decoder(_Thread).decode

ROWS: dict[str, Row] = {
    "THREAD_CREATE": (_thread, _put),
    "THREAD_UPDATE": (_thread, _put),
    "THREAD_DELETE": (decoder(_Deleted).decode, _delete),
    "THREAD_LIST_SYNC": (decoder(_ListSync).decode, _list_sync),
    "THREAD_MEMBER_UPDATE": (decoder(_Deleted).decode, _member_update),
    "THREAD_MEMBERS_UPDATE": (decoder(_MembersUpdate).decode, _members_update),
}
