"""A moderated loop gathers input while much of it comes, and delays nothing else."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

import discorder
from discorder.runtime.moderation import ModeratedLoop

PAUSE_MS = 20.0  # long enough to be told from the noise of a busy machine


@pytest.fixture
def loop() -> Iterator[ModeratedLoop]:
    loop = ModeratedLoop()
    loop.moderate(PAUSE_MS)
    yield loop
    loop.close()


async def _reads_of(bursts: int, *, every: float) -> list[int]:
    """How many bytes each read found while one byte was written ``bursts`` times, ``every`` so many seconds, by a thread."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop = asyncio.get_running_loop()

    def write() -> None:
        with theirs:
            for _ in range(bursts):
                theirs.send(b"x")
                time.sleep(every)

    writing = loop.run_in_executor(None, write)
    sizes = []
    with ours:
        while data := await loop.sock_recv(ours, 1 << 16):
            sizes.append(len(data))
    await writing
    return sizes


def test_input_that_comes_fast_is_read_together(loop: ModeratedLoop) -> None:
    sizes = loop.run_until_complete(_reads_of(200, every=0.0005))
    assert sum(sizes) == 200
    assert len(sizes) < 40, sizes


def test_input_that_comes_slowly_is_read_at_once() -> None:
    loop = ModeratedLoop()
    loop.moderate(2.0)
    try:
        sizes = loop.run_until_complete(_reads_of(10, every=0.02))
    finally:
        loop.close()
    assert sizes == [1] * 10


def test_a_timer_is_not_delayed_by_the_rest(loop: ModeratedLoop) -> None:
    async def late() -> list[float]:
        reading = asyncio.ensure_future(_reads_of(300, every=0.0005))
        found = []
        while not reading.done():
            due = asyncio.get_running_loop().time() + 0.003
            await asyncio.sleep(0.003)
            found.append(asyncio.get_running_loop().time() - due)
        return sorted(found)

    found = loop.run_until_complete(late())
    assert found[len(found) // 2] < PAUSE_MS / 1000 / 2


def test_callbacks_that_are_ready_run_without_a_rest(loop: ModeratedLoop) -> None:
    async def turns() -> float:
        await _reads_of(50, every=0.0005)
        began = time.monotonic()
        for _ in range(1_000):
            await asyncio.sleep(0)
        return time.monotonic() - began

    assert loop.run_until_complete(turns()) < 1.0


def test_run_bot_returns_what_main_returns_and_raises_what_it_raises() -> None:
    async def main(error: Exception | None) -> str:
        if error is not None:
            raise error
        return type(asyncio.get_running_loop()).__name__

    assert discorder.run_bot(main(None)) == "ModeratedLoop"
    with pytest.raises(ValueError, match="mine"):
        discorder.run_bot(main(ValueError("mine")))
