"""A consumer that exists with the name of a group's: a worker uses it only if it loses no event."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import discorder
from discorder.errors import SubscriptionFailed
from discorder.publishers.nats.publisher import NatsPublisher
from tests.bot.nats_streams import consumers, events, publish, publisher, seqs, take
from tests.publishers.nats_server import NatsServer, connected

pytestmark = [pytest.mark.system]

SUBJECTS = ["discord.7.2.0.*", "discord.7.record.2.0.*"]
SECOND = 1_000_000_000
FITTING: dict[str, Any] = {
    "deliver_policy": "all",
    "ack_policy": "explicit",
    "ack_wait": 6 * SECOND,
    "max_ack_pending": 128,
    "max_deliver": -1,
    "filter_subjects": SUBJECTS,
    "priority_groups": ["workers"],
    "priority_policy": "pinned_client",
    "priority_timeout": 10 * SECOND,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    made = NatsServer(Path(tmp_path_factory.mktemp("nats")))
    made.start()
    yield made
    made.kill()


@pytest.fixture
async def plane(server: NatsServer) -> AsyncIterator[NatsPublisher]:
    """The publisher of a stream with three events."""
    async with connected(server) as client:
        await client.request("$JS.API.STREAM.DELETE.discord_7", b"", timeout=20)
    made = publisher(server)
    await made.open()
    await publish(made, events(1, 3))
    yield made
    await made.close()


async def make(server: NatsServer, **changes: Any) -> None:
    """Make a consumer as another program might. A field that is None is left out."""
    config = {"name": "workers_2_0", "durable_name": "workers_2_0", **FITTING, **changes}
    config = {key: value for key, value in config.items() if value is not None}
    document = msgspec.json.encode({"stream_name": "discord_7", "action": "create", "config": config})
    async with connected(server) as client:
        answer = await client.request("$JS.API.CONSUMER.CREATE.discord_7.workers_2_0", document, timeout=20)
    assert "error" not in msgspec.json.decode(answer.data), answer.data


NO_PRIORITY = {"priority_groups": None, "priority_policy": None, "priority_timeout": None}
UNFIT: list[tuple[dict[str, Any], str]] = [
    (
        {**NO_PRIORITY, "ack_policy": "none", "max_ack_pending": None, "ack_wait": None},
        "its ack_policy is none, and must be explicit",
    ),
    ({"ack_policy": "all"}, "its ack_policy is all, and must be explicit"),
    ({"ack_wait": 30 * SECOND}, "its ack_wait is 30 s, and must be 6 s"),
    ({"ack_wait": 6 * SECOND + 1}, "its ack_wait is 6.000000001 s, and must be 6 s"),
    ({"max_ack_pending": 1_000}, "its max_ack_pending is 1000, and must be 128"),
    ({"max_deliver": 1}, "its max_deliver is 1, and must be -1"),
    (
        {"filter_subjects": None},
        "its filter_subjects is empty, so that it delivers every message of the stream, and must be",
    ),
    (
        {"filter_subjects": ["discord.7.2.0.READY"]},
        "its filter_subjects is discord.7.2.0.READY, and must be discord.7.2.0.*, discord.7.record.2.0.*",
    ),
    (
        {"filter_subjects": None, "filter_subject": "discord.7.2.0.READY"},
        "its filter_subjects is discord.7.2.0.READY, and must be discord.7.2.0.*, discord.7.record.2.0.*",
    ),
    (NO_PRIORITY, "its priority_policy is none, and must be pinned_client"),
    ({"priority_groups": ["jobs"]}, "its priority_groups is jobs, and must be workers"),
    (
        {"priority_policy": "overflow", "priority_timeout": None},
        "its priority_policy is overflow, and must be pinned_client",
    ),
    ({"deliver_policy": "new"}, "its deliver_policy is new, and must be all or by_start_time"),
    ({"deliver_policy": "last"}, "its deliver_policy is last, and must be all or by_start_time"),
    (
        {"deliver_policy": "by_start_sequence", "opt_start_seq": 3},
        "its deliver_policy is by_start_sequence, and must be all or by_start_time",
    ),
    ({"replay_policy": "original"}, "its replay_policy is original, and must be instant"),
    ({"headers_only": True}, "its headers_only is true, and must be false"),
    ({"inactive_threshold": 5 * SECOND}, "its inactive_threshold is 5 s, and must be 0 s"),
    ({"max_batch": 5}, "its max_batch is 5, and must be 0"),
    ({"max_expires": SECOND}, "its max_expires is 1 s, and must be 0 s"),
    ({**NO_PRIORITY, "deliver_subject": "elsewhere"}, "its deliver_subject is elsewhere, and must be none"),
]


@pytest.mark.parametrize(("changes", "complaint"), UNFIT, ids=[complaint for _, complaint in UNFIT])
async def test_a_consumer_that_would_lose_events_is_refused(
    server: NatsServer, plane: NatsPublisher, changes: dict[str, Any], complaint: str
) -> None:
    await make(server, **changes)
    before = await consumers(server)
    async with discorder.subscribe(server.url, group="workers", start="oldest") as reading:
        with pytest.raises(SubscriptionFailed) as raised:
            await take(reading, 1)
    text = str(raised.value)
    assert text.startswith("the group workers cannot use the consumer workers_2_0, which exists: ")
    assert complaint in text
    assert text.endswith("choose another group, or remove the consumer (nats consumer rm discord_7 workers_2_0)")
    assert [one["delivered"] for one in await consumers(server)] == [one["delivered"] for one in before]


@pytest.mark.parametrize("start", ["oldest", "now"])
async def test_a_consumer_that_another_program_made_for_the_group_is_used(
    server: NatsServer, plane: NatsPublisher, start: Any
) -> None:
    """What does not matter, such as a description, may differ; the consumer says where the group begins."""
    await make(server, description="made by hand", max_waiting=100)
    async with discorder.subscribe(server.url, group="workers", start=start) as reading:
        assert await seqs(reading, 3) == [1, 2, 3]


async def test_a_consumer_that_is_removed_under_a_worker_is_made_again(
    server: NatsServer, plane: NatsPublisher, caplog: pytest.LogCaptureFixture
) -> None:
    async with discorder.subscribe(server.url, group="workers", start="oldest") as reading:
        assert await seqs(reading, 3) == [1, 2, 3]
        async with connected(server) as client:
            await client.request("$JS.API.CONSUMER.DELETE.discord_7.workers_2_0", b"", timeout=20)
        await publish(plane, events(4, 6))
        assert await seqs(reading, 3) == [4, 5, 6]
    assert "the consumer workers_2_0 of the group workers is gone" in caplog.text
