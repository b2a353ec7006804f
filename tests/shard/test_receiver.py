"""How events are received: a stored READY, the effect of a RESUME from an earlier sequence on ``prev``, and breaches."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from discorder.clock import FakeClock
from discorder.errors import ProtocolBreach
from discorder.publishers.delivery.shard_progress import LostSession, ShardDelivery
from discorder.sessions.store import Ordinals
from discorder.shard.receiver import Callbacks, Receiver
from discorder.statemachine import Session
from discorder.statemachine.triggers import Breach, Ready, Resumed, Trigger
from discorder.stats import GatewayStats
from tests.shard.conftest import Audit

SESSION = Session("kept", "wss://resume.example")
READY = b'{"v":10,"session_id":"kept","resume_gateway_url":"wss://resume.example","user":{"id":"1"},"guilds":[]}'


class Read:
    """A receiver whose events and triggers are kept."""

    def __init__(self) -> None:
        self.signals: list[Trigger] = []
        clock = FakeClock()
        self.audit = Audit(clock)
        self.events = self.audit.events
        self.delivery = ShardDelivery(0, lambda: (self.audit,))
        self.receiver = Receiver((0, 1), clock, GatewayStats(), self.delivery, ordinal=Ordinals().take)
        self.began = clock.now()

    def frames(self, *frames: bytes) -> None:
        callbacks = Callbacks(
            signal=self.signals.append,
            hello=lambda _: None,
            acknowledged=lambda: None,
            beat_requested=lambda: None,
        )
        self.receiver.take(frames, callbacks)

    def take(self, *dispatches: tuple[str, int]) -> None:
        made = [
            b'{"op":0,"t":"%s","s":%d,"d":%s}' % (kind.encode(), seq, READY if kind == "READY" else b"{}")
            for kind, seq in dispatches
        ]
        self.frames(*made)

    def opened(self, *dispatches: tuple[str, int]) -> Read:
        self.receiver.connection_opened()
        self.receiver.identifying()
        self.take(("READY", 1), *dispatches)
        return self

    def resumed_from(self, seq: int) -> Read:
        self.receiver.connection_opened()
        self.receiver.resuming(seq)
        self.events.clear()
        self.signals.clear()
        return self

    @property
    def shown(self) -> Sequence[tuple[str, int | None, int | None]]:
        return [(event.type, event.seq, event.prev) for event in self.events]


def test_a_ready_that_no_earlier_process_delivered_is_handed_over_as_it_was_stored() -> None:
    """Discord does not replay READY, so new readers would never see the bot's identity."""
    read = Read()
    read.receiver.adopt(SESSION, None, READY, read.began)
    assert read.shown == [("READY", 1, 0)]
    assert json.loads(read.events[0].data)["session_id"] == "kept"
    assert read.receiver.seq == 1
    read.receiver.resuming(1)
    read.take(("A", 2))
    assert read.shown == [("READY", 1, 0), ("A", 2, 0)]


def test_with_ready_a_session_that_was_still_stored_is_told_of_as_lost() -> None:
    """The stored session belongs to an earlier layout. It is not lost until another session replaces it."""
    read = Read()
    read.delivery.session_lost(
        LostSession((0, 2), "0123456789abcdef", 5, "the shard layout changed", read.began, still_stored=True)
    )
    read.delivery.announce_lost(read.began, ended=True)
    assert read.delivery.lost_sessions == 0
    read.delivery.session_lost(
        LostSession((0, 2), "0123456789abcdef", 5, "the shard layout changed", read.began, still_stored=True)
    )
    read.opened()
    assert read.delivery.lost_sessions == 1


def test_with_a_ready_out_of_the_store_as_well() -> None:
    """The earlier process opened the session and did not publish the gap."""
    read = Read()
    read.delivery.session_lost(LostSession((0, 1), "0123456789abcdef", 5, "op 9", read.began, still_stored=True))
    read.receiver.adopt(SESSION, None, READY, read.began)
    assert read.delivery.lost_sessions == 1


def test_a_ready_that_was_delivered_is_not_handed_over_again() -> None:
    """What preceded the first event of a type is unknown."""
    read = Read()
    read.receiver.adopt(SESSION, 7, READY, read.began)
    assert (read.shown, read.receiver.seq) == ([], 7)
    read.receiver.resuming(7)
    read.take(("A", 8), ("A", 9))
    assert read.shown == [("A", 8, None), ("A", 9, 8)]


def test_after_a_resume_that_reaches_back_prev_tells_nothing_that_is_not_known() -> None:
    """B was last seen after the start of the replay, and C may have been: ``prev`` is neither 0 nor a later number."""
    read = Read().opened(("A", 2), ("B", 4), ("A", 5)).resumed_from(3)
    read.take(("B", 4), ("A", 5), ("C", 6), ("B", 7), ("RESUMED", 8))
    assert read.shown == [("B", 4, None), ("A", 5, None), ("C", 6, None), ("B", 7, 4), ("RESUMED", 8, None)]


def test_after_a_resume_from_where_reading_stopped_prev_goes_on() -> None:
    """Nothing is read twice, so ``prev`` is still known."""
    read = Read().opened(("A", 2), ("B", 4)).resumed_from(4)
    read.take(("A", 5), ("C", 6), ("RESUMED", 7))
    assert read.shown == [("A", 5, 2), ("C", 6, 0), ("RESUMED", 7, 0)]
    assert read.signals == [Resumed()]


def test_the_events_before_a_breach_are_handed_over() -> None:
    """Discord resends the rest of the batch."""
    read = Read().opened(("A", 2))
    with pytest.raises(ProtocolBreach, match="went back from 3 to 2"):
        read.take(("A", 3), ("B", 2), ("A", 4))
    assert read.shown == [("READY", 1, 0), ("A", 2, 0), ("A", 3, 2)]


def test_nothing_may_come_before_ready_and_no_second_one_after_it() -> None:
    """A second READY is published like any other event, and then the connection ends."""
    read = Read()
    with pytest.raises(ProtocolBreach, match="A came although no dispatch"):
        read.take(("A", 1))
    read.receiver.identifying()
    read.take(("A", 1))
    assert read.shown == []
    read.opened()
    read.take(("READY", 2))
    assert [type(signal) for signal in read.signals] == [Ready, Breach]
    with pytest.raises(ProtocolBreach, match="a second READY"):
        read.take(("READY", 9))
    assert read.shown == [("READY", 1, 0), ("READY", 2, 1)]


def test_a_watcher_sees_each_event_after_it_was_handed_over() -> None:
    """This lasts until the watcher is removed."""
    read = Read().opened()
    seen: list[tuple[int | None, int]] = []
    read.receiver.watch(lambda event: seen.append((event.seq, len(read.events))))
    read.take(("A", 2), ("B", 3))
    assert seen == [(2, 3), (3, 3)]
    read.receiver.watch(None)
    read.take(("A", 4))
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("missing", "frame"),
    [
        ("s", b'{"op":0,"t":"A","s":null,"d":{}}'),
        ("s", b'{"op":0,"t":"A","d":{}}'),
    ],
)
def test_a_dispatch_without_a_sequence_is_a_breach_that_says_so(missing: str, frame: bytes) -> None:
    """It is not published."""
    read = Read().opened()
    with pytest.raises(ProtocolBreach, match=f"a dispatch without '{missing}'"):
        read.frames(frame)
    assert read.shown == [("READY", 1, 0)]


def test_an_event_that_comes_again_is_known_among_the_last_ones_however_they_came() -> None:
    """This holds for one large batch, for one that is held only in part, and for small ones. Old sequences are forgotten."""
    read = Read().opened(*[("A", seq) for seq in range(2, 1_000)])
    read.take(("A", 999), ("B", 1_000), ("A", 990))
    for seq in range(1_001, 1_010):
        read.take(("B", seq), ("B", seq))
    read.take(("B", 1_001), ("A", 999))
    assert [event.seq for event in read.events] == list(range(1, 1_010))
    with pytest.raises(ProtocolBreach, match="went back from 1009 to 5"):
        read.take(("A", 5))
