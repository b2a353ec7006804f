"""A long-lived task that fails is logged and restarted."""

from __future__ import annotations

import asyncio

import pytest

from discorder.clock import FakeClock
from discorder.publishers.delivery.keep_running import keep_running


@pytest.mark.parametrize("error", [ValueError("bad"), RuntimeError("worse")], ids=repr)
async def test_a_task_that_fails_is_logged_and_begins_again(
    clock: FakeClock, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    starts: list[float] = []

    async def body() -> None:
        starts.append(clock.monotonic())
        if len(starts) < 4:
            raise error
        await clock.sleep(100.0)
        if len(starts) < 6:
            raise error

    task = asyncio.create_task(keep_running("bus router", body, clock))
    await clock.advance(400.0)
    assert starts == [0.0, 1.0, 3.0, 7.0, 108.0, 209.0], "the pause doubles, and is short again after a long run"
    assert caplog.text.count("The task bus router failed and begins again in") == 5
    await task


async def test_a_task_that_is_cancelled_ends(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    task = asyncio.create_task(keep_running("bus router", asyncio.Event().wait, clock))  # type: ignore[arg-type]
    await clock.advance(1.0)
    task.cancel()
    await clock.advance(1.0)
    assert task.cancelled()
    assert not caplog.records
