"""Restart, pause and unpause of one driver on in-memory connections: what is sent, what is waited for, what is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from discorder.clock import settle_loop
from discorder.errors import ConnectFailed
from discorder.shard.driver import ShardDriver
from discorder.statemachine import Session, ShardMachine, State
from discorder.statemachine.triggers import Pause, Restart, Unpause
from discorder.wire import RESUMABLE_CLOSE, Event, Op
from tests.harness import Hasty, Unlucky

if TYPE_CHECKING:
    from tests.shard.conftest import Drive, Driven

STORED = Session("stored", "ws://resume.test")


async def test_a_restart_closes_resumably_and_resumes_within_a_second(driven: Driven) -> None:
    """Close code 4000 keeps the session; no IDENTIFY is sent, no attempt is counted."""
    line = await driven.is_ready()
    assert driven.driver.request(Restart()) is None
    await settle_loop()
    assert line.close_codes == [RESUMABLE_CLOSE]
    again = await driven.resumes()
    assert again.ops(Op.IDENTIFY) == []
    assert (driven.tracker.attempts, driven.spent, len(driven.exchange.lines)) == (0, 1, 2)


async def test_a_pause_closes_resumably_and_nothing_is_dialled_for_a_day(driven: Driven) -> None:
    """Then unpause resumes the session. The pause is stored and shown meanwhile."""
    line = await driven.is_ready()
    assert driven.driver.request(Pause()) is None
    began = driven.clock.now()
    for _ in range(24):
        await driven.clock.advance(3600.0)
    assert (line.close_codes, len(driven.exchange.lines)) == ([RESUMABLE_CLOSE], 1)
    assert driven.tracker.state is State.RESTARTING
    assert driven.kept.paused_since == driven.tracker.paused_since == began
    (reason,) = driven.tracker.diagnose().reasons
    assert f"paused by an operator since {began.isoformat(timespec='seconds')}" in reason
    assert "`discorder shards unpause 0`" in reason
    assert driven.tracker.restart_due_at is None
    assert driven.driver.request(Unpause()) is None
    assert (driven.kept.paused_since, driven.tracker.paused_since) == (None, None)
    again = await driven.resumes()
    assert again.ops(Op.IDENTIFY) == []
    assert driven.tracker.diagnose().healthy


async def test_a_restart_ends_a_long_back_off(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the shard would sleep for half a minute."""
    monkeypatch.setattr(Hasty, "uniform", Unlucky.uniform)
    it = drive(ShardMachine(session=STORED))
    await settle_loop()
    for _ in range(12):
        it.line.lose()
        await it.clock.advance(0.0)
        await settle_loop()
        await it.dials_again()
    it.line.lose()
    await settle_loop()
    dials = len(it.exchange.lines)
    await it.clock.advance(1.0)
    assert len(it.exchange.lines) == dials
    assert it.driver.request(Restart()) is None
    await it.clock.advance(0.0)
    await settle_loop()
    assert len(it.exchange.lines) == dials + 1


class Limited(ConnectFailed):
    """The answer of a host that wants to be left alone for a minute."""

    def __init__(self) -> None:
        super().__init__("503", status=503, retry_after=60.0)


@pytest.mark.parametrize("verbs", [(Restart(),), (Pause(), Unpause())], ids=["restart", "pause and unpause"])
async def test_no_verb_shortens_the_wait_that_a_host_asked_for(
    drive: Drive, verbs: Sequence[Restart | Pause | Unpause], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host answered with Retry-After; afterwards one verb is enough for a dial at once."""

    async def refuse(_: object, url: str, deliver: object) -> None:  # the expected signature
        raise Limited

    it = drive(ShardMachine(session=Session("stored", "")))
    monkeypatch.setattr("tests.harness.Line.connect", refuse)
    await settle_loop()
    assert (it.tracker.state, len(it.exchange.lines)) == (State.RESTARTING, 1)
    for _ in range(5):
        for verb in verbs:
            assert it.driver.request(verb) is None
        await it.clock.advance(10.0)
        assert len(it.exchange.lines) == 1
    await it.clock.advance(12.0)
    assert len(it.exchange.lines) == 2


async def test_a_second_restart_while_one_is_due_dials_once(driven: Driven) -> None:
    """Its timer may fire in the same turn of the loop as the first one's."""
    await driven.is_ready()
    driven.driver.request(Restart())
    await settle_loop()
    for _ in range(3):
        driven.clock.call_later(0.25, lambda: driven.driver.request(Restart()))
    await driven.clock.advance(0.25)
    await settle_loop()
    assert len(driven.exchange.lines) == 2
    assert driven.tracker.state is State.CONNECTING
    assert driven.tracker.stats.unexpected_count == 0
    assert [step.trigger for step in driven.tracker.transitions][-4:] == [*["restart"] * 3, "restart_due"]


async def test_a_shard_that_was_paused_in_an_earlier_process_is_not_dialled(drive: Drive) -> None:
    """Not at the start, and not later."""
    it = drive(ShardMachine(session=STORED, paused=True))
    it.tracker.paused_since = it.clock.now()
    await settle_loop()
    await it.clock.advance(7200.0)
    assert (it.exchange.lines, it.tracker.state) == ([], State.RESTARTING)
    it.driver.request(Unpause())
    await it.clock.advance(0.0)
    await settle_loop()
    assert it.line.url == STORED.resume_url


async def test_a_request_from_within_a_transition_is_refused(driven: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    """A publisher is called during a transition. Its request would otherwise overtake the commands of that transition."""
    await driven.is_ready()
    answers: list[str | None] = []
    original = driven.audit.offer_record

    def offer_record(record: Event) -> None:
        original(record)
        answers.append(driven.driver.request(Restart()))

    monkeypatch.setattr(driven.audit, "offer_record", offer_record)
    driven.line.lose()
    await settle_loop()
    monkeypatch.undo()
    assert answers
    assert all("in a transition" in (answer or "") for answer in answers)
    await driven.resumes()


async def test_a_request_before_the_first_step_is_kept(drive: Drive) -> None:
    """The driver exists, and its task has not begun."""
    it = drive(ShardMachine(session=STORED))
    assert isinstance(it.driver, ShardDriver)
    assert it.driver.request(Restart()) == "it has not been started yet"
    assert it.driver.request(Pause()) is None
    await it.clock.advance(60.0)
    assert it.exchange.lines == []
