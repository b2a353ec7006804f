"""Remove bot tokens from text: known secrets, whole or in part, and text with a token's shape.

Redact before you cut (`Redactor.excerpt`): a token that was cut no longer has its shape.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

TOKEN_VARIABLE = "DISCORD_BOT_TOKEN"  # noqa: S105  # the environment variable of the bot token
REDACTED = "<token>"

SHORTEST_PART = 12  # characters of a secret that are hidden without the rest; fewer occur in ordinary text
EXCERPT_WINDOW = 64 * 1024  # characters that an excerpt is made from; redacted text is at most 40 times shorter
ESCAPE_DEPTH = 3  # nested levels of escapes that are undone: a URL in JSON in an HTML page

# base64 of the bot's id (ASCII digits, so its first letter is M, N or O) . issue time . signature
_TOKEN_SHAPE = re.compile(r"[MNO][\w-]{22,30}\.[\w-]{6,7}\.[\w-]{25,}", re.ASCII)
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}|\\u\{?[0-9A-Fa-f]{1,6}\}?|\\x[0-9A-Fa-f]{2}|\\.|&#?\w{1,10};", re.ASCII)

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Notation:
    """One notation of a secret, and the pieces that find a part of it.

    Any part of ``2 * size - 1`` characters contains one whole piece, so a few searches find every part.
    """

    text: str
    size: int
    pieces: tuple[tuple[int, str], ...]

    @classmethod
    def make(cls, text: str, shortest: int) -> _Notation:
        size = (shortest + 1) // 2
        return cls(text, size, tuple((at, text[at : at + size]) for at in range(0, len(text) - size + 1, size)))

    def spans(self, text: str) -> Iterator[Span]:
        """Yield where ``text`` contains this notation or a long part of it."""
        for offset, piece in self.pieces:
            at = text.find(piece)
            while at >= 0:
                start, end = self._widen(text, at, offset)
                if end - start >= min(2 * self.size, len(self.text)):
                    yield start, end
                at = text.find(piece, max(end, at + 1))

    def _widen(self, text: str, at: int, offset: int) -> Span:
        start, left = at, offset
        while start > 0 and left > 0 and text[start - 1] == self.text[left - 1]:
            start, left = start - 1, left - 1
        end, right = at + self.size, offset + self.size
        while end < len(text) and right < len(self.text) and text[end] == self.text[right]:
            end, right = end + 1, right + 1
        return start, end


class Redactor:
    """Replaces ``secrets``, in every notation, and text with the shape of a bot token.

    Also replaces parts of a secret of `SHORTEST_PART` characters or more, since other code may have cut the text.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = [secret for secret in secrets if secret.strip()]
        notations = {notation for secret in known for notation in _notations(secret)}
        longest_first = sorted(notations, key=len, reverse=True)  # one secret may be part of another
        self._known = re.compile("|".join(map(re.escape, longest_first))) if notations else None
        self._parts = [part for secret in known if len(secret) > SHORTEST_PART for part in _parts(secret)]

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = _replace(text, self._spans(text, self._known))
        return _TOKEN_SHAPE.sub(REDACTED, text)

    def excerpt(self, text: str, length: int) -> str:
        """Return the first ``length`` characters of the redacted ``text``."""
        return self(text[:EXCERPT_WINDOW])[:length]

    def _spans(self, text: str, known: re.Pattern[str]) -> list[Span]:
        spans = self._plain_spans(text, known)
        view, origin = text, None
        for _ in range(ESCAPE_DEPTH):
            plain, ends = _unescape(view)
            if plain == view:
                break
            view, origin = plain, ends if origin is None else [origin[end] for end in ends]
            spans += [(origin[start], origin[end]) for start, end in self._plain_spans(view, known)]
        return spans

    def _plain_spans(self, text: str, known: re.Pattern[str]) -> list[Span]:
        spans = [match.span() for match in known.finditer(text)]
        for notation in self._parts:
            spans.extend(notation.spans(text))
        return spans


def _notations(secret: str) -> set[str]:
    """Return the secret as it is, and in JSON, a URL, ``repr`` (of text and bytes), base64 and hex."""
    data = secret.encode(errors="surrogatepass")
    written = {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], repr(data)[2:-1], quote(data, safe="")}
    if len(secret) > SHORTEST_PART:  # codes of a short secret occur in ordinary text
        written |= {*_base64(data), data.hex(), data.hex().upper()}
    return written


def _parts(secret: str) -> Iterator[_Notation]:
    data = secret.encode(errors="surrogatepass")
    yield _Notation.make(secret, SHORTEST_PART)
    for code in _base64(data):
        yield _Notation.make(code, SHORTEST_PART * 4 // 3)
    for code in (data.hex(), data.hex().upper()):
        yield _Notation.make(code, SHORTEST_PART * 2)


def _base64(data: bytes) -> list[str]:
    """Return the constant middle of the base64 code of ``data`` for each of its three alignments."""
    codes = []
    for before in range(3):
        code = base64.b64encode(bytes(before) + data).rstrip(b"=").decode()
        middle = code[(8 * before + 5) // 6 :][: len(data) * 8 // 6 - 1]
        codes += [middle, middle.translate(str.maketrans("+/", "-_"))]
    return list(dict.fromkeys(codes))


def _unescape(text: str) -> tuple[str, list[int]]:
    """Undo one level of escapes. Returns the text, and for each position in it (its end included) the position in ``text``."""
    if "%" not in text and "\\" not in text and "&" not in text:
        return text, []
    plain: list[str] = []
    places: list[int] = []
    at = 0
    for match in _ESCAPE.finditer(text):
        start, end = match.span()
        meaning = _meaning(match[0])
        plain.append(text[at:start] + meaning)
        places += range(at, start)
        places += [start] * len(meaning)
        at = end
    plain.append(text[at:])
    places += range(at, len(text) + 1)
    return "".join(plain), places


def _meaning(escape: str) -> str:
    """Return the character that ``escape`` stands for, or ``escape`` itself if it stands for none."""
    if escape[0] == "&":
        return html.unescape(escape)
    code = escape.lstrip("%\\").lstrip("ux").strip("{}") if escape[0] == "%" or escape[1] in "ux" else ""
    try:
        return chr(int(code, 16)) if code else escape[1:] or escape
    except (ValueError, OverflowError):
        return escape


def _replace(text: str, spans: list[Span]) -> str:
    if not spans:
        return text
    kept, at = [], 0
    for start, end in sorted(spans):
        if start >= at:
            kept += [text[at:start], REDACTED]
        at = max(at, end)
    return "".join([*kept, text[at:]])


def without_logins(value: object) -> object:
    """Return a URL, or a list of them, without user names and passwords; any other value unchanged."""
    if isinstance(value, list | tuple):
        return type(value)(map(without_logins, value))
    if not isinstance(value, str):
        return value
    scheme, separator, rest = value.partition("://")
    login, _, host = rest.rpartition("@")
    return f"{scheme}{separator}{host}" if login else value
