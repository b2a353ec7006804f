"""Find and replace the string literals of a JSON text without decoding the document.

This keeps every byte outside the replaced literals, and sees repeated keys and any depth of nesting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_PART = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"(\s*:)?|[{}\[\]]', re.DOTALL)
# The JSON between string literals. Any other text may be private words.
_BETWEEN = re.compile(r"(?:[\s,:]|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)*")


@dataclass(frozen=True, slots=True)
class Literal:
    """Locate one string literal at ``text[start:end]``, quotes included.

    ``key`` is the object key of its value, also inside arrays. ``is_key``: the literal is an object key itself.
    """

    start: int
    end: int
    value: str
    key: str
    is_key: bool


def literals(text: str) -> list[Literal] | None:
    """Return the string literals of ``text`` in order, None if ``text`` contains anything but JSON tokens."""
    try:
        return list(_scan(text))
    except ValueError:
        return None


def rewritten(text: str, found: list[Literal], change: Callable[[Literal], str]) -> str:
    """Apply ``change`` to each literal of ``found`` in ``text``. The rest stays unchanged, character for character."""
    pieces, after = list[str](), 0
    for literal in found:
        value = change(literal)
        if value != literal.value:
            bare = '"' not in value and "\\" not in text[literal.start : literal.end]
            pieces += text[after : literal.start], f'"{value}"' if bare else json.dumps(value)
            after = literal.end
    return "".join([*pieces, text[after:]])


def _scan(text: str) -> Iterator[Literal]:
    """Yield the literals. Raises ValueError for anything but a JSON token."""
    outer: list[str] = []
    key, after = "", 0
    for part in _PART.finditer(text):
        _check_between(text, after, part.start())
        after = part.end()
        body = part[1]
        if body is None:
            if part[0] in "{[":
                outer.append(key)
            elif outer:
                key = outer.pop()
            continue
        value = json.loads(f'"{body}"', strict=False) if "\\" in body else body
        end = part.end(1) + 1
        if part[2] is None:
            yield Literal(part.start(), end, value, key, is_key=False)
        else:
            yield Literal(part.start(), end, value, key, is_key=True)
            key = value
    _check_between(text, after, len(text))


def _check_between(text: str, start: int, end: int) -> None:
    if start < end and _BETWEEN.fullmatch(text, start, end) is None:
        msg = "not JSON"
        raise ValueError(msg)
