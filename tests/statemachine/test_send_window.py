"""Discord's send limits as arithmetic: what may be sent when, within the limits of a server that counts strictly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discorder.statemachine.send_window import (
    LARGEST_RESERVE,
    MARGIN,
    PLAIN,
    PRESENCE,
    SEND_LIMIT,
    CommandLimit,
    Quota,
    SendWindow,
    reserve_for,
)

GUILD = Quota(CommandLimit.WHOLE_GUILD, 1)


def most_within(times: list[float], seconds: float) -> int:
    """Return the largest number of ``times`` (ascending) within a half-open window of ``seconds``."""
    return max((sum(start <= at < start + seconds for at in times) for start in times), default=0)


def opened(interval: float = 41.25) -> SendWindow:
    window = SendWindow()
    window.connection_opened(interval)
    return window


@pytest.mark.parametrize(("interval", "reserve"), [(41.25, 5), (60.0, 4), (10.0, 9), (1.0, 60), (0.1, 60)])
def test_the_reserve_is_what_a_connection_beats_and_a_little_more(interval: float, reserve: int) -> None:
    """docs/protocol.md#send-limit: ceil(60 / interval) + 3, but never more than half of the window."""
    assert reserve_for(interval) == reserve <= LARGEST_RESERVE


def test_a_burst_is_sent_at_once_up_to_the_reserve_and_the_next_command_waits_for_the_first_to_age() -> None:
    """The window slides: the next command may go when the oldest one leaves it."""
    window = opened()
    for number in range(115):
        assert window.due(PLAIN, number / 100) == number / 100
        window.sent(PLAIN, number / 100)
    assert window.due(PLAIN, 2.0) == 60.0 + MARGIN
    assert window.due(PLAIN, 61.0) == 61.0
    window.sent(PLAIN, 61.0)
    assert window.due(PLAIN, 61.0) == pytest.approx(61.01)


def test_control_frames_use_the_reserve_and_only_what_exceeds_it_takes_from_the_commands() -> None:
    """A server that asks for many beats leaves fewer commands. The beats themselves are never delayed."""
    window = opened()
    for _ in range(5):
        window.control_sent(0.0)
    for _ in range(114):
        window.sent(PLAIN, 1.0)
    assert window.due(PLAIN, 2.0) == 2.0
    window.control_sent(2.0)
    assert window.due(PLAIN, 2.0) == 60.0 + MARGIN


def test_discord_counts_a_new_connection_anew_but_not_presences_and_guilds() -> None:
    """The 120 in 60 s are per connection (docs/protocol.md#send-limit). For the others nothing like that is documented."""
    window = opened()
    for _ in range(5):
        window.sent(PRESENCE, 0.0)
    window.sent(GUILD, 0.0)
    for _ in range(109):
        window.sent(PLAIN, 0.0)
    assert window.due(PLAIN, 1.0) == 61.0
    window.connection_opened(41.25)
    assert window.due(PLAIN, 1.0) == 1.0
    assert window.due(PRESENCE, 1.0) == 20.0 + MARGIN
    assert window.due(GUILD, 1.0) == 30.0 + MARGIN
    assert window.due(Quota(CommandLimit.WHOLE_GUILD, 2), 1.0) == 1.0


def test_discords_own_word_about_a_guild_is_kept() -> None:
    """RATE_LIMITED may name more than 30 s. It never shortens a known wait."""
    window = opened()
    window.sent(GUILD, 0.0)
    window.hold_guild(1, 5.0, 2.0)
    assert window.due(GUILD, 6.0) == 31.0
    window.hold_guild(1, 5.0, 42.0)
    assert window.due(GUILD, 6.0) == 48.0
    assert window.due(GUILD, 48.5) == 48.5


def test_slowed_down_half_as_many_go_and_the_rest_when_the_minute_is_over() -> None:
    """After 4008: 57 of 115."""
    window = opened()
    window.slow_down(60.0)
    sent = 0
    while window.due(PLAIN, 10.0) <= 10.0:
        window.sent(PLAIN, 10.0)
        sent += 1
    assert sent == 57
    assert window.due(PLAIN, 10.0) == 60.0
    window.slow_down(30.0)
    assert window.due(PLAIN, 40.0) == 60.0
    window.slow_down(120.0)
    assert window.due(PLAIN, 40.0) == 71.0


@given(
    st.floats(5.0, 60.0),
    st.lists(
        st.tuples(st.floats(0.0, 40.0), st.sampled_from([PLAIN, PRESENCE, GUILD]), st.integers(1, 80)), max_size=12
    ),
    st.floats(0.0, MARGIN),
    st.floats(0.0, 300.0),
)
def test_whatever_a_bot_wants_no_window_of_a_strict_server_is_overrun(
    interval: float, wanted: list[tuple[float, Quota, int]], jitter: float, slow_until: float
) -> None:
    """Each command goes at the announced moment. Control frames arrive late by as much as the margin covers."""
    window = opened(interval)
    window.slow_down(slow_until)
    beats = [number * interval for number in range(400)]
    now, sent = 0.0, list[tuple[float, Quota | None]]()

    def beat_until(moment: float) -> None:
        while beats and beats[0] <= moment:
            window.control_sent(beats[0])
            sent.append((beats.pop(0), None))

    for pause, quota, count in wanted:
        now += pause
        for _ in range(count if quota is PLAIN else min(count, 7)):
            beat_until(now)
            while (due := window.due(quota, now)) > now:
                assert window.due(quota, due) == due, "the moment that is named is one at which it may go"
                now = due
                beat_until(now)
            window.sent(quota, now)
            sent.append((now, quota))
    delayed = [(at + (jitter if number % 2 else 0.0), quota) for number, (at, quota) in enumerate(sent)]
    arrived = sorted(delayed, key=lambda one: one[0])
    assert most_within([at for at, _ in arrived], 60.0) <= SEND_LIMIT
    assert most_within([at for at, quota in arrived if quota is PRESENCE], 20.0) <= 5
    assert most_within([at for at, quota in arrived if quota is GUILD], 30.0) <= 1
