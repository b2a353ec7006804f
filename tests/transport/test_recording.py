"""A recording is complete, contains no secrets, never disturbs the session, and can be read again."""

from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from discorder.clock import FakeClock
from discorder.errors import Closed, ConnectFailed, GatewayFailure, ProtocolBreach, RecordingError, UnusableFile
from discorder.transport.protocol import Deliver
from discorder.transport.recorded import EntryKind, Recording
from discorder.transport.recording import RecordingTransport, SessionRecorder

TOKEN = "MTA0.GxYz.very-secret-token"
LOOPBACK = "http://127.0.0.1:4567/api/v10"
DISCORD = "https://discord.com/api/v10"
READY = {
    "op": 0,
    "s": 1,
    "t": "READY",
    "d": {
        "v": 10,
        "session_id": "5e55",
        "resume_gateway_url": "ws://127.0.0.1:9999",
        "user": {"id": "1", "username": "böt"},
    },
}
IDENTIFY: dict[str, Any] = {"op": 2, "d": {"token": TOKEN, "intents": 513, "properties": {"os": "linux"}}}
RESUME = {"op": 6, "d": {"token": TOKEN, "session_id": "5e55", "seq": 1}}
INTERACTION = {
    "op": 0,
    "s": 2,
    "t": "INTERACTION_CREATE",
    "d": {"id": "77", "token": "int3raction", "url": "https://x/webhooks/77/int3raction", "data": {"name": "weather"}},
}
MESSAGE = {
    "op": 0,
    "s": 3,
    "t": "MESSAGE_CREATE",
    "d": {
        "id": "1234",
        "content": "grüße 😀",
        "timestamp": "2026-11-23T09:30:01.123000+00:00",
        "author": {"id": "9", "username": "nelly", "global_name": None, "bot": False},
        "embeds": [{"title": "123456", "fields": [{"name": "a", "value": "2026-11-23T09:30:01Z"}]}],
    },
}


class Script:
    """An inner transport controlled by the test."""

    def __init__(self, *steps: list[bytes] | GatewayFailure, connect: GatewayFailure | None = None) -> None:
        self.steps = list(steps)
        self.connect_error = connect
        self.closed = True
        self.sent: list[bytes] = []
        self.received: list[list[bytes]] = []  # what the test received from the transport around this one

    async def connect(self, url: str, deliver: Deliver) -> None:
        if self.connect_error is not None:
            raise self.connect_error
        self.closed = False
        self.deliver = deliver

    def step(self) -> None:
        """Deliver the next batch."""
        batch = self.steps.pop(0)
        assert isinstance(batch, list)
        self.deliver(batch)

    async def wait_closed(self) -> None:
        end = self.steps.pop(0)
        assert isinstance(end, GatewayFailure)
        self.closed = isinstance(end, Closed)
        raise end

    async def send(self, data: bytes) -> None:
        self.sent.append(data)

    async def close(self, code: int) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


def wire(frame: Any) -> bytes:
    return json.dumps(frame, separators=(",", ":"), ensure_ascii=False).encode()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_session_is_written_down_with_its_times(tmp_path: Path) -> None:
    clock, path = FakeClock(), tmp_path / "s.jsonl"
    with SessionRecorder(path, clock=clock, api_url=LOOPBACK, secrets=[TOKEN]) as recorder:
        inner = Script([wire({"op": 10}), wire(READY)], Closed(4000, "peer", "bye"))
        transport = recorder.wrap(inner, (0, 2))
        await clock.advance(0.25)
        await transport.connect("ws://127.0.0.1:4567/?v=10&encoding=json", inner.received.append)
        inner.step()
        assert inner.received.pop() == [wire({"op": 10}), wire(READY)]
        await clock.advance(1.5)
        await transport.send(wire(IDENTIFY))
        with pytest.raises(Closed):
            await transport.wait_closed()
        await transport.close(4000)
        transport.abort()
        second = recorder.wrap(Script(connect=ConnectFailed("no", 503)), (0, 2))
        with pytest.raises(ConnectFailed):
            await second.connect("ws://127.0.0.1:9999/?v=10", inner.received.append)
    assert inner.sent == [wire(IDENTIFY)]
    header, *entries = lines(path)
    assert header | {"created": ""} == {
        "format": "discorder-session", "version": 1, "api": 10, "created": "", "shards": 2, "filler": False
    }  # fmt: skip
    assert [(entry["t"], entry["c"], entry["k"]) for entry in entries] == [
        (250, 1, "dial"),
        (250, 1, "open"),
        (250, 1, "in"),
        (250, 1, "in"),
        (1750, 1, "out"),
        (1750, 1, "close"),
        (1750, 2, "dial"),
        (1750, 2, "fail"),
        (1750, None, "end"),
    ]
    assert (entries[5]["code"], entries[5]["by"]) == (4000, "peer")
    assert entries[0]["url"] == "wss://gateway.invalid/?v=10&encoding=json"
    assert entries[6]["url"] == "wss://resume-1.invalid/?v=10"
    assert (entries[7]["error"], entries[7]["status"]) == ("no", 503)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("api", [LOOPBACK, DISCORD])
async def test_no_secret_reaches_the_file_and_placeholders_fit_together(tmp_path: Path, api: str, raw: bool) -> None:
    path = tmp_path / "s.jsonl"
    with SessionRecorder(path, clock=FakeClock(), api_url=api, raw=raw, secrets=[TOKEN]) as recorder:
        inner = Script(
            [wire(READY), wire(INTERACTION)], [b"garbage with " + TOKEN.encode()], ProtocolBreach(f"bad {TOKEN}")
        )
        transport = recorder.wrap(inner, (0, 1))
        await transport.connect("ws://127.0.0.1:4567/", inner.received.append)
        await transport.send(wire(IDENTIFY | {"d": IDENTIFY["d"] | {"token": "Bot another-token"}}))
        inner.step()
        await transport.send(wire(RESUME))
        inner.step()
        with pytest.raises(ProtocolBreach):
            await transport.wait_closed()
    text = path.read_text()
    for secret in (TOKEN, "another-token", "5e55", "int3raction", "127.0.0.1:9999"):
        assert secret not in text
    texts = [entry["text"] for entry in lines(path) if entry.get("k") in ("in", "out")]
    frames = [json.loads(text) for text in texts[:4]]
    identify, ready, interaction, resume = frames
    assert identify["d"]["token"].endswith("<token>")
    assert resume["d"] == {"token": "<token>", "session_id": "<session-1>", "seq": 1}
    assert (ready["d"]["session_id"], ready["d"]["resume_gateway_url"]) == ("<session-1>", "wss://resume-1.invalid")
    assert interaction["d"]["token"] == "<secret-1>"
    assert interaction["d"]["id"] == "77"
    if raw or api == LOOPBACK:
        assert interaction["d"]["url"] == "https://x/webhooks/77/<secret-1>"


@pytest.mark.parametrize("api", [LOOPBACK, DISCORD])
@pytest.mark.parametrize(
    "frame",
    [
        '{"op":2,"d":{"token":"%s","token":"other"}}',
        '{"op":2,"d":{"token":"other","token":"%s"}}',
        '{"op":0,"t":"X","s":1,"d":{"%s":1}}',
        '{"op":0,"t":"X","s":1,"d":{"names":{"a %s b":[]}}}',
        '{"op":0,"t":"X","s":1,"d":"\\u0020%s\\n"}',
        '{"op":0,"t":"X","s":1,"d":[' + "[" * 1200 + '"%s"' + "]" * 1200 + "]}",
        '{"op":0,"t":"X","s":1,"d":"\\ud83d %s"}',
    ],
)
async def test_the_token_reaches_the_file_in_no_notation(tmp_path: Path, frame: str, api: str) -> None:
    """The token is replaced under a duplicate key, as a key, after an escape, at any depth. The frame itself is not changed."""
    data = (frame % TOKEN).encode()
    path = tmp_path / "s.jsonl"
    with SessionRecorder(path, clock=FakeClock(), api_url=api, secrets=[TOKEN]) as recorder:
        inner = Script([data])
        transport = recorder.wrap(inner, (0, 1))
        await transport.connect("ws://127.0.0.1:4567/", inner.received.append)
        await transport.send(data)
        inner.step()
        assert inner.received.pop() == [data]
    assert inner.sent == [data]
    text = path.read_text()
    assert "very-secret" not in text
    assert len(Recording.load(path).connections[0].entries) == 4


async def test_a_secret_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    """The short ids of a test server occur in many words."""
    frame = {"op": 0, "t": "VOICE_STATE_UPDATE", "s": 1, "d": {"session_id": "e", "member": {"nick": "eve"}, "n": 1.50}}
    path = tmp_path / "s.jsonl"
    with SessionRecorder(path, clock=FakeClock(), api_url=LOOPBACK, secrets=[TOKEN]) as recorder:
        inner = Script([wire(frame)])
        transport = recorder.wrap(inner, (0, 1))
        await transport.connect("ws://127.0.0.1:4567/", inner.received.append)
        inner.step()
    assert lines(path)[3]["text"] == wire(frame).decode().replace('"session_id":"e"', '"session_id":"<session-1>"')


@pytest.mark.parametrize("url", ["wss://[", "ws://xn--/", "nonsense", ""])
async def test_an_odd_resume_url_does_not_break_the_session(tmp_path: Path, url: str) -> None:
    ready = READY | {"d": {"session_id": "5e55", "resume_gateway_url": url}}
    with SessionRecorder(tmp_path / "s.jsonl", clock=FakeClock(), api_url=LOOPBACK) as recorder:
        inner = Script([wire(ready)])
        transport = recorder.wrap(inner, (0, 1))
        await transport.connect("ws://127.0.0.1:4567/", inner.received.append)
        inner.step()
        assert inner.received.pop() == [wire(ready)]
        refused = recorder.wrap(Script(connect=ConnectFailed("no")), (0, 1))
        with pytest.raises(ConnectFailed):
            await refused.connect(url, inner.received.append)


async def test_words_become_filler_of_the_same_length_unless_loopback_or_raw(tmp_path: Path) -> None:
    texts = {}
    for name, api, raw in [("filled", DISCORD, False), ("raw", DISCORD, True), ("own", LOOPBACK, False)]:
        with SessionRecorder(tmp_path / name, clock=FakeClock(), api_url=api, raw=raw) as recorder:
            inner = Script([wire(MESSAGE)])
            transport = recorder.wrap(inner, (0, 1))
            await transport.connect("wss://gateway.discord.gg/", inner.received.append)
            inner.step()
        texts[name] = lines(tmp_path / name)[3]["text"]
    assert texts["raw"] == texts["own"] == wire(MESSAGE).decode()
    assert json.loads(texts["filled"]) == MESSAGE | {
        "d": {
            "id": "1234",
            "content": "x" * 7,
            "timestamp": "2026-11-23T09:30:01.123000+00:00",
            "author": {"id": "9", "username": "xxxxx", "global_name": None, "bot": False},
            "embeds": [{"title": "xxxxxx", "fields": [{"name": "x", "value": "x" * 20}]}],
        },
        "t": "MESSAGE_CREATE",
    }


async def test_bytes_that_are_no_utf8_survive(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    with SessionRecorder(path, clock=FakeClock(), api_url=LOOPBACK) as recorder:
        inner = Script([b'{"op":\xff\x00}', "\u2028é".encode()])
        transport = recorder.wrap(inner, (0, 1))
        await transport.connect("ws://localhost/", inner.received.append)
        inner.step()
    entries = Recording.load(path).connections[0].entries
    assert [entry.message for entry in entries if entry.kind is EntryKind.IN] == [
        b'{"op":\xff\x00}',
        "\u2028é".encode(),
    ]


def test_the_file_is_private_from_its_first_byte_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    before = os.umask(0)
    try:
        recorder = SessionRecorder(path, clock=FakeClock(), api_url=LOOPBACK)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    recorder.close()
    kept = path.read_bytes()
    with pytest.raises(UnusableFile, match="exists already"):
        SessionRecorder(path, clock=FakeClock(), api_url=LOOPBACK)
    assert path.read_bytes() == kept
    with pytest.raises(UnusableFile, match="cannot be written"):
        SessionRecorder(tmp_path / "no" / "s.jsonl", clock=FakeClock(), api_url=LOOPBACK)


async def test_each_line_is_on_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    with SessionRecorder(path, clock=FakeClock(), api_url=LOOPBACK) as recorder:
        inner = Script([b"{}"])
        transport = recorder.wrap(inner, (0, 1))
        await transport.connect("ws://localhost/", inner.received.append)
        assert [entry.get("k") for entry in lines(path)] == [None, "dial", "open"]


async def test_a_full_disk_ends_the_recording_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, full = tmp_path / "s.jsonl", os.open("/dev/full", os.O_WRONLY)
    recorder = SessionRecorder(path, clock=FakeClock(), api_url=LOOPBACK)
    mine = next(fd for fd in range(3, 1000) if _is(fd, path))
    os.dup2(full, mine)
    os.close(full)
    inner = Script([b"{}"], [b"{}"])
    transport = recorder.wrap(inner, (0, 1))
    with caplog.at_level(logging.WARNING):
        await transport.connect("ws://localhost/", inner.received.append)
        inner.step()
        assert inner.received.pop() == [b"{}"]
        inner.step()
        assert inner.received.pop() == [b"{}"]
        recorder.close()
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text


def _is(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


async def test_a_connection_has_one_end(tmp_path: Path) -> None:
    """A close of our own after the end, or before any dial, is not recorded."""
    path = tmp_path / "s.jsonl"
    with SessionRecorder(path, clock=FakeClock(), api_url=LOOPBACK) as recorder:
        RecordingTransport(Script(), recorder, (0, 1), 1).abort()
        inner = Script()
        transport = RecordingTransport(inner, recorder, (0, 1), 2)
        await transport.connect("ws://localhost/", inner.received.append)
        await transport.close(4000)
        transport.abort()
        await transport.send(b"late")
    assert [(entry["k"], entry.get("code")) for entry in lines(path)[1:]] == [
        ("dial", None), ("open", None), ("close", 4000), ("end", None)
    ]  # fmt: skip


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/api", "http://localhost/", "http://[::1]:8/", "http://127.8.8.8/"])
def test_a_recording_of_a_loopback_gateway_keeps_what_users_wrote(url: str, tmp_path: Path) -> None:
    assert not has_filler(tmp_path, url)


@pytest.mark.parametrize(
    "url", ["https://discord.com/api/v10", "http://10.0.0.1/", "", "http://localhost.example.org/"]
)
def test_a_recording_of_any_other_gateway_replaces_what_users_wrote(url: str, tmp_path: Path) -> None:
    assert has_filler(tmp_path, url)


def has_filler(folder: Path, url: str) -> bool:
    path = folder / "s.jsonl"
    SessionRecorder(path, clock=FakeClock(), api_url=url).close()
    return bool(lines(path)[0]["filler"])


# ---------------------------------------------------------------- reading

HEADER = '{"format":"discorder-session","version":1,"api":10,"created":"","shards":1}'
DIAL = '{"t":0,"c":1,"shard":[0,1],"k":"dial"}'
OPEN = '{"t":5,"c":1,"shard":[0,1],"k":"open"}'


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "empty"),
        (HEADER, 1, "header is incomplete"),
        ("nonsense\n", 1, "not JSON"),
        ("[]\n", 1, "not a JSON object"),
        ('{"format":"x"}\n', 1, "not a recorded session"),
        (HEADER.replace('"version":1', '"version":2') + "\n", 1, "version 2"),
        (HEADER.replace('"shards":1', '"shards":"a"') + "\n", 1, "shards"),
        (f"{HEADER}\n{DIAL}\n{{\n", 3, "not JSON"),
        (f"{HEADER}\n{OPEN}\n", 2, "must begin with one"),
        (f"{HEADER}\n{DIAL}\n{DIAL}\n", 3, "must begin with one"),
        (f"{HEADER}\n{DIAL}\n{OPEN}\n{OPEN}\n", 4, "follows"),
        (f'{HEADER}\n{DIAL}\n{{"t":1,"c":1,"shard":[0,1],"k":"in","text":""}}\n', 3, "before"),
        (f"{HEADER}\n{DIAL}\n{OPEN}\n" + OPEN.replace("5", "6").replace('"open"', '"in"') + "\n", 4, 'needs "text"'),
        (f"{HEADER}\n{DIAL}\n" + OPEN.replace('"open"', '"wait"') + "\n", 3, "allowed"),
        (f"{HEADER}\n" + DIAL.replace("[0,1]", "[1,1]") + "\n", 2, "shard"),
        (f"{HEADER}\n" + DIAL.replace('"c":1', '"c":null') + "\n", 2, '"c"'),
        (f"{HEADER}\n" + DIAL.replace('"t":0', '"t":-1') + "\n", 2, '"t"'),
        (f"{HEADER}\n" + DIAL.replace('"t":0', '"t":9') + f"\n{OPEN}\n", 3, "goes back"),
        (f'{HEADER}\n{DIAL}\n{{"t":1,"c":1,"shard":[0,1],"k":"fail","by":"me"}}\n', 3, "by"),
        (f'{HEADER}\n{DIAL}\n{{"t":1,"c":1,"shard":[0,1],"k":"fail","status":"a"}}\n', 3, "numbers"),
        (f'{HEADER}\n{{"t":1,"k":"end"}}\n' + DIAL.replace('"t":0', '"t":9') + "\n", 3, "nothing may follow"),
        (f'{HEADER}\n{DIAL}\n{{"t":1,"c":1,"shard":[0,1],"k":"fail"}}\n{OPEN}\n', 4, "has ended"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path: Path, text: str, line: int, what: str) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(text)
    with pytest.raises(RecordingError) as caught:
        Recording.load(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert what in str(caught.value)


def test_a_file_that_is_not_there_is_a_recording_error(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be read"):
        Recording.load(tmp_path / "none")


def test_a_torn_last_line_is_what_a_crash_leaves(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(f"{HEADER}\n{DIAL}\n{OPEN}\n" + '{"t":6,"c":1,"sha')
    recording = Recording.load(path)
    assert [entry.kind for entry in recording.connections[0].entries] == [EntryKind.DIAL, EntryKind.OPEN]
    assert recording.ended is None
