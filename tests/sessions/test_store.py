"""What a store keeps and by which names, and the description of the in-memory store."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from discorder.logs import logger
from discorder.sessions import Health, MemorySessionStore, StoredSession, StoreState
from discorder.sessions.store import MAX_SEQ, token_key

SESSION = StoredSession(0, 1, "s-1", "wss://resume", 7, None, datetime(2026, 1, 1, tzinfo=UTC))


def test_two_tokens_of_a_bot_are_told_apart_by_what_is_no_token() -> None:
    first, second = "MTIz.abc.first-secret", "MTIz.abc.second-secret"
    assert token_key(first) == token_key(f"Bot {first}") == token_key(f" {first} ")
    assert token_key(first) != token_key(second)
    assert len(token_key(first)) == 16
    assert int(token_key(first), 16)


def test_ready_is_nothing_to_show() -> None:
    """READY has megabytes, and contains the names of guilds."""
    assert "secret" not in repr(replace(SESSION, last_ready=b'{"guilds":["secret"]}'))


def test_a_health_says_why_if_there_is_anything_to_say() -> None:
    assert str(Health(StoreState.OK)) == "ok"
    assert str(Health(StoreState.FAILING, "disk full")) == "failing: disk full"
    assert [state for state in StoreState if Health(state).durable] == [StoreState.OK, StoreState.SET_ASIDE]


def test_every_sequence_that_a_reader_of_the_bus_can_hold_is_a_sequence() -> None:
    for seq in (0, MAX_SEQ):
        assert replace(SESSION, seq=seq).seq == seq
    with pytest.raises(ValueError, match="not a session"):
        replace(SESSION, seq=MAX_SEQ + 1)
    with pytest.raises(ValueError, match="not a session"):
        replace(SESSION, updated_at=datetime(2026, 1, 1))  # noqa: DTZ001  # that is the point


@pytest.mark.parametrize(
    ("take_over", "patience", "warnings"), [(False, 0.0, 0), (True, 0.0, 1), (False, 3.0, 1), (True, 3.0, 1)]
)
async def test_sessions_in_memory_have_no_owner_who_could_be_asked_or_waited_for(
    take_over: bool, patience: float, warnings: int
) -> None:
    """A request to take over or to wait is logged; without one nothing is logged."""
    said: list[str] = []
    sink = logger.add(said.append, level="WARNING")
    await MemorySessionStore().hold([(0, 1)])
    assert said == []
    await MemorySessionStore().hold([(0, 1)], take_over=take_over, patience=patience)
    logger.remove(sink)
    assert len(said) == warnings
