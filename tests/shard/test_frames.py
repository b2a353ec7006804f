"""What a receiver does with each frame besides publishing events: triggers, counts, the visible session, the end of a replay."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from discorder.clock import FakeClock
from discorder.errors import ProtocolBreach, SessionInvalidated
from discorder.publishers.delivery.shard_progress import ShardDelivery
from discorder.sessions.store import Ordinals
from discorder.shard.receiver import Callbacks, Receiver
from discorder.statemachine import Session
from discorder.statemachine.triggers import Hello, InvalidResumable, InvalidSession, Ready, Reconnect, Resumed, Trigger
from discorder.stats import GatewayStats
from discorder.wire import session_label
from tests.shard.conftest import Audit

SESSION = Session("kept", "wss://resume.example")
READY = b'{"v":10,"session_id":"%s","resume_gateway_url":"wss://resume.example"}'


class Heard:
    """A receiver, with everything that it posts."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self.clock = FakeClock()
        self.stats = GatewayStats()
        self.audit = Audit(self.clock)
        self.events = self.audit.events
        self.delivery = ShardDelivery(0, lambda: (self.audit,))
        self.receiver = Receiver((0, 1), self.clock, self.stats, self.delivery, ordinal=Ordinals().take)

    def take(self, *frames: bytes) -> None:
        """Deliver one batch."""
        self.receiver.take(
            frames,
            Callbacks(
                signal=self.said.append,
                hello=self.said.append,
                acknowledged=lambda: self.said.append("acknowledged"),
                beat_requested=lambda: self.said.append("beat requested"),
            ),
        )

    def identified(self, session_id: bytes = b"s1") -> Heard:
        self.receiver.connection_opened()
        self.receiver.identifying()
        self.take(dispatch("READY", 1, READY % session_id))
        return self

    def resuming(self, seq: int) -> Heard:
        self.receiver.connection_opened()
        self.receiver.resuming(seq)
        self.said.clear()
        self.events.clear()
        return self

    @property
    def shown(self) -> list[tuple[str, int | None, int | None]]:
        return [(event.type, event.seq, event.prev) for event in self.events]

    @property
    def replayed(self) -> list[int]:
        """Return the number of events in each record of a finished replay."""
        return [
            msgspec.json.decode(one.data)["replayed"] for one in self.audit.records if one.type == "DISCORDER_RESUMED"
        ]

    @property
    def connection(self) -> tuple[object, ...]:
        """Return the receiver's view of the connection."""
        return self.receiver.dispatched, self.receiver.last_dispatch_at

    @property
    def session(self) -> tuple[object, ...]:
        """Return the receiver's view of the session."""
        return self.receiver.seq, self.receiver.label, self.receiver.ready


def dispatch(kind: str, seq: int, data: bytes = b"{}") -> bytes:
    return b'{"op":0,"t":"%s","s":%d,"d":%s}' % (kind.encode(), seq, data)


def same(said: list[object], *expected: Trigger) -> bool:
    return [type(one) for one in said] == [type(one) for one in expected]


# ---------------------------------------------------------------- frames that are no events


def test_hello_gives_the_interval_in_seconds_and_is_not_counted() -> None:
    """The interval is set first: the heartbeat starts on Hello and needs it."""
    heard = Heard()
    heard.take(b'{"op":10,"d":{"heartbeat_interval":41250}}')
    assert heard.said == [41.25, Hello()]
    assert heard.stats == GatewayStats()
    assert heard.replayed == []


def test_every_other_frame_is_counted_and_told_of() -> None:
    """ACK, op 1, op 7, both kinds of op 9, and opcodes unknown to this version."""
    heard = Heard()
    heard.take(b'{"op":11}', b'{"op":1,"d":null}', b'{"op":7,"d":null}', b'{"op":77}', b'{"op":77}', b'{"op":78}')
    assert heard.said == ["acknowledged", "beat requested", Reconnect()]
    assert (heard.stats.event_count, heard.stats.heartbeat_received_count) == (6, 1)
    assert heard.stats.unknown_opcodes == {77: 2, 78: 1}
    heard.said.clear()
    heard.take(b'{"op":9,"d":true}', b'{"op":9,"d":false}')
    assert same(heard.said, InvalidResumable(SessionInvalidated()), InvalidSession(SessionInvalidated()))
    assert heard.stats.event_count == 8


def test_what_cannot_be_read_is_a_breach_that_says_how_long_it_was() -> None:
    """The error gives the length, not the text, which may be private."""
    with pytest.raises(ProtocolBreach, match="a frame of 7 bytes cannot be read"):
        Heard().take(b"garbage")


# ---------------------------------------------------------------- the session and the connection


def test_who_has_seen_nothing_knows_of_no_session() -> None:
    """There is no dispatch either."""
    heard = Heard()
    assert heard.session == (None, None, None)
    assert heard.connection == (False, None)


def test_ready_opens_a_session_whose_events_are_counted() -> None:
    """The session shows the counts by type, and when it was opened."""
    heard = Heard()
    opened_at = heard.clock.now()
    heard.identified()
    heard.take(dispatch("A", 2), dispatch("A", 3))
    assert heard.stats.events_by_type == {"READY": 1, "A": 2}
    assert (heard.stats.event_count, heard.stats.published_event_count) == (3, 3)
    assert heard.stats.ready_time == opened_at
    assert heard.session == (3, session_label("s1"), heard.events[0])
    assert heard.said == [Ready(Session("s1", "wss://resume.example"))]


def test_a_second_session_begins_with_nothing_of_the_first() -> None:
    """The sequence starts anew, and so does ``prev``."""
    heard = Heard().identified()
    heard.take(dispatch("A", 2))
    heard.receiver.forget_session()
    assert heard.session == (None, None, None)
    heard.events.clear()
    heard.identified(b"s2").take(dispatch("A", 2))
    assert heard.shown == [("READY", 1, 0), ("A", 2, 0)]
    assert heard.receiver.ready == heard.events[0]


def test_an_ordinary_ready_does_not_wait_for_the_reader_of_odd_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its regular expression takes 50 ms to compile, on a busy machine ten times that, and would delay storing READY."""

    def compiled(_: bytes) -> dict[bytes, bytes]:
        pytest.fail("READY needs it")

    monkeypatch.setattr("discorder.shard.payloads.split_object", compiled)
    assert Heard().identified().receiver.label == session_label("s1")


def test_an_event_after_the_session_was_given_up_is_a_breach() -> None:
    """It belongs to no session."""
    heard = Heard().identified()
    heard.receiver.forget_session()
    with pytest.raises(ProtocolBreach, match="A came without a session"):
        heard.take(dispatch("A", 2))


def test_a_session_of_an_earlier_process_shows_its_ready_as_of_now_and_is_delivered_up_to_there() -> None:
    """The time of its opening is unknown."""
    heard = Heard()
    heard.clock.jump_wall(60.0)
    heard.receiver.adopt(SESSION, 7, READY % b"kept", heard.clock.now() - timedelta(hours=1))
    ready = heard.receiver.ready
    assert ready is not None
    assert (ready.type, ready.shard, ready.seq, ready.prev) == ("READY", (0, 1), 1, 0)
    assert (ready.session, ready.received_at) == (session_label("kept"), heard.clock.now())
    assert heard.delivery.delivered(session_label("kept")) == 7


def test_a_new_connection_has_dispatched_nothing_and_may_not_yet() -> None:
    """Only a dispatch on this connection shows that the server accepts the session."""
    heard = Heard().identified()
    known = [heard.connection]
    heard.receiver.connection_opened()
    assert [*known, heard.connection] == [(True, 0.0), (False, None)]
    with pytest.raises(ProtocolBreach, match="no dispatch before"):
        heard.take(dispatch("A", 2))


def test_a_sequence_that_does_not_move_is_a_breach() -> None:
    """Each event needs a sequence of its own."""
    with pytest.raises(ProtocolBreach, match="went back from 2 to 2 with B"):
        Heard().identified().take(dispatch("A", 2), dispatch("B", 2))


# ---------------------------------------------------------------- the end of a replay


def test_the_events_of_a_replay_are_counted_without_resumed_and_what_follows_it() -> None:
    """The replay takes two batches. The record comes once, after the events."""
    heard = Heard().identified().resuming(1)
    heard.take(dispatch("A", 2))
    assert heard.replayed == []
    heard.take(dispatch("A", 3), dispatch("A", 4), dispatch("RESUMED", 5), dispatch("B", 6), dispatch("B", 7))
    assert heard.replayed == [3]
    assert heard.said == [Resumed()]
    heard.take(dispatch("RESUMED", 8), dispatch("A", 9))
    assert heard.said == [Resumed()], "one that is replayed, of an earlier resume"
    assert heard.replayed == [3]


def test_a_replay_that_was_cut_off_does_not_end_in_a_later_session() -> None:
    """A RESUMED in a later session does not answer the RESUME of another connection."""
    heard = Heard().identified().resuming(1).identified(b"s2")
    heard.take(dispatch("RESUMED", 2))
    assert heard.replayed == []


def test_events_that_resume_named_are_known_to_have_come() -> None:
    """B is the last event before the replay: the ``prev`` of the next B is its sequence."""
    heard = Heard().identified()
    heard.take(dispatch("A", 2), dispatch("B", 3), dispatch("C", 4))
    heard.resuming(3).take(dispatch("C", 4), dispatch("B", 5))
    assert heard.shown == [("C", 4, None), ("B", 5, 3)]


@pytest.mark.parametrize(
    ("frames", "published"),
    [
        ([("A", 1), ("B", 2), ("RESUMED", 3)], [2, 3]),
        ([("RESUMED", 1)], []),
        ([("A", 2), ("RESUMED", 2)], [2]),
    ],
)
def test_what_was_published_already_is_no_news_and_resumed_is_heard_all_the_same(
    frames: list[tuple[str, int]], published: list[int]
) -> None:
    """Servers other than Discord's replay one event too many, or send RESUMED without a sequence of its own."""
    heard = Heard().identified().resuming(1)
    heard.take(*(dispatch(kind, seq) for kind, seq in frames))
    assert [event.seq for event in heard.events] == published
    assert heard.said == [Resumed()]
    assert heard.replayed == [len([kind for kind, seq in frames if kind != "RESUMED" and seq > 1])]


def test_what_comes_twice_in_a_replay_is_published_once() -> None:
    """This holds for events from before RESUME and from the replay itself."""
    heard = Heard().identified().resuming(1)
    heard.take(dispatch("A", 2), dispatch("B", 2), dispatch("READY", 1, READY % b"s1"), dispatch("C", 3))
    assert heard.shown == [("A", 2, 0), ("C", 3, 0)]
