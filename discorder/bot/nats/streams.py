"""Finds the stream of a control plane on a NATS server: the one whose subjects are those that the publisher gives it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from discorder.bot.nats.address import NatsAddress
from discorder.bot.nats.link import ApiError, Link
from discorder.bot.positions import GAP_RECORD, Shard
from discorder.errors import SubscriptionFailed
from discorder.nats_access import event_subjects, record_subjects, subject_word

NO_SUCH_STREAM = 10_059  # JetStream's error code
OWN_RECORDS = "DISCORDER_"  # how the names of the control plane's records begin


class _Config(msgspec.Struct):
    name: str
    subjects: tuple[str, ...] = ()


class _State(msgspec.Struct):
    first_seq: int
    last_seq: int
    subjects: dict[str, int] | None = None


class StreamInfo(msgspec.Struct):
    """What the server says of a stream. ``ts``: its clock."""

    config: _Config
    state: _State
    created: datetime
    ts: datetime


class _Page(msgspec.Struct):
    total: int = 0
    streams: tuple[StreamInfo, ...] | None = None


class EventStream(msgspec.Struct, frozen=True):
    """A stream of events, and the prefix of its subjects."""

    name: str
    prefix: str

    def filters(self, types: frozenset[str] | None, shard: Shard | None = None) -> list[str]:
        """Return the subjects of ``types`` (None: all) of ``shard`` (None: all), with those of gap records."""
        events, records = event_subjects(self.prefix, shard), record_subjects(self.prefix, shard)
        if types is None:
            return [events, records]
        return sorted(
            (records if name.startswith(OWN_RECORDS) else events)[:-1] + subject_word(name)
            for name in types | {GAP_RECORD}
        )

    def shard_of(self, subject: str) -> Shard | None:
        """Return the shard (id, count) of the subject of an event, None for any other."""
        count, _, rest = subject.removeprefix(f"{self.prefix}.").partition(".")
        shard, _, _ = rest.partition(".")
        return (int(shard), int(count)) if shard.isdecimal() and count.isdecimal() else None


async def find_stream(link: Link, address: NatsAddress) -> EventStream | None:
    """Return the stream of ``address``; None while there is none.

    Raises `SubscriptionFailed` if several fit or the named one has other subjects, and what `Link.ask` raises.
    """
    if address.stream:
        try:
            listed = [await stream_info(link, address.stream)]
        except ApiError as error:
            if error.code == NO_SUCH_STREAM:
                return None
            raise
    else:
        listed = await _all_streams(link)
    found = [EventStream(one.config.name, prefix) for one in listed for prefix in _prefixes(one.config.subjects)]
    fitting = [one for one in found if address.prefix in {"", one.prefix}]
    if len(fitting) > 1:
        msg = f"{address.shown} has several streams of events: {_shown(fitting)}. Choose one: add ?prefix=PREFIX to the address"
        raise SubscriptionFailed(msg)
    if not fitting and address.stream:
        wanted = f"events with the prefix {address.prefix}" if address.prefix else "events of a control plane"
        has = ", ".join(listed[0].config.subjects) or "none"
        msg = f"the stream {address.stream} at {address.shown} does not keep {wanted}; its subjects are {has}"
        raise SubscriptionFailed(msg)
    return fitting[0] if fitting else None


async def stream_info(link: Link, name: str, subjects: str | None = None) -> StreamInfo:
    """Return the state of a stream; with ``subjects``, also which subjects of this pattern have messages."""
    merged: dict[str, int] = {}
    while True:
        fields = {} if subjects is None else {"subjects_filter": subjects, "offset": len(merged)}
        info = msgspec.json.decode(await link.ask(f"STREAM.INFO.{name}", **fields), type=StreamInfo)
        page = info.state.subjects or {}
        merged |= page
        if len(page) < 100_000:  # the size of a page of subjects
            info.state.subjects = merged
            return info


async def _all_streams(link: Link) -> list[StreamInfo]:
    listed: list[StreamInfo] = []
    while True:
        page = msgspec.json.decode(await link.ask("STREAM.LIST", offset=len(listed)), type=_Page)
        listed += page.streams or ()
        if not page.streams or len(listed) >= page.total:
            return listed


def _prefixes(subjects: Iterable[str]) -> list[str]:
    """Return the prefixes of which the subjects contain events as well as records."""
    ending = record_subjects("")
    prefixes = [subject.removesuffix(ending) for subject in subjects if subject.endswith(ending)]
    return [prefix for prefix in prefixes if event_subjects(prefix) in subjects]


def _shown(streams: Iterable[EventStream]) -> str:
    return ", ".join(f"{one.name} (prefix {one.prefix})" for one in streams)
