"""Decodes the data of events into the types that a bot names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec

from discorder.wire import ReceivedEvent

T = TypeVar("T")


class Decoded(ReceivedEvent, Generic[T], frozen=True):
    """An event with its ``data`` decoded as the ``decode`` of `subscribe` says: ``value``."""

    value: T


class Decoders:
    """One decoder for each name; events of other names become plain dicts and lists."""

    def __init__(self, decode: Any) -> None:
        self._of: dict[str, msgspec.json.Decoder[Any]] = {}
        self._others: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
        if isinstance(decode, Mapping):
            self._of = {name: msgspec.json.Decoder(into) for name, into in decode.items()}
        else:
            self._others = msgspec.json.Decoder(decode)

    def decoded(self, event: ReceivedEvent) -> Decoded[Any]:
        """Decode one event. Raises `msgspec.ValidationError` for data that does not fit."""
        try:
            value = self._of.get(event.type, self._others).decode(event.raw)
        except msgspec.ValidationError as error:
            msg = f"{event.type} seq {event.seq} of shard {event.shard[0]}: {error}"
            raise msgspec.ValidationError(msg) from error
        return Decoded(
            event.type, event.shard, event.seq, event.prev, event.session, event.timestamp, event.raw, value=value
        )
