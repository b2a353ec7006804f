"""Recorded sessions, replayed through a whole control plane: it must behave as it did then.

The mock transport compares what is sent with the recording. The tests compare the states, the published events with those in
the file, and the stats. tests/record_sessions.py writes the files.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from discorder.config import load_config
from discorder.errors import FatalCloseError, RecordingError
from discorder.replaying import Replayed, replay
from discorder.transport.recorded import Recording
from discorder.wire import Event

SESSIONS = Path(__file__).parent / "sessions"
CONFIG = load_config(None, ["publishers.sink.kind=channel", "session.store=", "log.level=error"])

IDENTIFIED = "start>Connecting hello>Identifying identify_slot>Identifying ready>Ready"
RESUMED = "diagnosed>Restarting restart_due>Connecting hello>Resuming resumed>Ready"
IDENTIFIED_AGAIN = "diagnosed>Restarting restart_due>Connecting hello>Identifying identify_slot>Identifying ready>Ready"
STOPPED = "stop>Stopping stopped>Exited"
REFUSED = "start>Connecting hello>Identifying identify_slot>Identifying closed>Unhealthy diagnosed>Exited"


@dataclass(frozen=True)
class Expected:
    """The states of each shard, in order, and the counts of all shards together."""

    ways: tuple[str, ...]
    identifies: int
    resumes: int
    restarts: int
    beats: tuple[int, int] = (0, 0)  # sent, acknowledged
    fatal: int | None = None


EXPECTED = {
    "all-event-types": Expected((f"{IDENTIFIED} reconnect>Unhealthy {RESUMED} {STOPPED}",), 1, 1, 1),
    "reconnect": Expected((f"{IDENTIFIED} reconnect>Unhealthy {RESUMED} {STOPPED}",), 1, 1, 1),
    "invalid-resumable": Expected((f"{IDENTIFIED} invalid_resumable>Unhealthy {RESUMED} {STOPPED}",), 1, 1, 1),
    "invalid": Expected((f"{IDENTIFIED} invalid_session>Unhealthy {IDENTIFIED_AGAIN} {STOPPED}",), 2, 0, 1),
    "zombie": Expected((f"{IDENTIFIED} zombie>Unhealthy {RESUMED} {STOPPED}",), 1, 1, 1, beats=(4, 3)),
    "server-close-4000": Expected((f"{IDENTIFIED} closed>Unhealthy {RESUMED} {STOPPED}",), 1, 1, 1),
    "close-4004": Expected((REFUSED,), 1, 0, 0, fatal=4004),
    "close-4014": Expected((REFUSED,), 1, 0, 0, fatal=4014),
    "flapping": Expected((" ".join([IDENTIFIED, *[f"closed>Unhealthy {IDENTIFIED_AGAIN}"] * 5, STOPPED]),), 6, 0, 5),
    "long-replay": Expected((f"{IDENTIFIED} closed>Unhealthy {RESUMED} {STOPPED}",), 1, 1, 1),
    "resume-host-refuses": Expected(
        (
            f"{IDENTIFIED} closed>Unhealthy diagnosed>Restarting restart_due>Connecting connect_failed>Unhealthy "
            f"{RESUMED} {STOPPED}",
        ),
        1,
        1,
        2,
    ),
    "resume-refused": Expected(
        (
            f"{IDENTIFIED} closed>Unhealthy diagnosed>Restarting restart_due>Connecting hello>Resuming "
            f"invalid_session>Unhealthy {IDENTIFIED_AGAIN} {STOPPED}",
        ),
        2,
        0,
        2,
    ),
    "garbage": Expected((f"{IDENTIFIED} breach>Unhealthy {RESUMED} breach>Unhealthy {RESUMED} {STOPPED}",), 1, 2, 2),
    "stored-session": Expected((f"start>Connecting hello>Resuming resumed>Ready {STOPPED}",), 0, 1, 0),
    "goodbye": Expected((f"{IDENTIFIED} {STOPPED}",), 1, 0, 0),
    "two-shards": Expected((f"{IDENTIFIED} {STOPPED}", f"{IDENTIFIED} closed>Unhealthy {RESUMED} {STOPPED}"), 2, 1, 1),
}


class Collector:
    """A publisher that keeps the events it gets, not the control plane's own records."""

    name = "collector"
    durable = False

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def open(self) -> None: ...

    async def publish(self, events: Sequence[Event]) -> None:
        self.publish_nowait(events)

    def publish_nowait(self, events: Sequence[Event]) -> int:
        self.events.extend(event for event in events if event.seq is not None)
        return len(events)

    async def close(self) -> None: ...


async def play(path: Path) -> tuple[Replayed, list[Event]]:
    collector = Collector()
    replayed = await replay(Recording.load(path), CONFIG, publishers=[collector])
    return replayed, collector.events


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def recorded_dispatches(path: Path) -> list[tuple[int, int, str, bytes]]:
    """Return (shard, seq, type, bytes of d) of every received dispatch, in the order of the file."""
    found = []
    for entry in lines(path):
        if entry.get("k") != "in" or not entry["text"].startswith('{"t":"') or not entry["text"].endswith("}"):
            continue
        head = re.match(r'\{"t":"(\w+)","s":(\d+),"op":0,"d":', entry["text"])
        assert head is not None, entry["text"][:80]
        found.append((entry["shard"][0], int(head[2]), head[1], entry["text"][head.end() : -1].encode()))
    return found


@pytest.mark.parametrize("name", EXPECTED)
async def test_a_recorded_session_goes_the_same_way_again(name: str) -> None:
    expected = EXPECTED[name]
    replayed, _ = await play(SESSIONS / f"{name}.jsonl")
    shards = replayed.tracker.shards
    assert tuple(" ".join(f"{t.trigger}>{t.target}" for t in shard.transitions) for shard in shards) == expected.ways
    assert isinstance(replayed.error, FatalCloseError) == (expected.fatal is not None)
    assert getattr(replayed.error, "code", None) == expected.fatal


@pytest.mark.parametrize("name", EXPECTED)
async def test_every_recorded_event_is_published_once_in_order_and_byte_for_byte(name: str) -> None:
    path = SESSIONS / f"{name}.jsonl"
    _, events = await play(path)
    wanted = recorded_dispatches(path)
    for shard in {entry[0] for entry in wanted}:
        published = [(e.shard[0], e.seq, e.type, e.data) for e in events if e.shard[0] == shard]
        assert published == [entry for entry in wanted if entry[0] == shard]


@pytest.mark.parametrize("name", EXPECTED)
async def test_the_stats_tell_what_happened(name: str) -> None:
    expected = EXPECTED[name]
    path = SESSIONS / f"{name}.jsonl"
    replayed, events = await play(path)
    stats = replayed.tracker.stats
    assert (stats.identify_count, stats.resume_count, stats.restart_count) == (
        expected.identifies,
        expected.resumes,
        expected.restarts,
    )
    assert stats.published_event_count == len(events) == sum(stats.events_by_type.values())
    sent, acknowledged = expected.beats
    assert abs(stats.heartbeat_sent_count - sent) <= 2  # one per connection: the first delay is random
    assert stats.heartbeat_sent_count - stats.heartbeat_received_count == sent - acknowledged


async def test_a_normal_start_brings_all_79_event_types() -> None:
    _, events = await play(SESSIONS / "all-event-types.jsonl")
    assert len({event.type for event in events}) == 79


async def test_the_back_off_of_a_flapping_server_grows() -> None:
    """READY is no proof of stability: each rung allows twice the wait of the one before."""
    dials = [entry["t"] for entry in lines(SESSIONS / "flapping.jsonl") if entry.get("k") == "dial"]
    assert len(dials) == 6
    replayed, _ = await play(SESSIONS / "flapping.jsonl")
    waits = [t.milliseconds for t in replayed.tracker.shards[0].transitions if t.trigger == "restart_due"]
    assert len(waits) == 5
    for rung, wait in enumerate(waits):
        assert 250 <= wait <= min(600_000, 5_000 * 2**rung) + 1


def test_a_long_replay_holds_500_events() -> None:
    entries = lines(SESSIONS / "long-replay.jsonl")
    assert sum(entry.get("k") == "in" and entry.get("c") == 2 for entry in entries) >= 500


def test_no_recording_holds_a_secret() -> None:
    for path in SESSIONS.glob("*.jsonl"):
        text = path.read_text()
        assert "127.0.0.1" not in text, path
        assert set(re.findall(r'\\"session_id\\":\\"(.*?)\\"', text)) <= {f"<session-{n}>" for n in range(1, 9)}, path
        assert set(re.findall(r'\\"op\\":[26],\\"d\\":\{\\"token\\":\\"(.*?)\\"', text)) <= {"<token>"}, path


def another_session(entry: dict[str, Any]) -> bool:
    if entry.get("k") == "out" and '"op":6' in entry["text"]:
        entry["text"] = entry["text"].replace("<session-1>", "<session-2>")
        return True
    return False


def another_close_code(entry: dict[str, Any]) -> bool:
    if entry.get("k") == "close" and entry["by"] == "us":
        entry["code"] = 4001
        return True
    return False


def one_frame_more(entry: dict[str, Any]) -> bool:
    if entry.get("k") == "out" and '"op":6' in entry["text"]:
        entry["text"] = '{"op":3,"d":{}}'
        return True
    return False


@pytest.mark.parametrize("tamper", [another_session, another_close_code, one_frame_more])
async def test_the_first_difference_is_named_with_its_line(
    tmp_path: Path, tamper: Callable[[dict[str, Any]], bool]
) -> None:
    entries = lines(SESSIONS / "reconnect.jsonl")
    number = next(n for n, entry in enumerate(entries, 1) if tamper(entry))
    path = tmp_path / "tampered.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    with pytest.raises(RecordingError, match=rf"tampered\.jsonl.*line {number}\b.*expected .*got "):
        await play(path)


# ---------------------------------------------------------------- damaged recordings

BIG = 10**30
ODD: tuple[Any, ...] = (None, -1, BIG, "x", [])
SHARDS: tuple[Any, ...] = ([0, BIG], [True, 2], [[], {}], None)
SESSION_IDS: tuple[Any, ...] = (None, 5, [])
TEXTS: tuple[Any, ...] = ("\ud83d", "[" * 100_000, None, "")
TIMES: tuple[Any, ...] = (None, 1e308, True, [])
# a session with two connections: dial, open, Hello, IDENTIFY, …, dial, open, Hello, RESUME, …, end
RESUMED_ONCE = "reconnect"


def damaged(name: str, row: int, damage: Callable[[list[dict[str, Any]], int], None]) -> str:
    rows = lines(SESSIONS / f"{name}.jsonl")
    damage(rows, row)
    return "".join(json.dumps(one) + "\n" for one in rows)


def without_row(rows: list[dict[str, Any]], row: int) -> None:
    del rows[row]


def twice(rows: list[dict[str, Any]], row: int) -> None:
    rows.insert(row, dict(rows[row]))


def later(milliseconds: int) -> Callable[[list[dict[str, Any]], int], None]:
    def damage(rows: list[dict[str, Any]], row: int) -> None:
        for one in rows[row:]:
            one["t"] += milliseconds

    return damage


def with_value(key: str, value: Any) -> Callable[[list[dict[str, Any]], int], None]:
    def damage(rows: list[dict[str, Any]], row: int) -> None:
        rows[row][key] = value

    return damage


def with_d(**changes: Any) -> Callable[[list[dict[str, Any]], int], None]:
    def damage(rows: list[dict[str, Any]], row: int) -> None:
        frame = json.loads(rows[row]["text"])
        rows[row]["text"] = json.dumps(frame | {"d": frame["d"] | changes})

    return damage


Damage = Callable[[list[dict[str, Any]], int], None]
DAMAGES: list[tuple[int, Damage]] = [
    *((0, with_value("created", year)) for year in ("9999-12-31T23:59:59+00:00", "0001-01-01", "5")),
    *((0, with_value("shards", count)) for count in (BIG, True)),
    *((1, with_value("url", url)) for url in ("wss://[", "ftp://x", 5)),
    *((row, without_row) for row in range(1, 6)),
    *((row, twice) for row in (1, 2, 4)),
    *((row, later(amount)) for row in (3, 8) for amount in (10_000_000, 90_000_000, BIG)),
    *((3, with_d(heartbeat_interval=odd)) for odd in (*ODD, 1e-20)),
    *((4, with_d(intents=odd)) for odd in ODD),
    *((4, with_value("shard", odd)) for odd in SHARDS),
    *((5, with_d(session_id=odd)) for odd in SESSION_IDS),
    *((5, with_value("text", odd)) for odd in TEXTS),
    *((5, with_value("t", odd)) for odd in TIMES),
]


@pytest.mark.parametrize(("row", "damage"), DAMAGES)
async def test_a_damaged_recording_gives_one_error_with_its_line_and_a_remedy(
    tmp_path: Path, row: int, damage: Callable[[list[dict[str, Any]], int], None]
) -> None:
    path = tmp_path / "damaged.jsonl"
    path.write_text(damaged(RESUMED_ONCE, row, damage))
    used = time.process_time()
    with pytest.raises(RecordingError, match=rf"{re.escape(str(path))}:\d+: .*record the session again"):
        await play(path)
    assert time.process_time() - used < 1.0


@pytest.mark.parametrize("content", [b"[" * 100_000 + b"\n", b"\xff\n", b"", b"\0" * 4096 + b"\n"])
def test_a_file_that_is_no_recording_gives_one_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "nonsense.jsonl"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=r"nonsense.jsonl:1: "):
        Recording.load(path)


@pytest.mark.parametrize("path", ["/dev/zero", "/", "nowhere", "a\0b"])
def test_what_is_no_file_is_not_read(path: str) -> None:
    with pytest.raises(RecordingError, match=r"cannot be read.*serve --record"):
        Recording.load(path)
