"""Turn events and records into NATS messages: subject, id and payload."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import msgspec

from discorder.nats_access import subject_word
from discorder.records import LossKind, LostEvents, gap_record
from discorder.wire import Event, StreamPosition

ID_HEADER = "Nats-Msg-Id"
REMEMBERED_SUBJECTS = 8_192  # of a process with 100 shards
HEADER_BYTES = len("NATS/1.0\r\n: \r\n\r\n") + len(ID_HEADER)  # of a message with an id, besides the id
ATOMIC_HEADER_BYTES = 128  # more than the other headers of a message in an atomic batch


class Message(msgspec.Struct, gc=False):
    """Hold one message. ``id``: NATS stores a message with a known id only once. ``replaces``: it tells that an event is missing.

    ``event`` is what is published, or the gap record of an event that is too large. ``number``: in the stream, 0 before it is
    stored.
    """

    subject: str
    id: str
    event: Event
    replaces: bool = False
    number: int = 0

    @property
    def position(self) -> StreamPosition | None:
        """Return session and sequence of an event, None for a record."""
        event = self.event
        return None if event.seq is None else StreamPosition(event.session or "", event.seq)


def message_of(event: Event, prefix: str) -> Message:
    """Return the message of an event or a record."""
    if event.seq is None:
        return Message(_record_subject(event, prefix), hashlib.sha256(event.document).hexdigest()[:32], event)
    return Message(_event_subject(prefix, event.shard, event.type), f"{event.session}:{event.seq}", event)


def gap_instead(message: Message, prefix: str, publisher: str, limit: int) -> Message:
    """Return the message that replaces ``message``, of an event that is larger than ``limit`` (bytes)."""
    event = message.event
    assert event.seq is not None  # noqa: S101  # a record is never too large
    at = event.received_at
    cause = (
        f"{event.type} with {len(event.document):,} bytes is larger than the NATS server takes ({limit:,}); raise max_payload "
        "in the server's configuration"
    )
    lost = LostEvents(LossKind.PUBLISHER, publisher, event.seq, event.seq, cause, at, at)
    record = gap_record(event.shard, event.session or "", at, lost)
    return Message(_record_subject(record, prefix), message.id, record, replaces=True)


def size_of(message: Message) -> int:
    """Return the bytes of a message that the server's limit applies to: header and payload."""
    return HEADER_BYTES + len(message.id) + len(message.event.document)


def position_in(message_id: str) -> StreamPosition | None:
    """Return session and sequence of the event with this id; None for an id of another form."""
    session, _, seq = message_id.rpartition(":")
    return StreamPosition(session, int(seq)) if session and seq.isascii() and seq.isdecimal() else None


def _record_subject(record: Event, prefix: str) -> str:
    return f"{prefix}.record.{record.shard[1]}.{record.shard[0]}.{subject_word(record.type)}"


@lru_cache(REMEMBERED_SUBJECTS)
def _event_subject(prefix: str, shard: tuple[int, int], name: str) -> str:
    return f"{prefix}.{shard[1]}.{shard[0]}.{subject_word(name)}"
