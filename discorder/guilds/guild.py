"""Keep one guild: the compressed GUILD_CREATE that Discord sent, and what has changed since."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from discorder.guilds.json_parts import Buffer, items_of, join, join_list, merge, split, without

COMPRESSION = 1  # the fastest level: it halves the time of level 6 and costs a tenth more bytes
MIN_FOLD_BYTES = 16_384  # below this the changes are cheaper to keep than to fold
FOLD_RATIO = 2  # the changes may weigh as much as this many bases: a fold costs milliseconds in a guild of 200 KB
ENTRY_BYTES = 96  # of Python objects per change, beside its JSON

_THREAD_MEMBER_EXTRAS = ("id", "user_id", "guild_id", "member", "presence")  # a GUILD_CREATE leaves these out
_EXTRAS = {  # members of an event's object that a GUILD_CREATE leaves out
    "channels": ("guild_id",),
    "members": ("guild_id",),
    "presences": ("guild_id",),
    "threads": ("newly_created",),
    "voice_states": ("guild_id",),
}


class Merge(NamedTuple):
    """Change some members of an item. ``new`` becomes the item if there is none; None: it does not."""

    changes: bytes
    new: bytes | None


Patch = bytes | Merge | None  # the whole item, some of its members, or: it is gone


class Packed(msgspec.Struct, array_like=True):
    """Hold a guild as it is sent and stored, in MessagePack. A packed patch is (id, changes, new or whole item)."""

    id: int
    base: bytes
    whole: dict[str, bytes]
    lists: dict[str, list[tuple[int, bytes | None, bytes | None]]]
    joined: int
    doubtful: set[int]
    large: bool
    in_voice: bool


_unpack = msgspec.msgpack.Decoder(Packed).decode


class Guild:
    """Hold the state of one guild.

    ``base`` is a compressed document, ``whole`` has the fields that were replaced since, ``lists`` the changes of items by
    field and id, ``joined`` the change of ``member_count``. ``doubtful``: the users that joined and may be in ``base`` already.
    ``generation`` is that of the reducer; a guild of an earlier one belongs to a snapshot too and must not change.
    """

    __slots__ = ("base", "doubtful", "generation", "id", "in_voice", "joined", "large", "lists", "weight", "whole")

    def __init__(self, guild_id: int, base: bytes, generation: int, *, large: bool, in_voice: bool) -> None:
        self.id = guild_id
        self.base = base
        self.generation = generation
        self.large = large
        self.in_voice = in_voice
        self.whole: dict[str, bytes] = {}
        self.lists: dict[str, dict[int, Patch]] = {}
        self.joined = 0
        self.doubtful: set[int] = set()
        self.weight = 0  # bytes of the changes, roughly

    def copy(self, generation: int) -> Guild:
        """Return a guild of ``generation`` that may change."""
        other = Guild(self.id, self.base, generation, large=self.large, in_voice=self.in_voice)
        other.whole = dict(self.whole)
        other.lists = {field: dict(patches) for field, patches in self.lists.items()}
        other.joined, other.doubtful, other.weight = self.joined, set(self.doubtful), self.weight
        return other

    def replace(self, field: str, value: Buffer) -> None:
        """Set a field as a whole."""
        self.weight += len(bytes(value)) - len(self.whole.get(field, b""))
        self.whole[field] = bytes(value)
        self.weight -= sum(map(_weigh, self.lists.pop(field, {}).values()))

    def patch(self, field: str, item_id: int, patch: Patch) -> None:
        """Set an item of a list, or remove it."""
        patches = self.lists.setdefault(field, {})
        if item_id in patches:
            self.weight -= _weigh(patches[item_id])
        patches[item_id] = patch
        self.weight += _weigh(patch)

    def merge(self, field: str, item_id: int, changes: bytes, *, insert: bool) -> None:
        """Change some members of an item of a list. ``insert``: if there is no such item, ``changes`` become it."""
        patches = self.lists.get(field, {})
        present = patches.get(item_id)
        if isinstance(present, bytes):
            self.patch(field, item_id, merge(present, changes))
        elif isinstance(present, Merge):
            new = present.new if present.new is None else merge(present.new, changes)
            self.patch(
                field, item_id, Merge(merge(present.changes, changes), changes if insert and new is None else new)
            )
        elif item_id not in patches:
            self.patch(field, item_id, Merge(changes, changes if insert else None))
        elif insert:
            self.patch(field, item_id, changes)

    def has_changed(self, field: str, item_id: int) -> bool:
        """Return whether an item of a list was changed or removed since the base."""
        return item_id in self.lists.get(field, ())

    def is_present(self, field: str, item_id: int) -> bool:
        """Return whether the changes show that an item is there."""
        return self.lists.get(field, {}).get(item_id) is not None

    def current(self, field: str) -> bytes:
        """Return a list as it is now. Unpacks the base unless the list was replaced as a whole; takes up to 1 ms."""
        value: Buffer | None = self.whole.get(field)
        if value is None:
            value = split(zlib.decompress(self.base)).get(field, b"[]")
        return _patched(field, value, self.lists.get(field, {}))

    def document(self) -> bytes:
        """Return the ``d`` of a GUILD_CREATE. Takes up to 1 ms."""
        text = zlib.decompress(self.base)
        if not (self.whole or self.lists or self.joined):
            return text
        document: dict[str, Any] = {**split(text), **{field: msgspec.Raw(value) for field, value in self.whole.items()}}
        joined = self.joined - self._counted_twice(document.get("members", b"[]"))
        for field, patches in self.lists.items():
            document[field] = msgspec.Raw(_patched(field, document.get(field, b"[]"), patches))
        if joined:
            document["member_count"] = max(_integer(document.get("member_count", b"0")) + joined, 0)
        return join(document)

    def _counted_twice(self, members: Buffer) -> int:
        """Return how many of the users that joined had been members already: Discord repeats some GUILD_MEMBER_ADD."""
        if not self.doubtful:
            return 0
        return sum(user in self.doubtful for user, _ in items_of("members", members))

    def fold(self) -> None:
        """Put the changes into the base once they outweigh it. Takes up to 5 ms then, for a guild of 200 KB."""
        if self.weight > max(FOLD_RATIO * len(self.base), MIN_FOLD_BYTES):
            self.base = compress(self.document())
            self.whole, self.lists, self.joined, self.doubtful, self.weight = {}, {}, 0, set(), 0

    def pack(self) -> bytes:
        """Return the guild for the wire and the disk; see `unpack`."""
        lists = {field: [_pack_patch(*patch) for patch in patches.items()] for field, patches in self.lists.items()}
        packed = Packed(self.id, self.base, self.whole, lists, self.joined, self.doubtful, self.large, self.in_voice)
        return msgspec.msgpack.encode(packed)


def compress(document: bytes) -> bytes:
    """Return the base of a document."""
    return zlib.compress(document, COMPRESSION)


def unpack_guild(packed: bytes, generation: int = 0) -> Guild:
    """Return the guild of `Guild.pack`. Raises ValueError for other bytes."""
    read = _unpack(packed)
    guild = Guild(read.id, read.base, generation, large=read.large, in_voice=read.in_voice)
    for field, value in read.whole.items():
        guild.replace(field, value)
    for field, patches in read.lists.items():
        for item_id, changes, item in patches:
            guild.patch(field, item_id, item if changes is None else Merge(changes, item))
    guild.joined, guild.doubtful = read.joined, read.doubtful
    return guild


def unpack(packed: bytes) -> bytes:
    """Return the ``d`` of a GUILD_CREATE from `GuildsSnapshot.packed`. Raises ValueError for other bytes."""
    try:
        return unpack_guild(packed).document()
    except zlib.error as error:
        msg = f"the packed guild is damaged: {error}"
        raise ValueError(msg) from error


def _pack_patch(item_id: int, patch: Patch) -> tuple[int, bytes | None, bytes | None]:
    return (item_id, patch[0], patch[1]) if isinstance(patch, Merge) else (item_id, None, patch)


def _weigh(patch: Patch) -> int:
    if isinstance(patch, Merge):
        return (
            ENTRY_BYTES
            + len(patch.changes)
            + (0 if patch.new is None or patch.new is patch.changes else len(patch.new))
        )
    return ENTRY_BYTES if patch is None else ENTRY_BYTES + len(patch)


def _integer(value: Buffer) -> int:
    try:
        return msgspec.json.decode(value, type=int)
    except msgspec.ValidationError:
        return 0


def _patched(field: str, value: Buffer, patches: Mapping[int, Patch]) -> bytes:
    """Return a list with its changes: items keep their places, new ones come last."""
    if not patches:
        return bytes(value)
    items: list[Buffer] = []
    rest = dict(patches)
    for item_id, item in items_of(field, value):
        if item_id is None or item_id not in patches:
            items.append(item)
        elif (patch := rest.pop(item_id, None)) is not None:
            items.append(_clean(field, merge(item, patch.changes) if isinstance(patch, Merge) else patch))
    for patch in rest.values():
        new = patch.new if isinstance(patch, Merge) else patch
        if new is not None:
            items.append(_clean(field, new))
    return join_list(items)


def _clean(field: str, item: bytes) -> bytes:
    """Return an item as a GUILD_CREATE shows it."""
    extras = _EXTRAS.get(field)
    cleaned = item if extras is None else without(item, *extras)
    if field == "threads":
        member = split(cleaned).get("member")
        if member is not None:
            return merge(cleaned, join({"member": msgspec.Raw(clean_thread_member(member))}))
    return cleaned


def clean_thread_member(member: Buffer) -> bytes:
    """Return the bot's own thread member as the threads of a GUILD_CREATE show it."""
    return without(member, *_THREAD_MEMBER_EXTRAS)
