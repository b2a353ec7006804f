"""The channel as its readers see it, on the event loop and from a thread."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable

import pytest

from discorder.clock import settle_loop
from discorder.errors import PublisherError
from discorder.publishers.channel import ChannelEventPublisher
from discorder.wire import Event

MakeEvent = Callable[..., Event]


@pytest.fixture
async def channel() -> ChannelEventPublisher:
    """An open channel with room for three events."""
    made = ChannelEventPublisher(3)
    await made.open()
    return made


async def test_iteration_ends_once_the_channel_is_closed_and_empty(
    channel: ChannelEventPublisher, make_event: MakeEvent
) -> None:
    channel.publish_nowait([make_event(1), make_event(2)])
    await channel.close()
    assert [event.seq async for event in channel] == [1, 2]
    with pytest.raises(PublisherError, match="channel channel is closed"):
        await channel.get()


async def test_a_reader_that_waits_is_woken_by_an_event_and_by_the_end(
    channel: ChannelEventPublisher, make_event: MakeEvent
) -> None:
    readers = [asyncio.create_task(channel.get()) for _ in range(2)]
    await settle_loop()
    channel.publish_nowait([make_event(1)])
    await settle_loop()
    assert [reader.done() for reader in readers] == [True, False]
    await channel.close()
    with pytest.raises(PublisherError):
        await readers[1]


async def test_a_reader_that_gives_up_takes_no_event_with_it(
    channel: ChannelEventPublisher, make_event: MakeEvent
) -> None:
    impatient, patient = (asyncio.create_task(channel.get()) for _ in range(2))
    await settle_loop()
    channel.publish_nowait([make_event(1)])
    impatient.cancel()
    assert (await patient).seq == 1


async def test_a_reader_that_polls_an_empty_channel_leaves_nothing_behind(channel: ChannelEventPublisher) -> None:
    def futures() -> int:
        gc.collect()
        return sum(isinstance(thing, asyncio.Future) for thing in gc.get_objects())

    await channel.open()
    before = futures()  # of other tests
    for _ in range(200):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(channel.get(), 0.0001)
    assert futures() < before + 50


async def test_publish_waits_for_room_and_drops_nothing(channel: ChannelEventPublisher, make_event: MakeEvent) -> None:
    publishing = asyncio.create_task(channel.publish([make_event(seq) for seq in range(1, 11)]))
    await settle_loop()
    assert not publishing.done()
    assert len(channel) == 3
    assert [(await channel.get()).seq for _ in range(10)] == list(range(1, 11))
    await publishing
    assert channel.dropped == 0


async def test_a_thread_reads_what_the_loop_publishes(channel: ChannelEventPublisher, make_event: MakeEvent) -> None:
    seen: list[int | None] = []

    def read() -> None:
        seen.extend(channel.get_blocking(5).seq for _ in range(50))

    thread = threading.Thread(target=read)
    thread.start()
    await channel.publish([make_event(seq) for seq in range(1, 51)])
    await asyncio.to_thread(thread.join, 5)
    assert seen == list(range(1, 51))


async def test_blocking_reads_time_out_and_see_the_end(channel: ChannelEventPublisher) -> None:
    with pytest.raises(TimeoutError, match=r"no event came within 0\.01 s"):
        channel.get_blocking(0.01)
    reading = asyncio.create_task(asyncio.to_thread(channel.get_blocking))
    await channel.close()
    with pytest.raises(PublisherError, match="closed"):
        await reading


@pytest.mark.parametrize(
    "arguments", [{"maxsize": 0}, {"max_bytes": 0}, {"overflow": "block"}, {"overflow": "explode"}]
)
def test_nonsense_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"channel|Overflow"):
        ChannelEventPublisher(**arguments)  # type: ignore[arg-type]  # that is the point


def test_the_warning_of_back_pressure_is_in_the_docstring() -> None:
    assert "Back-pressure can hold up your control plane" in (ChannelEventPublisher.__doc__ or "")
