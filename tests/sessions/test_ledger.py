"""The arithmetic of the identify ledger: docs/protocol.md#identify, docs/protocol.md#session-start-limit."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discorder.sessions import Grant, Ledger, Refusal, RefusalCause, StartLimit
from discorder.sessions.identify_budget import HOLD, Later, Taken
from discorder.sessions.ledger import DAY, SPACING

NOW = 1_700_000_000.0
HOUR_MS = 3_600_000


def limit(
    remaining: int = 1000, *, total: int = 1000, reset_after_ms: int = HOUR_MS, max_concurrency: int = 1
) -> StartLimit:
    return StartLimit(total, remaining, reset_after_ms, max_concurrency)


def ledger(remaining: int = 1000, *, total: int = 1000) -> Ledger:
    return Ledger().reconciled(limit(remaining, total=total), at=NOW, now=NOW)


def until(decision: Grant | Refusal) -> float:
    assert isinstance(decision, Refusal)
    assert decision.cause is RefusalCause.BUDGET
    return decision.until.timestamp()


@pytest.mark.parametrize(("remaining", "spendable"), [(1000, 900), (101, 1)])
def test_what_lies_above_the_reserve_is_granted(remaining: int, spendable: int) -> None:
    assert ledger(remaining).decide(NOW, 1) == Grant(spendable)


def test_at_the_reserve_it_refuses_until_discords_reset() -> None:
    assert until(ledger(100).decide(NOW, 1)) == NOW + 3600


def test_the_reserve_is_one_identify_per_shard_if_that_is_more() -> None:
    assert ledger(300).decide(NOW, 299) == Grant(1)
    assert isinstance(ledger(300).decide(NOW, 300), Refusal)


def test_debits_since_the_look_up_count_against_what_discord_said() -> None:
    assert ledger(102).debited("a", NOW).decide(NOW, 1) == Grant(1)
    assert isinstance(ledger(102).debited("a", NOW).debited("b", NOW).decide(NOW, 1), Refusal)


def test_paying_twice_for_one_ticket_is_paying_once() -> None:
    assert ledger(102).debited("a", NOW).debited("a", NOW + 1) == ledger(102).debited("a", NOW)


def test_after_discords_reset_the_whole_allowance_is_there_again() -> None:
    assert ledger(100).decide(NOW + 3600, 1) == Grant(900)


def test_no_reset_in_sight_is_not_a_reset_that_has_passed() -> None:
    """Discord sends 0 while no window runs: the remaining count still holds, and a refused request retries in a minute."""
    none = Ledger().reconciled(StartLimit(1000, 103, 0, 1), at=NOW, now=NOW)
    assert none.spendable(NOW + 1, 1) == 3
    spent = Ledger().reconciled(StartLimit(1000, 100, 0, 1), at=NOW, now=NOW).decide(NOW + 1, 1)
    assert until(spent) == NOW + 61


def test_a_refusal_in_the_moment_of_a_look_up_without_a_reset_asks_again_in_a_minute_too() -> None:
    """No window ends now, so a retry in a second would be of no use."""
    spent = Ledger().reconciled(StartLimit(1000, 100, 0, 1), at=NOW, now=NOW)
    assert until(spent.decide(NOW, 1)) == NOW + 60


def test_what_only_discords_count_forbids_waits_for_discords_reset_alone() -> None:
    """Our own count still allows one more, so no debit of ours has to become a day old first."""
    assert until(ledger(500).decide(NOW, 999)) == NOW + 3600


def test_where_every_own_debit_is_too_many_the_newest_has_to_be_a_day_old() -> None:
    """The reserve leaves one IDENTIFY a day: the next one is allowed a day after the last, not a day after the request."""
    spent = ledger(1000).debited("a", NOW)
    assert until(spent.decide(NOW + 100, 999)) == NOW + DAY


def test_own_debits_of_a_day_bound_what_a_reset_would_allow() -> None:
    spent = ledger()
    for number in range(900):
        spent = spent.debited(str(number), NOW + number).sent(0, str(number), NOW + number)
    after = NOW + 7200
    fresh = spent.reconciled(limit(1000), at=after, now=after)
    assert until(fresh.decide(after, 1)) == NOW + DAY
    assert fresh.decide(NOW + DAY, 1) == Grant(1)


def test_a_refund_gives_back_only_what_was_not_sent() -> None:
    paid = ledger(102).debited("a", NOW)
    assert paid.refunded(0, "a") == ledger(102)
    assert paid.refunded(0, "unknown") == paid
    sent = paid.sent(0, "a", NOW + 1)
    assert sent.refunded(0, "a") == sent


def test_sending_on_an_unknown_ticket_is_paid_for_all_the_same() -> None:
    assert ledger().sent(0, "lost", NOW).spendable(NOW, 1) == 899


def test_a_debit_that_was_not_sent_counts_beyond_the_next_look_up() -> None:
    paid = ledger().debited("a", NOW)
    soon = paid.reconciled(limit(1000), at=NOW + 10, now=NOW + 10)
    late = paid.reconciled(limit(1000), at=NOW + 66, now=NOW + 66)
    assert (soon.unsettled, late.unsettled) == (1, 0)


@pytest.mark.parametrize(("after", "unsettled"), [(4.9, 1), (5.0, 0)])
def test_a_look_up_counts_what_was_sent_five_seconds_before_it(after: float, unsettled: int) -> None:
    at = NOW + after
    assert ledger().sent(0, "a", NOW).reconciled(limit(999), at=at, now=at).unsettled == unsettled


def test_a_late_send_counts_although_a_look_up_had_given_its_ticket_up() -> None:
    late = ledger().debited("a", NOW).reconciled(limit(1000), at=NOW + 66, now=NOW + 66)
    assert late.sent(0, "a", NOW + 67).unsettled == 1


def test_a_look_up_that_is_older_than_the_one_at_hand_changes_nothing() -> None:
    newer = ledger(500)
    assert newer.reconciled(limit(900), at=NOW - 1, now=NOW + 1) == newer


def test_a_faster_fall_than_our_own_means_another_process() -> None:
    paid = ledger(500).debited("a", NOW).sent(0, "a", NOW)
    ours = paid.reconciled(limit(499), at=NOW + 60, now=NOW + 60).look_up
    theirs = paid.reconciled(limit(490), at=NOW + 60, now=NOW + 60).look_up
    assert ours is not None
    assert theirs is not None
    assert (ours.foreign, theirs.foreign) == (0, 9)


def test_the_reset_between_two_look_ups_is_nobodys_doing() -> None:
    later = NOW + 3601
    look_up = ledger(100).reconciled(limit(1000), at=later, now=later).look_up
    assert look_up is not None
    assert look_up.foreign == 0


def test_a_clock_set_back_neither_loses_debits_nor_parks_for_longer_than_a_day() -> None:
    spent = ledger(101).debited("a", NOW)
    refused = spent.decide(NOW - 7200, 1)
    assert NOW - 7200 < until(refused) <= NOW - 7200 + DAY
    assert len(spent.tidied(NOW - 7200).debits) == 1
    assert not spent.tidied(NOW - 7200).tidied(NOW - 7200 + DAY).debits


def test_a_clock_set_back_does_not_make_a_debit_sent_that_was_not() -> None:
    """Both count from now on, and an unsent ticket can still be refunded."""
    spent = ledger().debited("a", NOW).debited("b", NOW).sent(0, "b", NOW).tidied(NOW - 60)
    assert {key: (debit.at, debit.sent_at) for key, debit in spent.debits.items()} == {
        "a": (NOW - 60, None),
        "b": (NOW - 60, NOW - 60),
    }


def test_no_send_lies_in_the_future_of_a_clock_that_was_set_back_between_ticket_and_send() -> None:
    """The same holds for a ticket that was paid for before the clock was set back."""
    slow = ledger().debited("a", NOW).sent(0, "a", NOW + 3).tidied(NOW + 1)
    assert (slow.debits["a"].at, slow.debits["a"].sent_at) == (NOW, NOW + 1)
    back = ledger().debited("a", NOW).sent(0, "a", NOW - 60).tidied(NOW - 50)
    assert (back.debits["a"].at, back.debits["a"].sent_at) == (NOW - 50, NOW - 60)


def test_a_look_up_after_the_clock_was_set_back_is_news() -> None:
    """By the wall clock it is older than the one before; it is used all the same."""
    back = NOW - 7200
    for answered_after in (0.0, 0.3):
        look_up = ledger(500).reconciled(limit(400), at=back, now=back + answered_after).look_up
        assert look_up is not None
        assert (look_up.at, look_up.limit.remaining) == (back, 400)


def test_before_a_look_up_nothing_is_decided_and_nothing_trusted_for() -> None:
    with pytest.raises(ValueError, match="look-up"):
        Ledger().decide(NOW, 1)
    assert Ledger().trusted_for(NOW, 1) == 0.0


def test_a_bot_without_any_identifies_has_a_limit_too() -> None:
    assert StartLimit(0, 0, 0, 1).total == 0


@pytest.mark.parametrize("bad", [(-1, 0, 0, 1), (1, -1, 0, 1), (1, 0, -1, 1), (1, 0, 0, 0)])
def test_what_cannot_be_a_limit_is_refused(bad: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="session start limit"):
        StartLimit(*bad)


def test_the_budget_for_people_adds_up() -> None:
    budget = ledger(400).debited("a", NOW).sent(0, "a", NOW).budget(NOW, 4)
    assert (budget.total, budget.remaining, budget.spent_here, budget.reserve, budget.spendable) == (
        1000,
        399,
        1,
        100,
        299,
    )
    assert budget.reset_at == datetime.fromtimestamp(NOW + 3600, UTC)
    assert str(budget) == "399 of 1000 IDENTIFYs left, 100 of them in reserve, until 2023-11-14T23:13:20+00:00"


def test_a_cold_start_costs_an_identify_per_shard_and_the_spacing_of_its_rounds() -> None:
    sixteen = Ledger().reconciled(limit(max_concurrency=16), at=NOW, now=NOW)
    start = sixteen.cold_start(range(64), NOW, 64)
    assert (start.identifies, start.rounds, start.seconds, start.paid) == (64, 4, 3 * SPACING, 64)
    assert isinstance(start.answer, Grant)
    same_bucket = sixteen.cold_start([0, 16, 32], NOW, 64)
    assert (same_bucket.rounds, same_bucket.seconds) == (3, 2 * SPACING)
    nothing = sixteen.cold_start([], NOW, 64)
    assert (nothing.identifies, nothing.seconds, nothing.paid) == (0, 0.0, 0)


def test_a_cold_start_beyond_the_budget_says_how_many_are_paid_and_until_when_the_rest_waits() -> None:
    start = ledger(150).cold_start(range(64), NOW, 64)
    assert start.paid == 50
    assert isinstance(start.answer, Refusal)
    assert start.answer.until == datetime.fromtimestamp(NOW + 3600, UTC)
    exactly = ledger(164).cold_start(range(64), NOW, 64)
    assert (exactly.paid, isinstance(exactly.answer, Grant)) == (64, True)
    assert isinstance(ledger(163).cold_start(range(64), NOW, 64).answer, Refusal)


# --- the buckets


def open_buckets() -> Ledger:
    return Ledger().reconciled(limit(max_concurrency=2), at=NOW, now=NOW)


def taken(before: Ledger, bucket: int, ticket: str, now: float) -> Ledger:
    after, outcome = before.take(bucket, ticket, now=now, shard_count=1)
    assert outcome == Taken()
    return after


def later(before: Ledger, bucket: int, now: float) -> float:
    after, outcome = before.take(bucket, "other", now=now, shard_count=1)
    assert isinstance(outcome, Later)
    assert "other" not in after.debits
    return outcome.seconds


def test_a_bucket_is_free_a_spacing_after_the_send_not_after_the_ticket() -> None:
    sent = taken(open_buckets(), 0, "a", NOW).sent(0, "a", NOW + 3)
    assert later(sent, 0, NOW + 4) == pytest.approx(SPACING - 1)
    taken(sent, 0, "b", NOW + 3 + SPACING)


def test_an_open_ticket_keeps_its_bucket_and_no_other() -> None:
    held = taken(open_buckets(), 0, "a", NOW)
    assert later(held, 0, NOW + 10) == pytest.approx(HOLD - 10)
    taken(held, 1, "b", NOW)
    taken(held, 0, "c", NOW + HOLD)


def test_a_refund_frees_the_bucket_at_once_but_not_the_spacing_of_the_send_before_it() -> None:
    taken(taken(open_buckets(), 0, "a", NOW).refunded(0, "a"), 0, "b", NOW)
    sent = taken(open_buckets(), 0, "a", NOW).sent(0, "a", NOW)
    again = taken(sent, 0, "b", NOW + 6).refunded(0, "b")
    taken(again, 0, "c", NOW + 6)
    assert sent.refunded(0, "a") == sent


def test_a_late_refund_does_not_free_a_bucket_that_another_ticket_holds() -> None:
    held = taken(taken(open_buckets(), 0, "a", NOW), 0, "b", NOW + HOLD)
    assert later(held.refunded(0, "a"), 0, NOW + HOLD) > 0


def test_a_clock_set_back_closes_a_bucket_for_a_spacing_only() -> None:
    sent = taken(open_buckets(), 0, "a", NOW).sent(0, "a", NOW)
    back = NOW - 3600
    after, outcome = sent.take(0, "b", now=back, shard_count=1)
    assert outcome == Later(SPACING)
    taken(after, 0, "b", back + SPACING)


def test_a_clock_set_back_closes_a_bucket_whose_holder_died_for_as_long_as_a_ticket_holds_it() -> None:
    held = taken(open_buckets(), 0, "a", NOW)
    back = NOW - 3600
    after, outcome = held.take(0, "b", now=back, shard_count=1)
    assert outcome == Later(HOLD)
    taken(after, 0, "b", back + HOLD)


def test_a_book_that_was_begun_anew_is_completed_from_the_one_that_is_known() -> None:
    """Its own entries are newer than the known ones."""
    known = taken(taken(open_buckets(), 0, "a", NOW), 1, "b", NOW)
    anew = Ledger().sent(0, "c", NOW + 1)
    completed = anew.completed_from(known)
    assert completed.look_up == known.look_up
    assert sorted(completed.debits) == ["a", "b", "c"]
    assert completed.slots == {0: anew.slots[0], 1: known.slots[1]}


def test_a_book_that_others_went_on_writing_needs_nothing_from_an_earlier_one() -> None:
    """A ticket that was refunded meanwhile stays refunded."""
    known = taken(open_buckets(), 0, "a", NOW)
    refunded = known.refunded(0, "a")
    assert refunded.completed_from(known) == refunded


# --- for every history


@dataclass
class Discord:
    """Discord's side, which counts every IDENTIFY."""

    total: int
    remaining: int
    reset_at: float
    sends: list[float] = field(default_factory=list)

    def identify(self, now: float) -> None:
        self.tick(now)
        self.remaining -= 1
        self.sends.append(now)

    def look_up(self, now: float) -> StartLimit:
        self.tick(now)
        return StartLimit(self.total, self.remaining, int((self.reset_at - now) * 1000), 1)

    def tick(self, now: float) -> None:
        if now >= self.reset_at:
            self.remaining, self.reset_at = self.total, now + DAY


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["pay", "pay", "pay", "send", "send", "refund", "look up", "crash"]),
        st.floats(min_value=0, max_value=50),
        st.booleans(),
    ),
    max_size=120,
)


@settings(max_examples=150, deadline=None)
@given(actions=ACTIONS, total=st.integers(10, 40), used=st.integers(0, 40))
def test_no_history_of_tickets_spends_beyond_the_reserve(
    actions: list[tuple[str, float, bool]], total: int, used: int
) -> None:
    """Discord's own count never falls below the reserve, whatever is paid, sent, refunded or lost, and whenever it is read."""
    now = NOW
    discord = Discord(total, max(0, total - used), NOW + 600)
    floor = min(discord.remaining, limit(total=total).reserve(2))
    one = Ledger().reconciled(discord.look_up(now), at=now, now=now)
    open_tickets: dict[str, float] = {}
    for number, (action, seconds, long) in enumerate(actions):
        now += seconds * (20 if long else 1)
        for ticket in [key for key, at in open_tickets.items() if now - at > 60]:
            one = one.refunded(0, ticket)  # Identifying ends after 65 s: no IDENTIFY uses an older ticket
            del open_tickets[ticket]
        if action == "pay" and isinstance(one.decide(now, 2), Grant):
            one = one.debited(str(number), now)
            open_tickets[str(number)] = now
        elif action == "send" and open_tickets:
            ticket = next(iter(open_tickets))
            del open_tickets[ticket]
            discord.identify(now)
            one = one.sent(0, ticket, now)
        elif action == "refund" and open_tickets:
            ticket = next(iter(open_tickets))
            del open_tickets[ticket]
            one = one.refunded(0, ticket).refunded(0, ticket)
        elif action == "look up":
            one = one.reconciled(discord.look_up(now), at=now, now=now)
            assert one.look_up is not None
            assert one.look_up.foreign == 0
        elif action == "crash":
            open_tickets.clear()
        assert discord.remaining >= floor
        assert len([at for at in discord.sends if at > now - DAY]) <= total - limit(total=total).reserve(2)


@given(
    debits=st.lists(st.tuples(st.booleans(), st.floats(0, 3 * DAY)), max_size=30),
    refunds=st.lists(st.integers(0, 40), max_size=60),
)
def test_refunds_never_make_budget(debits: list[tuple[bool, float]], refunds: list[int]) -> None:
    """The budget is never larger than if the refunded tickets had not been paid for, however often each is refunded."""
    now = NOW + 3 * DAY
    fresh = Ledger().reconciled(limit(800), at=now, now=now)
    paid = without = fresh
    for number, (sent, age) in enumerate(debits):
        ticket = str(number)
        paid = paid.debited(ticket, now - age)
        if sent:
            paid, without = paid.sent(0, ticket, now - age), without.sent(0, ticket, now - age)
        elif number not in refunds:
            without = without.debited(ticket, now - age)
    for number in refunds:
        paid = paid.refunded(0, str(number))
    assert paid.spendable(now, 1) == without.spendable(now, 1) <= fresh.spendable(now, 1)
