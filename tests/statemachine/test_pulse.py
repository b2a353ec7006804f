"""Heartbeat bookkeeping: when a connection counts as dead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discorder.statemachine.heartbeat import Pulse

INTERVALS = st.floats(0.1, 120.0)
SHARES = st.floats(0.0, 1.0)


def test_before_the_first_beat_nothing_is_due() -> None:
    """Without a beat no ACK can be missing."""
    pulse = Pulse(40.0, at=0.0)
    assert pulse.zombie_at() is None
    assert not pulse.is_zombie(1e9)
    assert pulse.unanswered_for(10.0) is None


def test_silence_after_a_beat_is_death_after_half_an_interval() -> None:
    """Without an ACK or any other frame, half an interval is enough."""
    pulse = Pulse(40.0, at=0.0)
    pulse.sent(10.0)
    assert not pulse.is_zombie(29.9)
    assert pulse.is_zombie(30.0)
    assert pulse.unanswered_for(25.0) == 15.0


def test_other_frames_give_a_connection_longer_but_not_for_ever() -> None:
    """A busy connection that does not acknowledge is dead after one and a half intervals."""
    pulse = Pulse(40.0, at=0.0)
    pulse.sent(10.0)
    for at in range(11, 100):
        pulse.frame(float(at))
        assert pulse.is_zombie(float(at)) == (at >= 70)


def test_a_beat_into_new_silence_is_judged_by_itself() -> None:
    """A frame between two beats does not count for the second one: half an interval of silence after it is enough."""
    pulse = Pulse(40.0, at=0.0)
    pulse.sent(0.0)
    pulse.frame(1.0)
    pulse.sent(5.0)  # requested by op 1
    assert pulse.zombie_at() == 25.0


def test_a_quiet_guild_is_alive_while_it_acknowledges() -> None:
    """ACKs alone are enough, without a time limit."""
    pulse = Pulse(40.0, at=0.0)
    for beat in range(100):
        pulse.sent(beat * 40.0)
        pulse.frame(beat * 40.0 + 0.1)
        pulse.acknowledged(beat * 40.0 + 0.1)
        assert not pulse.is_zombie((beat + 1) * 40.0)


def test_a_frame_that_is_no_answer_does_not_end_the_waiting() -> None:
    """Only op 11 acknowledges."""
    pulse = Pulse(40.0, at=0.0)
    pulse.sent(0.0)
    pulse.frame(59.0)
    assert pulse.is_zombie(60.0)


def test_the_round_trip_is_measured_from_the_beat() -> None:
    """It counts from the oldest unanswered beat. An ACK without a beat measures nothing."""
    pulse = Pulse(40.0, at=0.0)
    pulse.sent(10.0)
    pulse.acknowledged(10.25)
    assert (pulse.round_trip, pulse.last_ack_at) == (0.25, 10.25)
    pulse.acknowledged(11.0)
    assert (pulse.round_trip, pulse.last_ack_at) == (0.25, 11.0)
    unasked = Pulse(40.0, at=0.0)
    unasked.acknowledged(1.0)
    assert unasked.round_trip is None


def test_silence_counts_from_the_beginning_and_then_from_the_last_frame() -> None:
    """Hello counts as the last frame until another arrives, and no frame counts as an ACK."""
    pulse = Pulse(40.0, at=3.0)
    assert (pulse.last_frame_at, pulse.last_ack_at) == (3.0, None)
    pulse.frame(7.0)
    assert (pulse.last_frame_at, pulse.last_ack_at) == (7.0, None)


@pytest.mark.parametrize("interval", [0.0, -1.0, float("nan")])
def test_an_interval_must_be_positive(interval: float) -> None:
    """A Hello with an interval that is not positive is refused."""
    with pytest.raises(ValueError, match="positive"):
        Pulse(interval, at=0.0)


@given(INTERVALS, SHARES, st.lists(st.tuples(st.floats(0.0, 0.49), st.lists(SHARES, max_size=4)), max_size=20))
def test_never_a_zombie_while_each_beat_is_answered_within_half_an_interval(
    interval: float, jitter: float, beats: list[tuple[float, list[float]]]
) -> None:
    """This holds whatever else arrives between, and at every moment."""
    pulse = Pulse(interval, at=0.0)
    for number, (answered, others) in enumerate(beats):
        start = (jitter + number) * interval
        moments = sorted([(answered, "ack"), *((share, "frame") for share in others)])
        assert not pulse.is_zombie(start)
        pulse.sent(start)
        for share, kind in moments:
            at = start + share * interval
            assert not pulse.is_zombie(at)
            pulse.frame(at)
            if kind == "ack":
                pulse.acknowledged(at)


@given(INTERVALS, SHARES, st.lists(st.tuples(SHARES, st.booleans()), max_size=12))
def test_always_a_zombie_within_one_and_a_half_intervals_of_the_last_frame(
    interval: float, jitter: float, early: list[tuple[float, bool]]
) -> None:
    """Beats are sent each interval. Once nothing arrives, death is noticed, whatever came before."""
    pulse = Pulse(interval, at=0.0)
    last_frame = 0.0
    for number, (share, acknowledges) in enumerate(early):
        start = (jitter + number) * interval
        pulse.sent(start)
        last_frame = start + share * interval
        pulse.frame(last_frame)
        if acknowledges:
            pulse.acknowledged(last_frame)
    for number in (len(early), len(early) + 1):  # nothing arrives from here on
        at = (jitter + number) * interval
        if at >= last_frame:
            pulse.sent(at)
    due = pulse.zombie_at()
    assert due is not None
    assert due <= last_frame + 1.5 * interval + 1e-6 * interval


@given(INTERVALS, st.floats(0.0, 1e6))
def test_the_moment_it_names_is_the_moment_it_dies(interval: float, at: float) -> None:
    """A zombie is found exactly at `zombie_at`, and not an instant earlier."""
    pulse = Pulse(interval, at=at)
    pulse.sent(at)
    due = pulse.zombie_at()
    assert due is not None
    assert pulse.is_zombie(due)
    assert not pulse.is_zombie(due - interval / 100)


# ---------------------------------------------------------------- probes


def test_a_probe_wants_its_answer_in_five_seconds_whatever_else_arrives() -> None:
    """After a jump of the clocks only an ACK proves that the socket survived."""
    pulse = Pulse(40.0, at=0.0)
    pulse.probe(10.0)
    pulse.sent(10.0)
    pulse.frame(14.0)
    assert pulse.zombie_at() == 15.0
    assert not pulse.is_zombie(14.9)
    assert pulse.is_zombie(15.0)
    assert pulse.probed_for(15.0) == 5.0


def test_an_answered_probe_leaves_nothing_behind() -> None:
    """The next beat has its usual time."""
    pulse = Pulse(40.0, at=0.0)
    pulse.probe(10.0)
    pulse.sent(10.0)
    pulse.acknowledged(10.1)
    assert pulse.zombie_at() is None
    assert pulse.probed_for(20.0) is None
    pulse.sent(20.0)
    assert pulse.zombie_at() == 40.0


def test_a_second_probe_gives_the_first_no_more_time() -> None:
    """Repeated clock jumps do not hide a dead socket."""
    pulse = Pulse(40.0, at=0.0)
    pulse.probe(10.0)
    pulse.probe(14.0)
    assert pulse.zombie_at() == 15.0


def test_a_probe_whose_beat_cannot_be_written_is_unanswered_too() -> None:
    """The age counts from the request, not from a write that may hang."""
    pulse = Pulse(40.0, at=0.0)
    pulse.probe(10.0)
    assert pulse.is_zombie(15.0)


def test_a_probe_takes_no_time_from_a_beat_that_is_overdue() -> None:
    """The earliest of the three moments counts."""
    pulse = Pulse(4.0, at=0.0)
    pulse.sent(10.0)
    pulse.probe(10.0)
    assert pulse.zombie_at() == 12.0
