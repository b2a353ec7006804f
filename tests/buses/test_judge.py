"""The judge of the stories notices each kind of fault, and accepts what is told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from discorder.records import LossKind, LostEvents, gap_record
from discorder.wire import Event, ReceivedEvent, decode_document, session_label
from tests.buses.judge import judge

AT = datetime(2026, 1, 1, tzinfo=UTC)
FIRST, SECOND = "first", "second"  # sessions as the simulator names them
SENT = [(FIRST, seq, "MESSAGE_CREATE") for seq in (1, 2, 3)] + [(SECOND, seq, "MESSAGE_CREATE") for seq in (1, 2)]


def kept(*places: tuple[str, int]) -> list[ReceivedEvent]:
    events = [Event("MESSAGE_CREATE", (0, 1), seq, None, session_label(name), AT, b"{}") for name, seq in places]
    return [decode_document(event.document) for event in events]


def gap(name: str, first: int, last: int | None) -> ReceivedEvent:
    lost = LostEvents(LossKind.PUBLISHER, "bus", first, last, "the disk was empty", AT, AT)
    return decode_document(gap_record((0, 1), session_label(name), AT, lost).document)


WHOLE = [(name, seq) for name, seq, _ in SENT]
LATER = kept(*WHOLE[2:])


def test_everything_once_and_in_order_has_no_faults() -> None:
    verdict = judge(SENT, kept(*WHOLE))
    assert (verdict.sent, verdict.faults(may_lose=False)) == (5, [])


CASES: list[tuple[Sequence[ReceivedEvent], bool, list[str]]] = [
    (kept(*WHOLE[:4]), False, ["1 events are missing", "1 events are missing and not told"]),
    (kept(*WHOLE[:4]), True, ["1 events are missing and not told"]),
    (kept(*WHOLE, WHOLE[4]), False, ["1 events are there twice"]),
    (kept(*WHOLE, (SECOND, 9)), False, ["1 events were never sent"]),
    (
        kept(WHOLE[0], WHOLE[2], WHOLE[1], *WHOLE[3:]),
        False,
        ["1 events of a shard come before earlier ones"],
    ),
    (kept(*WHOLE[3:], *WHOLE[:3]), False, ["3 events of a shard come before earlier ones"]),
    ([gap(FIRST, 1, 2), *LATER], True, []),
    ([gap(FIRST, 1, 2), *LATER], False, ["2 events are missing"]),
    ([gap(FIRST, 1, 1), *LATER], True, ["1 events are missing and not told"]),
    ([gap(FIRST, 1, 3), *LATER], True, ["1 events are told as lost and are there"]),
    ([gap(SECOND, 1, None), *kept(*WHOLE[:3])], True, []),
]


@pytest.mark.parametrize(("found", "may_lose", "faults"), CASES)
def test_each_fault_is_noticed(found: Sequence[ReceivedEvent], may_lose: bool, faults: list[str]) -> None:
    assert judge(SENT, found).faults(may_lose=may_lose) == faults
