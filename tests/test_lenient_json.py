"""JSON that a strict parser refuses: valid grammar is split, invalid is refused, in little time."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discorder.lenient_json import MAX_DEPTH, split_object
from discorder.wire import decode_document, decode_envelope

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=30
)
objects = st.dictionaries(st.text(), values, max_size=5)


@given(objects, st.sampled_from([None, 1]))
def test_what_the_standard_library_writes_is_split_into_the_same_members(wanted: object, indent: int | None) -> None:
    """This holds with and without white space, and for surrogates as escapes."""
    members = split_object(json.dumps(wanted, indent=indent).encode())
    assert {json.loads(name): json.loads(value) for name, value in members.items()} == wanted


@given(objects, st.integers(min_value=0), st.sampled_from(b'{}[],:"\\0a \n-.e'))
def test_a_changed_byte_is_refused_exactly_when_the_standard_library_refuses_it(
    written: object, place: int, byte: int
) -> None:
    """The standard library also accepts some words, such as NaN; `split_object` refuses them."""
    text = bytearray(json.dumps(written).encode())
    text[place % len(text)] = byte
    try:
        valid = isinstance(json.loads(text), dict)
    except ValueError:
        valid = False
    try:
        split_object(bytes(text))
    except ValueError:
        assert not valid
    else:
        assert valid


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b'{"a":1',
        b'{"a":1}x',
        b'{"a":01}',
        b'{"a":1.}',
        b'{"a":NaN}',
        b'{"a":"\x01"}',
        b'{"a":"\\x"}',
        b'{"a":[1,]}',
        b'{"a":1,}',
        b"{a:1}",
        b'{"a":{"b":[[[[[}]]]]]}}',
        b'{"a":' + b"[" * (MAX_DEPTH + 9) + b"]" * (MAX_DEPTH + 9) + b"}",
    ],
)
def test_what_is_no_json_is_refused(text: bytes) -> None:
    """The same holds for JSON that is nested too deep."""
    with pytest.raises(ValueError, match="JSON"):
        split_object(text)


def test_a_large_event_with_a_lone_surrogate_is_read_in_no_time() -> None:
    """The event has 5 MB. The limit, in CPU time, is ten times the measured value."""
    member = {"user": {"id": "1" * 18, "name": "n" * 30, "nick": "\ud83d"}, "roles": ["1", "2"], "deaf": False}
    frame = json.dumps({"t": "GUILD_CREATE", "s": 2, "op": 0, "d": {"members": [member] * 40_000}}).encode()
    began = time.process_time()
    assert decode_envelope(frame).t == "GUILD_CREATE"
    assert time.process_time() - began < 2.0


def test_a_document_with_a_lone_surrogate_can_be_read_by_a_bot() -> None:
    """It is read as the standard library reads it."""
    event = decode_document(
        b'{"type":"A","shard":[0,1],"seq":2,"prev":null,"session":"0123456789abcdef",'
        b'"timestamp":"2026-01-01T00:00:00Z","data":{"x":"cut \\ud83d"}}'
    )
    assert (event.type, event.seq, event.json()) == ("A", 2, {"x": "cut \ud83d"})


def test_a_document_that_is_none_is_refused() -> None:
    """This holds whatever its data is."""
    with pytest.raises(ValueError, match=r"JSON|type"):
        decode_document(b'{"data":"\\ud83d"}')
    with pytest.raises(ValueError, match="JSON"):
        decode_document(b"[")
