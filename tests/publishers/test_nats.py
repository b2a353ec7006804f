"""The publisher ``nats`` before a real server: what the stream has, through everything that may happen to the server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from discorder.errors import ConfigError, PublisherError, PublisherUnreachable
from discorder.publishers.nats.publisher import NatsPublisher
from discorder.records import ReplayCount, resumed_record
from discorder.wire import Event
from tests.publishers.nats_server import NatsServer, Stored, connected, in_thread, read_stream

MakeEvent = Callable[..., Event]
Make = Callable[..., NatsPublisher]

PREFIX, STREAM = "discord.7", "discord_7"
SUBJECTS = ["discord.7.*.*.*", "discord.7.record.*.*.*"]
ROOM = 50_000_000  # bytes of the stream


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    made = NatsServer(tmp_path / "nats")
    made.start()
    yield made
    made.kill()


@pytest.fixture
async def make(server: NatsServer) -> AsyncIterator[Make]:
    """Make publishers before the server; they are closed at the end."""
    made: list[NatsPublisher] = []

    def publisher(**settings: Any) -> NatsPublisher:
        made.append(NatsPublisher(**{"servers": server.url, "prefix": PREFIX, "stream_bytes": ROOM, **settings}))
        return made[-1]

    yield publisher
    for one in made:
        await one.close()


async def stored(server: NatsServer) -> list[Stored]:
    return await read_stream(server, STREAM)


async def seqs(server: NatsServer) -> list[int | None]:
    return [one.document.seq for one in await stored(server)]


async def contents(server: NatsServer) -> list[str]:
    """Return the id of each event and the range of each gap."""
    lines = []
    for one in await stored(server):
        lost = one.document.json() if one.document.seq is None else {}
        lines.append(f"{one.document.session} {lost['from_seq']}-{lost['to_seq']}" if lost else one.id)
    return lines


async def publish_until_accepted(publisher: NatsPublisher, events: list[Event]) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await publisher.publish(events)
            except PublisherError:
                await asyncio.sleep(0.01)
            else:
                return


# ---------------------------------------------------------------- messages


async def test_subject_and_id_name_an_event(server: NatsServer, make: Make, make_event: MakeEvent) -> None:
    """Events and the records of the control plane have different subjects, and both have the number of shards."""
    publisher = make()
    await publisher.open()
    record = resumed_record((3, 16), "5e55", datetime(2026, 1, 1, tzinfo=UTC), 5)
    odd = ["", "A.B", "A *>", "Ü" * 300]
    await publisher.publish([make_event(1, shard=(3, 16), session="5e55"), record])
    await publisher.publish([make_event(2 + n, name, session="5e55") for n, name in enumerate(odd)])
    messages = await stored(server)
    assert [one.subject for one in messages] == [
        "discord.7.16.3.MESSAGE_CREATE",
        "discord.7.record.16.3.DISCORDER_RESUMED",
        "discord.7.1.0.NAMELESS",
        "discord.7.1.0.A_B",
        "discord.7.1.0.A___",
        f"discord.7.1.0.{'_' * 128}",
    ]
    assert [one.id for one in messages if one.document.seq] == ["5e55:1", "5e55:2", "5e55:3", "5e55:4", "5e55:5"]
    assert [one.document.type for one in messages][2:] == odd
    assert messages[1].document.decode(ReplayCount) == ReplayCount(5)


async def test_the_prefix_has_the_id_of_the_bot(server: NatsServer, make: Make, make_event: MakeEvent) -> None:
    publisher = make(prefix="")
    with pytest.raises(ConfigError, match=r"publishers\.nats\.prefix: the bot token does not contain"):
        await publisher.open()
    publisher.belongs_to(7)
    await publisher.open()
    await publisher.publish([make_event(1)])
    assert [one.subject for one in await stored(server)] == ["discord.7.1.0.MESSAGE_CREATE"]


async def test_an_event_that_is_too_large_becomes_a_gap_record_in_its_place(
    server: NatsServer, make: Make, make_event: MakeEvent, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = make()
    await publisher.open()
    assert "takes messages of at most 1048576 bytes" in caplog.text
    assert "Set max_payload: 8MB" in caplog.text
    large = make_event(2, "GUILD_CREATE", b'"' + b"x" * 1_048_576 + b'"')
    fits = make_event(3, "GUILD_CREATE", b'"' + b"x" * 1_048_000 + b'"')
    await publisher.publish([make_event(1), large, fits, make_event(4)])
    messages = await stored(server)
    assert [one.document.seq for one in messages] == [1, None, 3, 4]
    lost = messages[1].document.json()
    assert (lost["from_seq"], lost["to_seq"], lost["kind"], lost["publisher"]) == (2, 2, "publisher", "nats")
    assert "raise max_payload" in lost["cause"]
    assert messages[1].document.session == large.session
    assert (publisher.dropped, publisher.gaps) == (1, 1)


@pytest.mark.parametrize("room", [0, 1])
async def test_the_limit_of_the_server_holds_for_the_whole_message(
    tmp_path: Path, make: Make, make_event: MakeEvent, room: int
) -> None:
    """The server counts the header, too, and would close the connection for one byte too many."""
    event = make_event(1, data=b'"' + b"x" * 5_000 + b'"')
    size = len(event.document) + len("NATS/1.0\r\nNats-Msg-Id: 0123456789abcdef:1\r\n\r\n")
    small = NatsServer(tmp_path / "small", f"max_payload: {size - room}")
    small.start()
    try:
        publisher = make(servers=small.url)
        await publisher.open()
        await publisher.publish([event])
        await publisher.publish([make_event(2)])
        assert await seqs(small) == [None if room else 1, 2]
    finally:
        small.kill()


# ---------------------------------------------------------------- the stream


async def test_the_stream_is_made_with_the_configured_limits(server: NatsServer, make: Make) -> None:
    await make(stream="EVENTS", stream_bytes=1_000_000, stream_seconds=3_600.0, duplicate_window=60.0).open()
    async with connected(server) as client:
        config = (await client.jetstream().stream_info("EVENTS")).config
    assert (config.subjects, config.retention, config.storage, config.discard) == (
        SUBJECTS,
        RetentionPolicy.LIMITS,
        StorageType.FILE,
        DiscardPolicy.OLD,
    )
    assert (config.max_bytes, config.max_age, config.duplicate_window, config.num_replicas) == (1_000_000, 3_600, 60, 1)


UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"subjects": ["discord.7.1.>"]}, r"stream: subjects of the stream discord_7 must contain discord\.7\.\*"),
    ({"retention": RetentionPolicy.WORK_QUEUE}, 'stream: retention of the stream discord_7 must be "limits"'),
    ({"storage": StorageType.MEMORY}, 'stream: storage of the stream discord_7 must be "file"'),
    ({"discard": DiscardPolicy.NEW}, 'stream: discard of the stream discord_7 must be "old"'),
    ({"no_ack": True}, "stream: no_ack of the stream discord_7 must be false"),
    ({"max_msg_size": 1_000}, "stream: max_msg_size of the stream discord_7 must be -1"),
    ({"max_msgs_per_subject": 10}, "stream: max_msgs_per_subject of the stream discord_7 must be -1"),
    (
        {"max_bytes": 1_073_741_823},
        "stream_bytes: max_bytes of the stream discord_7 is 1073741823, and the configuration says 50000000; set publishers",
    ),
    ({"max_bytes": -1}, "stream_bytes: max_bytes of the stream discord_7 is not limited, and .* 50000000; change the"),
    (
        {"max_age": 3_600.5},
        r"stream_seconds: max_age of the stream discord_7 is 3600\.5, and the configuration says 86400;",
    ),
    ({"max_age": 60}, "stream_seconds: max_age of the stream discord_7 is 60, and the configuration says 86400"),
    ({"duplicate_window": 1}, "duplicate_window: duplicate_window of the stream discord_7 is 1"),
]


@pytest.mark.parametrize(("settings", "complaint"), UNFIT, ids=[complaint for _, complaint in UNFIT])
async def test_a_stream_with_other_settings_is_refused(
    server: NatsServer, make: Make, settings: dict[str, Any], complaint: str
) -> None:
    """The error names the key and the remedy."""
    fitting = {
        "subjects": SUBJECTS,
        "max_bytes": ROOM,
        "max_age": 86_400,
        "duplicate_window": 60 if settings.get("max_age") else 120,
    }
    async with connected(server) as client:
        await client.jetstream().add_stream(StreamConfig(name=STREAM, **{**fitting, **settings}))
    publisher = make()
    with pytest.raises(ConfigError, match=rf"^publishers\.nats\.{complaint}.*nats stream edit discord_7"):
        await publisher.open()
    with pytest.raises(PublisherError, match="not open"):
        await publisher.publish([])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"stream_bytes": 2**50}, r"stream_bytes: .*no room for 1,125,899,906,842,624 bytes; set less"),
        ({"replicas": 3}, r"replicas: .*set replicas = 1"),
        (
            {"stream": "OTHER"},
            r"prefix: .*the stream OTHER.*: the stream discord_7 has these subjects; set another prefix, or publishers",
        ),
        ({"duplicate_window": 0.01}, r"stream: .*correct the keys"),
    ],
)
async def test_a_stream_that_cannot_be_made_is_an_error_of_its_key(
    server: NatsServer, make: Make, settings: dict[str, Any], complaint: str
) -> None:
    if "stream" in settings:
        await make().open()
    with pytest.raises(ConfigError, match=rf"^publishers\.nats\.{complaint}"):
        await make(**settings).open()


async def test_a_limit_that_is_changed_meanwhile_does_not_stop_the_events(
    server: NatsServer, make: Make, make_event: MakeEvent, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = make()
    await publisher.open()
    async with connected(server) as client:
        context = client.jetstream()
        config = (await context.stream_info(STREAM)).config
        await context.update_stream(config.evolve(max_bytes=1_000_000))
    server.kill()
    await in_thread(server.start)
    await publish_until_accepted(publisher, [make_event(1)])
    assert (
        "publishers.nats.stream_bytes: max_bytes of the stream discord_7 is 1000000, and the configuration says 50000000; set"
        in caplog.text
    )
    assert await seqs(server) == [1]


async def test_a_full_stream_drops_its_oldest_events(server: NatsServer, make: Make, make_event: MakeEvent) -> None:
    publisher = make(stream_bytes=20_000)
    await publisher.open()
    for seq in range(1, 101):
        await publisher.publish([make_event(seq, data=b'"' + b"x" * 1_000 + b'"')])
    kept = await seqs(server)
    assert 5 < len(kept) < 20
    assert kept == list(range(101 - len(kept), 101))


async def test_a_server_without_jetstream_is_told_as_such(tmp_path: Path, make: Make) -> None:
    plain = NatsServer(tmp_path / "plain", jetstream=False)
    plain.start()
    try:
        with pytest.raises(
            PublisherUnreachable,
            match=r"^publishers\.nats: JetStream is not available \(it is off on this server or in this account\); start "
            r'nats-server with JetStream \(-js\), or set publishers\.nats\.mode = "core"$',
        ):
            await make(servers=plain.url).open()
        core = make(servers=plain.url, mode="core")
        await core.open()
    finally:
        plain.kill()


# ---------------------------------------------------------------- each event once


async def test_what_the_stream_has_is_not_sent_again_however_late(
    server: NatsServer, make: Make, make_event: MakeEvent
) -> None:
    """A process was killed before it knew; the next one offers the same events after the server has forgotten their ids."""
    first, second = (make(duplicate_window=0.1) for _ in range(2))
    await first.open()
    await first.publish([make_event(seq, shard=(seq % 2, 2), session=f"5e55{seq % 2}") for seq in range(1, 7)])
    await first.close()
    async with connected(server) as client:
        context = client.jetstream()
        probe = partial(context.publish, "discord.7.9.9.PROBE", headers={"Nats-Msg-Id": "probe"})
        await probe()
        while (await probe()).duplicate:  # noqa: ASYNC110  # the server's own time
            await asyncio.sleep(0.02)
    await second.open()
    await second.publish([make_event(seq, shard=(seq % 2, 2), session=f"5e55{seq % 2}") for seq in range(1, 10)])
    ids = [one.id for one in await stored(server) if one.id != "probe"]
    assert ids == [f"5e55{seq % 2}:{seq}" for seq in range(1, 10)]


async def test_a_new_session_is_not_taken_for_the_old_one(
    server: NatsServer, make: Make, make_event: MakeEvent
) -> None:
    publisher = make()
    await publisher.open()
    await publisher.publish([make_event(seq, session="01d") for seq in (1, 2, 3)])
    await publisher.close()
    await publisher.open()
    await publisher.publish([make_event(seq, session="4e3") for seq in (1, 2)])
    assert [one.id for one in await stored(server)] == ["01d:1", "01d:2", "01d:3", "4e3:1", "4e3:2"]


async def test_a_message_with_a_known_id_is_accepted_and_not_stored_again(
    server: NatsServer, make: Make, make_event: MakeEvent
) -> None:
    """Records have no sequence: only the id tells that the stream has them."""
    record = resumed_record((0, 1), "5e55", datetime(2026, 1, 1, tzinfo=UTC), 5)
    publisher = make()
    await publisher.open()
    await publisher.publish([make_event(1), record])
    await publisher.publish([make_event(1), record, make_event(2)])
    assert await seqs(server) == [1, None, 2]


async def test_what_the_server_refused_is_sent_again_although_later_events_are_stored(
    server: NatsServer, make: Make, make_event: MakeEvent
) -> None:
    """Also by the next connection, for which the last event in the stream comes after the refused one."""
    publisher = make()
    await publisher.open()
    batch = [make_event(1), make_event(2, data=b'"' + b"x" * 5_000 + b'"'), make_event(3)]
    async with connected(server) as client:
        context = client.jetstream()
        config = (await context.stream_info(STREAM)).config
        await context.update_stream(config.evolve(max_msg_size=1_000))
        with pytest.raises(PublisherError, match=r"NATS refused 1 of 3 messages: message size exceeds maximum allowed"):
            await publisher.publish(batch)
        await context.update_stream(config)
    server.kill()
    await in_thread(server.start)
    await publish_until_accepted(publisher, batch)
    assert await seqs(server) == [1, 3, 2]


# ---------------------------------------------------------------- the server


async def test_a_server_that_comes_back_empty_gets_a_new_stream_that_tells_what_is_lost(
    server: NatsServer, make: Make, make_event: MakeEvent, caplog: pytest.LogCaptureFixture
) -> None:
    """A gap record for each session, before its next event; also of sessions that this process has only found in the stream."""
    earlier, publisher = make(), make()
    await earlier.open()
    await earlier.publish([make_event(seq, session="01d") for seq in (1, 2)])
    await earlier.close()
    await publisher.open()
    await publisher.publish([make_event(3, session="01d"), make_event(1, shard=(1, 2), session="5e55")])
    await publisher.publish([make_event(2, shard=(1, 2), session="5e55")])
    await publisher.publish([make_event(1, session="4e3")])
    server.kill()
    server.empty()
    await in_thread(server.start)
    await publish_until_accepted(publisher, [make_event(2, session="4e3"), make_event(3, session="4e3")])
    told = ["01d 1-3", "5e55 1-2", "4e3 1-1"]
    assert await contents(server) == [*told, "4e3:2", "4e3:3"]
    assert (
        "the NATS server has lost events that the stream discord_7 had: 1-3 of shard 0, 1-2 of shard 1, 1-1 of shard 0"
        in caplog.text
    )
    assert (publisher.dropped, publisher.gaps) == (4, 3)


async def test_a_second_loss_is_told_from_where_the_new_stream_began(
    server: NatsServer, make: Make, make_event: MakeEvent
) -> None:
    publisher = make()
    await publisher.open()
    for seq in (1, 2, 3):
        await publish_until_accepted(publisher, [make_event(seq, session="5e55")])
        server.kill()
        server.empty()
        await in_thread(server.start)
    await publish_until_accepted(publisher, [make_event(4, session="5e55")])
    assert await contents(server) == ["5e55 3-3", "5e55:4"]


@pytest.mark.parametrize("durability", ["acks", "sync"])
async def test_a_server_that_has_lost_the_end_of_the_stream_is_told_as_such(
    server: NatsServer, make: Make, make_event: MakeEvent, durability: str, tmp_path: Path
) -> None:
    """As after a power cut, or when a disk was restored from a copy. Only what is missing is told."""
    publisher = make(durability=durability)
    await publisher.open()
    await publisher.publish([make_event(seq, session="5e55") for seq in (1, 2)])
    await publisher.publish([make_event(1, shard=(1, 2), session="01d")])
    server.kill()
    server.copy(tmp_path / "copy")
    await in_thread(server.start)
    await publish_until_accepted(publisher, [make_event(3, session="5e55")])
    await publisher.publish([make_event(seq, session="5e55") for seq in (4, 5)])
    server.kill()
    server.restore(tmp_path / "copy")
    await in_thread(server.start)
    await publish_until_accepted(publisher, [make_event(2, shard=(1, 2), session="01d"), make_event(6, session="5e55")])
    assert await contents(server) == ["5e55:1", "5e55:2", "01d:1", "5e55 3-5", "01d:2", "5e55:6"]
    assert (publisher.dropped, publisher.gaps) == (3, 1)


@pytest.mark.parametrize(
    ("kept", "told"), [(0, ["5e55 1-3"]), (2, ["5e55:1", "5e55:2", "5e55 3-3"]), (3, ["5e55:1", "5e55:2", "5e55:3"])]
)
async def test_a_process_that_continues_a_session_tells_what_the_stream_lacks_of_it(
    server: NatsServer, make: Make, make_event: MakeEvent, kept: int, told: list[str]
) -> None:
    """The control plane knows from its store what an earlier process has delivered."""
    if kept:
        earlier = make()
        await earlier.open()
        await earlier.publish([make_event(seq, session="5e55") for seq in range(1, kept + 1)])
        await earlier.close()
    publisher = make()
    await publisher.open()
    publisher.goes_on((0, 1), "5e55", 3)
    await publisher.publish([make_event(4, session="5e55")])
    await publisher.publish([make_event(5, session="5e55")])
    assert await contents(server) == [*told, "5e55:4", "5e55:5"]
    assert publisher.gaps == (kept < 3)


async def test_an_old_session_that_the_stream_has_dropped_is_not_told_as_lost(
    server: NatsServer, make: Make, make_event: MakeEvent
) -> None:
    """A stream has a size and an age."""
    await make().open()
    publisher = make()
    await publisher.open()
    publisher.goes_on((0, 1), "5e55", 3)
    await publisher.publish([make_event(4, session="5e55")])
    assert await contents(server) == ["5e55:4"]


async def test_what_was_acknowledged_of_a_batch_that_failed_is_sent_to_the_new_stream(
    server: NatsServer, make: Make, make_event: MakeEvent
) -> None:
    """The acknowledgements were of the stream that is gone."""
    publisher = make()
    await publisher.open()
    batch = [make_event(1), make_event(2, data=b'"' + b"x" * 5_000 + b'"'), make_event(3)]
    async with connected(server) as client:
        context = client.jetstream()
        await context.update_stream((await context.stream_info(STREAM)).config.evolve(max_msg_size=1_000))
    with pytest.raises(PublisherError, match="NATS refused 1 of 3"):
        await publisher.publish(batch)
    server.kill()
    server.empty()
    await in_thread(server.start)
    await publish_until_accepted(publisher, batch)
    assert await seqs(server) == [1, 2, 3]


async def test_a_stream_that_is_deleted_meanwhile_is_made_again_and_the_loss_is_told(
    server: NatsServer, make: Make, make_event: MakeEvent
) -> None:
    publisher = make()
    await publisher.open()
    await publisher.publish([make_event(1, session="5e55")])
    async with connected(server) as client:
        await client.jetstream().delete_stream(STREAM)
    with pytest.raises(PublisherError, match="no stream has the subject"):
        await publisher.publish([make_event(2, session="5e55")])
    await publisher.publish([make_event(2, session="5e55")])
    assert await contents(server) == ["5e55 1-1", "5e55:2"]


# ---------------------------------------------------------------- durability "sync"


async def test_of_a_synced_batch_nothing_is_stored_before_what_the_server_refused(
    server: NatsServer, make: Make, make_event: MakeEvent
) -> None:
    """The order is kept, and the error has the server's reason."""
    publisher = make(durability="sync")
    await publisher.open()
    batch = [make_event(1), make_event(2, data=b'"' + b"x" * 5_000 + b'"'), make_event(3)]
    async with connected(server) as client:
        context = client.jetstream()
        config = (await context.stream_info(STREAM)).config
        await context.update_stream(config.evolve(max_msg_size=1_000))
        for _ in range(2):
            with pytest.raises(
                PublisherError, match=r"NATS refused 2 of \d messages: message size exceeds maximum allowed"
            ):
                await publisher.publish(batch)
            assert await seqs(server) == [1]
        await context.update_stream(config)
    await publisher.publish(batch)
    assert await seqs(server) == [1, 2, 3]


async def test_a_synced_batch_with_a_message_that_the_stream_has_is_stored_without_it(
    server: NatsServer, make: Make, make_event: MakeEvent
) -> None:
    """The server refuses such a batch as a whole. Only the id tells that the stream has a record."""
    record = resumed_record((0, 1), "5e55", datetime(2026, 1, 1, tzinfo=UTC), 5)
    publisher = make(durability="sync")
    await publisher.open()
    await publisher.publish([make_event(1), record])
    await publisher.publish([make_event(2), record, make_event(3)])
    assert await seqs(server) == [1, None, 2, 3]


async def test_more_events_than_one_synced_batch_may_have(
    server: NatsServer, make: Make, make_event: MakeEvent
) -> None:
    publisher = make(durability="sync")
    await publisher.open()
    await publisher.publish([make_event(seq) for seq in range(1, 2_502)])
    assert await seqs(server) == list(range(1, 2_502))


async def test_a_stream_without_atomic_batches_is_refused_with_the_remedy(server: NatsServer, make: Make) -> None:
    await make().open()
    with pytest.raises(
        ConfigError,
        match=r'^publishers\.nats\.durability: "sync" needs allow_atomic, which the stream discord_7 .*--allow-batch',
    ):
        await make(durability="sync").open()


async def test_a_server_that_knows_no_atomic_batches_is_refused_with_the_remedy(server: NatsServer, make: Make) -> None:
    """The server says its version first."""

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info, rest = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(re.sub(rb'"version":"[^"]*"', b'"version":"2.11.9"', await info.readline()))
        towards = asyncio.create_task(pump(reader, rest))
        await pump(info, writer)
        await towards

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4_096):
            writer.write(data)
        writer.close()

    async with await asyncio.start_server(pretend, "127.0.0.1", 0) as old:
        url = f"nats://127.0.0.1:{old.sockets[0].getsockname()[1]}"
        with pytest.raises(
            ConfigError,
            match=r'^publishers\.nats\.durability: "sync" needs nats-server 2\.12 .* this server is 2\.11\.9; upgrade it',
        ):
            await make(servers=url, durability="sync").open()


# ---------------------------------------------------------------- a server that stands still


@pytest.mark.heavy
@pytest.mark.parametrize("mode", ["jetstream", "core"])
async def test_a_server_that_stands_still_is_noticed(
    server: NatsServer, make: Make, make_event: MakeEvent, mode: str
) -> None:
    """The batch is refused, not waited for without end; closing does not wait, either. Afterwards each event is there once."""
    publisher, other = make(mode=mode), make(mode=mode)
    await publisher.open()
    await other.open()
    await publisher.publish([make_event(1)])
    server.freeze()
    large = [make_event(seq, data=b'"' + b"x" * 700_000 + b'"') for seq in range(2, 12)]  # more than any buffer between
    with pytest.raises(PublisherError, match=r"did not answer in time|connection was lost"):
        await publisher.publish(large)
    with pytest.raises(PublisherUnreachable, match="no NATS server can be reached"):
        await publisher.publish(large)
    sending = asyncio.create_task(other.publish(large))
    await asyncio.sleep(0.05)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await asyncio.wait_for(other.close(), 5)
    server.thaw()
    await publish_until_accepted(publisher, large)
    if mode == "jetstream":
        assert sorted(seq or 0 for seq in await seqs(server)) == list(range(1, 12))


async def test_the_first_server_that_answers_is_used(server: NatsServer, make: Make, make_event: MakeEvent) -> None:
    publisher = make(servers=("nats://127.0.0.1:1", server.url))
    await publisher.open()
    await publisher.publish([make_event(1)])
    assert await seqs(server) == [1]


async def test_without_any_server_the_error_names_each_and_shows_no_password(make: Make) -> None:
    publisher = make(servers=("nats://bot:hunter2@127.0.0.1:1", "nats://localhost:2"))
    with pytest.raises(PublisherUnreachable) as caught:
        await publisher.open()
    assert "publishers.nats.servers: no NATS server can be reached (nats://127.0.0.1:1: " in str(caught.value)
    assert "nats://localhost:2: " in str(caught.value)
    assert "start one, or correct the address" in str(caught.value)
    assert "hunter2" not in str(caught.value)
