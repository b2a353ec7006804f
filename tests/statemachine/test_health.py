"""The verdict on one shard and on the event loop that all of them share: reasons in words, from ages."""

from __future__ import annotations

import pytest

from discorder.statemachine import State
from discorder.statemachine.health import Ages, judge, judge_loop


def test_a_shard_that_is_ready_and_answers_is_healthy() -> None:
    """The ages do not matter: a quiet guild sends nothing but ACKs."""
    verdict = judge(State.READY, Ages(in_state=1e6, last_frame=40.0, last_dispatch=9e5), zombie=False, cause="op 7")
    assert (verdict.healthy, verdict.reasons) == (True, ())


def test_an_unanswered_beat_is_named_with_its_age_and_that_of_the_last_frame() -> None:
    verdict = judge(State.READY, Ages(100.0, last_frame=30.0, unanswered_beat=21.0), zombie=True, cause=None)
    assert verdict.reasons == ("a heartbeat is unanswered for 21.0 s, last frame 30.0 s ago",)


def test_an_unanswered_probe_is_told_from_a_beat() -> None:
    """A probe is sent because the clocks jumped, and had less time."""
    ages = Ages(100.0, last_frame=30.0, unanswered_beat=5.2, unanswered_probe=5.2)
    verdict = judge(State.READY, ages, zombie=True, cause=None)
    assert verdict.reasons == ("a probe is unanswered for 5.2 s, since the clocks jumped, last frame 30.0 s ago",)


def test_a_state_other_than_ready_is_a_reason_with_age_and_cause() -> None:
    verdict = judge(State.RESTARTING, Ages(2.0), zombie=False, cause="closed: by peer")
    assert verdict.reasons == ("Restarting for 2.0 s; closed: by peer",)


@pytest.mark.parametrize(("lag", "reasons"), [(0.0, 0), (4.9, 0), (5.0, 1), (60.0, 1)])
def test_a_loop_is_a_reason_once_an_answer_to_a_probe_would_come_too_late(lag: float, reasons: int) -> None:
    assert len(judge_loop(lag)) == reasons
    assert all(f"held up for {lag:.1f} s" in reason for reason in judge_loop(lag))
