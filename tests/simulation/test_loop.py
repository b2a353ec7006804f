"""The virtual loop: time that jumps, an order that is always the same, and processes that can be killed or suspended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.simulation.clock import VirtualClock, Wall
from tests.simulation.loop import Process, VirtualLoop


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    """A loop that is closed at the end, with everything left on it."""
    made = VirtualLoop()
    yield made
    made.discard_all()
    made.close()


def test_time_jumps_to_the_next_timer_and_equal_moments_keep_their_order(loop: VirtualLoop) -> None:
    said: list[tuple[float, str]] = []
    for name, delay in (("late", 3600.0), ("first", 5.0), ("second", 5.0)):
        loop.call_later(delay, lambda name=name: said.append((loop.time(), name)))  # type: ignore[misc]
    loop.run_until(10_000.0)
    assert said == [(5.0, "first"), (5.0, "second"), (3600.0, "late")]
    assert loop.time() == 10_000.0


def test_what_asyncio_measures_is_virtual_too(loop: VirtualLoop) -> None:
    async def wait() -> str:
        try:
            async with asyncio.timeout(30.0):
                await asyncio.sleep(3600.0)
        except TimeoutError:
            return f"timed out at {loop.time():g}"
        return "slept"

    task = loop.create_task(wait())
    loop.run_until(100.0)
    assert task.result() == "timed out at 30"


def test_a_process_that_is_killed_never_runs_again_not_even_its_finally(loop: VirtualLoop) -> None:
    process, other, said = Process("one"), Process("two"), []

    async def live(name: str) -> None:
        try:
            while True:
                await asyncio.sleep(1.0)
                said.append(name)
        finally:
            said.append(f"{name} cleans up")

    for owner in (process, other):
        loop.create_task(live(owner.name), context=loop.within(owner))
    loop.run_until(1.5)
    kept = loop.kill(process)
    loop.run_until(3.5)
    assert said == ["one", "two", "two", "two"]
    assert [task.done() for task in kept] == [False]


def test_on_a_host_that_sleeps_the_monotonic_clock_stands_still_and_timers_are_put_off(loop: VirtualLoop) -> None:
    process, wall = Process("one"), Wall()
    clock = VirtualClock(loop, process, wall)
    woken: list[float] = []
    context = loop.within(process)
    loop.call_soon(lambda: clock.call_later(10.0, lambda: woken.append(loop.time())), context=context)
    loop.run_until(4.0)
    loop.suspend(process, 600.0)
    loop.call_later(600.0, lambda: setattr(process, "slept", 600.0))
    loop.run_until(1000.0)
    assert woken == [610.0]
    assert clock.monotonic() == 400.0
    assert (clock.now() - clock.now()).total_seconds() == 0.0


def test_sets_of_tasks_have_an_order_that_does_not_depend_on_addresses(loop: VirtualLoop) -> None:
    async def nothing() -> None: ...

    tasks = [loop.create_task(nothing(), name=f"{n}") for n in range(50)]
    assert [task.get_name() for task in set(tasks)] == [f"{n}" for n in range(50)]
    loop.run_until(1.0)
    assert all(task.done() for task in tasks)


def test_what_reaches_the_exception_handler_is_noted_for_its_process(loop: VirtualLoop) -> None:
    process = Process("one")

    def fail() -> None:
        msg = "a defect"
        raise ValueError(msg)

    loop.call_soon(fail, context=loop.within(process))
    loop.run_until(1.0)
    assert "a defect" in process.failures[0]


def test_an_error_that_nobody_asked_for_is_its_makers_whoever_runs_as_it_is_collected(loop: VirtualLoop) -> None:
    maker, other = Process("maker"), Process("other")
    made: list[asyncio.Future[None]] = []

    def make() -> None:
        made.append(loop.create_future())
        made[0].set_exception(ValueError("a defect"))

    loop.call_soon(make, context=loop.within(maker))
    loop.call_soon(made.clear, context=loop.within(other))
    loop.run_until(1.0)
    assert "a defect" in maker.failures[0]
    assert other.failures == []
