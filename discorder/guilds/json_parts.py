"""Take JSON apart and join it again without decoding the values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Annotated, Any

import msgspec

Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]  # a snowflake; JSON shows it as a string
Buffer = bytes | msgspec.Raw

split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode  # an object into its members
split_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
join = msgspec.json.encode

_ESCAPE = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)|\\.", re.DOTALL)


class User(msgspec.Struct):
    """Read the id of a user object."""

    id: Id


class ById(msgspec.Struct):
    """Read the id of an item."""

    id: Id


class ByUserId(msgspec.Struct):
    """Read the id of a voice state."""

    user_id: Id


class ByUser(msgspec.Struct):
    """Read the id of a member or a presence."""

    user: User


class BySoundId(msgspec.Struct):
    """Read the id of a soundboard sound."""

    sound_id: Id


def decoder(kind: type[Any]) -> msgspec.json.Decoder[Any]:
    """Return a decoder that reads ids from strings."""
    return msgspec.json.Decoder(kind, strict=False)


_KINDS: dict[type[Any], Callable[[Any], int]] = {
    ById: attrgetter("id"),
    ByUserId: attrgetter("user_id"),
    ByUser: attrgetter("user.id"),
    BySoundId: attrgetter("sound_id"),
}
_single = {kind: decoder(kind).decode for kind in _KINDS}
_several = {kind: decoder(list[kind]).decode for kind in _KINDS}  # type: ignore[valid-type]
_of_field: dict[str, type[Any]] = {
    "voice_states": ByUserId,
    "members": ByUser,
    "presences": ByUser,
    "soundboard_sounds": BySoundId,
}


def items_of(field: str, value: Buffer) -> list[tuple[int | None, msgspec.Raw]]:
    """Return the items of a list with their ids; None for an item without one. A value that is no list has no items."""
    try:
        items = split_list(value)
    except msgspec.ValidationError:
        return []
    kind = _of_field.get(field, ById)
    try:
        return list(zip(map(_KINDS[kind], _several[kind](value)), items, strict=True))
    except msgspec.ValidationError:
        return [(_id_or_none(kind, item), item) for item in items]


def _id_or_none(kind: type[Any], item: msgspec.Raw) -> int | None:
    try:
        return _KINDS[kind](_single[kind](item))
    except msgspec.ValidationError:
        return None


def join_list(items: Iterable[Buffer]) -> bytes:
    """Return the list of the items."""
    return b"[%b]" % b",".join(items)


def merge(item: Buffer, changes: Buffer) -> bytes:
    """Return the object ``item`` with the members of the object ``changes``. An ``item`` that is no object is replaced."""
    try:
        return join({**split(item), **split(changes)})
    except msgspec.ValidationError:
        return bytes(changes)


def without(item: Buffer, *names: str) -> bytes:
    """Return the object ``item`` without the members ``names``; another value as it is."""
    try:
        members = split(item)
    except msgspec.ValidationError:
        return bytes(item)
    if members.keys().isdisjoint(names):
        return bytes(item)
    return join({name: value for name, value in members.items() if name not in names})


def replace_lone_surrogates(data: bytes) -> bytes:
    """Replace each escape of half a surrogate pair with U+FFFD: strict parsers, of many bots too, refuse such a text."""
    return _ESCAPE.sub(lambda match: match[0] if match[1] is None else rb"\ufffd", data)
