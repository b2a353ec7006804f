"""Escape the characters that control a terminal, in text and in JSON that comes from outside."""

from __future__ import annotations

import re

# Control characters but the tab, line separators, the marks that turn the direction of text around, lone surrogates.
_BUT_NEWLINE = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROL = re.compile(f"[\n{_BUT_NEWLINE}]")
_CONTROL_BUT_NEWLINE = re.compile(f"[{_BUT_NEWLINE}]")


def has_controls(text: str) -> bool:
    """Return whether `escape_controls` changes ``text``."""
    return _CONTROL.search(text) is not None


def escape_controls(text: str) -> str:
    r"""Return ``text`` as one line without control characters, each as ``\n``, ``\x1b`` or ``\u202e``."""
    return _CONTROL.sub(_in_text, text)


def escape_controls_but_newlines(text: str) -> str:
    """Return ``text`` as `escape_controls` does, with its lines."""
    return _CONTROL_BUT_NEWLINE.sub(_in_text, text)


def escape_controls_in_json(document: str) -> str:
    """Return a JSON document with the escapes of JSON: of the same meaning, and of one line if its strings are its only text."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", document)


def escape_json(encoded: bytes) -> bytes:
    """Return encoded JSON as `escape_controls_in_json` does; at hardly any cost if it is plain ASCII, as documents mostly are."""
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded  # an encoder escapes what is below a space
    return escape_controls_in_json(encoded.decode()).encode()


def _in_text(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")
