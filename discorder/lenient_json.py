"""Split a JSON object into its members without decoding their values.

For text that RFC 8259 allows and strict parsers refuse: a lone surrogate escape, a number of any size, deep nesting.
"""

from __future__ import annotations

import re
from functools import cache

MAX_DEPTH = 10_000  # of arrays and objects; far above any event, and takes milliseconds

_SPACE = rb"[ \t\n\r]*+"
_STRING = rb'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+"
_SCALAR = rb"%b|%b|true|false|null" % (_STRING, _NUMBER)
_NAME = rb"(%b)%b:%b" % (_STRING, _SPACE, _SPACE)
_LEVELS_AT_ONCE = 3  # levels of nesting per match of the expression; the loop below does the rest


def _value(levels: int) -> bytes:
    """Return the expression of a value with at most ``levels`` levels."""
    if levels == 0:
        return _SCALAR
    inner = rb"(?:%b)%b" % (_value(levels - 1), _SPACE)
    member = rb"%b%b:%b%b" % (_STRING, _SPACE, _SPACE, inner)
    containers = [
        rb"%b%b(?:%b(?:,%b%b)*+)?+%b" % (opening, _SPACE, item, _SPACE, item, closing)
        for opening, item, closing in ((rb"\{", member, rb"\}"), (rb"\[", inner, rb"\]"))
    ]
    return b"|".join((_SCALAR, *containers))


_match_name = re.compile(_NAME).match
_match_opening = re.compile(rb"(?:\{%b%b|\[%b)" % (_SPACE, _NAME, _SPACE)).match
_match_separator = re.compile(rb"%b([,}\]])%b" % (_SPACE, _SPACE)).match
_match_start = re.compile(rb"%b\{%b(\}%b\Z)?" % (_SPACE, _SPACE, _SPACE)).match


@cache
def _value_pattern() -> re.Pattern[bytes]:
    """Compile the expression of a value. It takes 50 ms, so not before the first text that needs it."""
    return re.compile(_value(_LEVELS_AT_ONCE))


def split_object(text: bytes) -> dict[bytes, bytes]:
    """Return the members of the object: each name as it is written, quotes included, with the bytes of its value.

    The last of two members with one name counts. Raises ValueError for text that is no JSON object, or nests deeper
    than `MAX_DEPTH`.
    """
    start = _match_start(text)
    if start is None:
        msg = "the text is no JSON object"
        raise ValueError(msg)
    members: dict[bytes, bytes] = {}
    if start[1] is not None:
        return members
    at = start.end()
    while True:
        name = _expect(_match_name(text, at), "a name", at)
        end = _end_of_value(text, name.end())
        members[name[1]] = text[name.end() : end]
        separator = _expect(_match_separator(text, end), "a comma or the end of the object", end)
        at = separator.end()
        if separator[1] == b"}" and at == len(text):
            return members
        if separator[1] != b",":
            raise _malformed("a comma or the end of the text", end)


def _end_of_value(text: bytes, at: int) -> int:
    """Return where the value that begins at ``at`` ends."""
    match_value = _value_pattern().match
    closings = bytearray()  # of the containers that are open
    while True:
        value = match_value(text, at)
        if value is None:
            opening = _expect(_match_opening(text, at), "a value", at)
            closings += b"}" if text[at] == ord("{") else b"]"
            if len(closings) > MAX_DEPTH:
                msg = f"the JSON nests deeper than {MAX_DEPTH} levels"
                raise ValueError(msg)
            at = opening.end()
            continue
        at = value.end()
        while closings:
            separator = _expect(_match_separator(text, at), "a comma or the end of a container", at)
            if separator[1] == b",":
                at = separator.end()
                if closings[-1] == ord("}"):
                    at = _expect(_match_name(text, at), "a name", at).end()
                break
            if separator[1][0] != closings.pop():
                raise _malformed("the other bracket", at)
            at = separator.end(1)
        else:
            return at


def _expect(match: re.Match[bytes] | None, what: str, at: int) -> re.Match[bytes]:
    if match is None:
        raise _malformed(what, at)
    return match


def _malformed(what: str, at: int) -> ValueError:
    return ValueError(f"the JSON is malformed: {what} is missing at byte {at}")
