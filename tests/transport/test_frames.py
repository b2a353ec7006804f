"""Websocket frames are parsed whatever the server sends, and however it is split."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discorder.errors import Closed, ProtocolBreach
from discorder.transport.frames import FrameReader, Opcode, masked_frame

FINAL = 0x80


def frame(payload: bytes, opcode: int = Opcode.BINARY, *, head: int | None = None) -> bytes:
    """Return a server's frame; ``head`` replaces its first byte."""
    size = len(payload)
    if size < 126:
        length = bytes([size])
    elif size < 1 << 16:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    return bytes([FINAL | opcode if head is None else head]) + length + payload


def read(*pieces: bytes, most: int = 1000, limit: int = 1 << 20) -> tuple[list[tuple[int, bytes]], FrameReader]:
    """Return the messages in ``pieces`` with their kinds, and the reader."""
    reader = FrameReader(limit)
    messages: list[tuple[int, bytes]] = []
    for piece in pieces:
        reader.feed(piece)
        while reader.more:
            batch = reader.take(most)
            assert len(batch) <= most
            messages += [(reader.kind, message) for message in batch]
    return messages, reader


def binary(*payloads: bytes) -> list[tuple[int, bytes]]:
    return [(Opcode.BINARY, payload) for payload in payloads]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 300_000])
@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1400, 1 << 20])
def test_a_message_of_any_length_in_pieces_of_any_length(size: int, piece: int) -> None:
    data = frame(b"x" * size) + frame(b"next")
    pieces = [data[start : start + piece] for start in range(0, len(data), piece)]
    messages, reader = read(*pieces)
    assert messages == binary(b"x" * size, b"next")
    assert reader.end is None


messages_and_controls = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([Opcode.TEXT, Opcode.BINARY]), st.binary(max_size=300), st.integers(1, 4)),
        st.tuples(st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125), st.just(1)),
    ),
    max_size=30,
)


@given(sent=messages_and_controls, cuts=st.lists(st.integers(0, 10_000), max_size=20), most=st.integers(1, 5))
def test_what_was_sent_comes_out_in_order(sent: list[tuple[Opcode, bytes, int]], cuts: list[int], most: int) -> None:
    """Text and binary messages, whole and in fragments with pings between them, split anywhere."""
    data = b""
    for opcode, payload, parts in sent:
        step = max(1, -(-len(payload) // parts))
        pieces = [payload[start : start + step] for start in range(0, len(payload), step)] or [b""]
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            kind = opcode if number == 0 else Opcode.CONTINUATION
            data += frame(piece, head=(FINAL if last else 0) | kind)
            if not last:
                data += frame(b"between", Opcode.PING)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    messages, reader = read(*(data[a:b] for a, b in itertools.pairwise(edges)), most=most)
    assert messages == [(opcode, payload) for opcode, payload, _ in sent if opcode < Opcode.CLOSE]
    assert reader.end is None


def test_messages_of_one_batch_are_of_one_kind() -> None:
    reader = FrameReader()
    reader.feed(frame(b"1") + frame(b"2") + frame(b"3", Opcode.TEXT) + frame(b"4", Opcode.TEXT) + frame(b"5"))
    batches = []
    while reader.more:
        batch = reader.take(1000)
        batches.append((reader.kind, batch))
    assert batches == [
        (Opcode.BINARY, [b"1", b"2"]),
        (Opcode.TEXT, [b"3", b"4"]),
        (Opcode.BINARY, [b"5"]),
    ]


def test_no_more_frames_are_taken_than_asked_for() -> None:
    """The remaining frames wait; bytes that are fed meanwhile come after them."""
    reader = FrameReader()
    reader.feed(frame(b"1") + frame(b"2") + frame(b"3")[:2])
    assert reader.take(1) == [b"1"]
    assert reader.more
    reader.feed(frame(b"3")[2:] + frame(b"4"))
    assert reader.take(2) == [b"2", b"3"]
    assert reader.take(2) == [b"4"]
    assert reader.take(2) == []
    assert not reader.more


def test_a_ping_ends_a_batch() -> None:
    reader = FrameReader()
    reader.feed(frame(b"1") + frame(b"ping", Opcode.PING) + frame(b"2"))
    assert (reader.take(1000), reader.ping) == ([b"1"], b"ping")
    assert reader.take(1000) == [b"2"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (frame(b"x", head=0xC2), "reserved bits"),
        (frame(b"x", head=0xA1), "reserved bits"),
        (frame(b"x", 0x3), "opcode 3 is unknown"),
        (frame(b"x", 0xB), "opcode 11 is unknown"),
        (frame(b"x", head=Opcode.PING), "control frame"),
        (frame(b"x" * 126, Opcode.PING), "control frame"),
        (frame(b"x", Opcode.CONTINUATION), "out of order"),
        (frame(b"x", head=Opcode.TEXT) + frame(b"y", Opcode.TEXT), "out of order"),
        (frame(b"x", head=Opcode.TEXT) + frame(b"y", head=Opcode.TEXT), "out of order"),
        (b"\x82\x81keyx", "masked"),
        (b"\x82\xfe\x00\x7ekey", "masked"),
        (b"\x82\xffkey", "masked"),
        (frame(b"\x03", Opcode.CLOSE), "close frame"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "reserved bits"),
    ],
)
@pytest.mark.parametrize("piece", [1, 1000])
def test_what_is_no_websocket_is_a_breach_after_the_messages_before_it(data: bytes, words: str, piece: int) -> None:
    """The rest of the input is not read."""
    data = frame(b"before") + data
    pieces = [data[start : start + piece] for start in range(0, len(data), piece)]
    messages, reader = read(*pieces, frame(b"after"))
    assert messages == binary(b"before")
    assert isinstance(reader.end, ProtocolBreach)
    assert words in str(reader.end)


def test_bad_frames_are_refused_before_their_payload_is_there() -> None:
    for header in (b"\xc2\x7f" + (500_000).to_bytes(8, "big"), b"\x89\x7e\x00\x7e"):
        _, reader = read(header)
        assert isinstance(reader.end, ProtocolBreach)


@pytest.mark.parametrize("size", [1001, 65_536, 1 << 40, (1 << 64) - 1])
def test_a_message_beyond_the_limit_is_refused_at_its_header(size: int) -> None:
    header = frame(b"x" * size)[:4] if size < 65_536 else b"\x82\x7f" + size.to_bytes(8, "big")
    _, reader = read(header, limit=1000)
    assert isinstance(reader.end, ProtocolBreach)
    assert "larger than 1000 bytes" in str(reader.end)


def test_a_message_in_fragments_is_bounded_as_a_whole() -> None:
    fits = [frame(b"x" * 500, head=Opcode.BINARY), frame(b"x" * 500, Opcode.CONTINUATION)]
    assert read(*fits, limit=1000)[0] == binary(b"x" * 1000)
    _, reader = read(fits[0], frame(b"x" * 501, Opcode.CONTINUATION), limit=1000)
    assert "larger than 1000 bytes" in str(reader.end)


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4000, 4014, 4999])
def test_a_close_frame_ends_the_stream(code: int) -> None:
    _, reader = read(frame(code.to_bytes(2, "big") + "größe".encode(), Opcode.CLOSE) + frame(b"after"), frame(b"more"))
    assert isinstance(reader.end, Closed)
    assert (reader.end.code, reader.end.by, reader.end.reason) == (code, "peer", "größe")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535])
def test_a_close_code_that_may_not_be_sent_is_a_breach(code: int) -> None:
    """RFC 6455 §7.4."""
    _, reader = read(frame(code.to_bytes(2, "big"), Opcode.CLOSE))
    assert isinstance(reader.end, ProtocolBreach)


def test_a_close_frame_without_a_code_has_1005_and_a_reason_that_is_no_utf8_is_readable() -> None:
    _, reader = read(frame(b"", Opcode.CLOSE))
    assert isinstance(reader.end, Closed)
    assert reader.end.code == 1005
    _, reader = read(frame(b"\x0f\xa0\xff", Opcode.CLOSE))
    assert isinstance(reader.end, Closed)
    assert reader.end.reason == "\ufffd"


@pytest.mark.parametrize("size", [0, 1, 3, 125, 126, 65_535, 65_536, 100_001])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.PONG])
def test_a_frame_of_ours_is_masked(size: int, opcode: Opcode) -> None:
    payload = bytes(number & 0xFF for number in range(size))
    data = masked_frame(payload, opcode)
    assert data[0] == FINAL | opcode
    assert data[1] & 0x80
    header = {126: 4, 127: 10}.get(data[1] & 0x7F, 2)
    length = data[1] & 0x7F if header == 2 else int.from_bytes(data[2:header], "big")
    key, masked = data[header : header + 4], data[header + 4 :]
    assert length == len(masked) == size
    assert bytes(byte ^ key[at % 4] for at, byte in enumerate(masked)) == payload
    assert masked_frame(payload, opcode)[header : header + 4] != key
