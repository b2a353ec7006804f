"""When a stored session is forgotten: the whole table, compared with a model of three flags."""

from __future__ import annotations

import itertools

from discorder.plane.session_writer import FORGETS, RETENTION, Retention, RetentionTrigger


def test_every_state_knows_every_trigger() -> None:
    assert set(RETENTION) == set(itertools.product(Retention, RetentionTrigger))


def test_whatever_happens_a_session_is_forgotten_only_when_it_is_lost_the_shard_has_ended_and_all_were_told() -> None:
    """Try all sequences of seven triggers beside the model. No session is forgotten twice."""
    for triggers in itertools.product(RetentionTrigger, repeat=7):
        state, lost, ended = Retention.IN_USE, False, False
        for trigger in triggers:
            forgets = (state, trigger) == FORGETS
            state = RETENTION[state, trigger]
            lost = trigger is RetentionTrigger.DROPPED or (lost and trigger is not RetentionTrigger.SAVED)
            ended = ended or trigger is RetentionTrigger.ENDED
            assert forgets == (lost and ended and trigger is RetentionTrigger.REPORTED), triggers
            lost = lost and not forgets
            assert (
                state in {Retention.DROPPED, Retention.UNREPORTED},
                state in {Retention.UNREPORTED, Retention.ENDED},
            ) == (
                lost,
                ended,
            )


def test_every_state_is_reached() -> None:
    assert set(RETENTION.values()) == set(Retention)
