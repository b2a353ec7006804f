"""Fill in and quote a request's path, and derive its route, its major parameter and its text for the log."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from discorder.redaction import REDACTED

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
MAJOR_PARAMETERS = ("channel_id", "guild_id", "webhook_id")  # docs/protocol.md#rest

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ID = re.compile(r"\d{1,20}", re.ASCII)  # no literal segment of Discord's is a number
_BEFORE_TEXT = frozenset({"reactions", "invites", "templates"})  # an emoji or a code follows, written out or not
DISCORD_EPOCH = 1_420_070_400.0  # seconds since 1970; the upper bits of an id are milliseconds since then
_MESSAGE = "/channels/{id}/messages/{id}"
_AGE_STEPS = {  # seconds from which a message has another bucket or sub-limit (discord-api-docs#1295; error 30046)
    ("DELETE", _MESSAGE): ((10.0, "(older than 10 s)"), (14 * 86_400.0, "(older than 14 days)")),
    ("PATCH", _MESSAGE): ((3_600.0, "(older than 1 h)"),),
}
_LITERAL = "{}%@:!$&'()*+,;=~"  # may stay as it is in the literal part of a path (RFC 3986 §3.3)
_WITH_TOKEN = ("webhooks", "interactions")  # /webhooks/{id}/{token}/…, /interactions/{id}/{token}/callback
_TOP_LEVEL = {"channels": "channel", "guilds": "guild", "webhooks": "webhook", "interactions": "interaction"}


@dataclass(frozen=True, slots=True)
class Route:
    """The path of one request.

    ``key`` is the same for all requests that share limits up to the major parameter, ``shown`` is for messages and logs.
    ``exempt``: an interaction endpoint, outside the global limit (docs/protocol.md#rest). Only ``path`` and ``secrets`` hold
    the tokens of webhooks and interactions, and they are not in the repr. ``fields`` are the names in the body's top level.
    """

    method: str
    template: str
    major: str
    shown: str
    exempt: bool
    path: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    fields: frozenset[str]

    @property
    def key(self) -> tuple[str, str]:
        return self.method, self.template


def make_route(
    method: str,
    template: str,
    values: Mapping[str, object],
    *,
    fields: Iterable[str] = (),
    now: float | None = None,
) -> Route:
    """Fill ``template`` (``/channels/{channel_id}/messages``) with ``values``, each quoted.

    Ids in the path itself work too. ``now``, seconds since 1970, gives the
    age of a message, on which its limits depend. Raises ValueError for a method or path
    that cannot be one, TypeError for path parameters that are missing, unknown, or neither str nor int.
    """
    if method not in METHODS:
        msg = f"method {method!r}: one of {', '.join(sorted(METHODS))} is allowed"
        raise ValueError(msg)
    segments = _segments(template)
    filled = _filled(template, segments, values)
    hidden = _hidden_segments(segments)
    texts = {str(values[name]) for name in values if "token" in name} | {filled[i] for i in hidden}
    general = "/" + "/".join(_general(segments, i, is_secret=i in hidden) for i in range(len(segments)))
    return Route(
        method=method,
        template=general if now is None else general + _age(method, general, filled, now),
        fields=frozenset(fields),
        major=_major(filled, values, hidden),
        shown="/" + "/".join(REDACTED if i in hidden else s for i, s in enumerate(filled)),
        exempt=segments[0] == "interactions" or "interaction_token" in values,
        path="/" + "/".join(filled),
        secrets=tuple(sorted(texts, key=len, reverse=True)),
    )


def _segments(template: str) -> list[str]:
    segments = template.split("/")
    if len(segments) < 2 or segments[0] or not all(segments[1:]) or {".", ".."} & set(segments):
        msg = f"path {template!r}: it must look like /channels/{{channel_id}}/messages, without the base URL"
        raise ValueError(msg)
    if "?" in template or "#" in template:
        msg = f"path {template!r}: the query belongs in params="
        raise ValueError(msg)
    if set("{}") & set(_PLACEHOLDER.sub("", template)):
        msg = f"path {template!r}: a placeholder is a name in braces, and nothing else may be"
        raise ValueError(msg)
    return segments[1:]


def _filled(template: str, segments: list[str], values: Mapping[str, object]) -> list[str]:
    names = set(_PLACEHOLDER.findall(template))
    for problem, which in (("missing", names - values.keys()), ("unknown", values.keys() - names)):
        if which:
            msg = f"path {template!r}: {problem} path parameter {', '.join(sorted(which))}"
            raise TypeError(msg)
    quoted = {name: _quoted(name, value) for name, value in values.items()}
    return [_PLACEHOLDER.sub(lambda match: quoted[match[1]], quote(segment, safe=_LITERAL)) for segment in segments]


def _quoted(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        msg = f"path parameter {name}: str or int, not {type(value).__name__}"
        raise TypeError(msg)
    text = str(value)
    if text in {"", ".", ".."}:  # each of them would change which resource the path names
        msg = f"path parameter {name}: {text!r} cannot be part of a path"
        raise ValueError(msg)
    return quote(text, safe="")


def _hidden_segments(segments: list[str]) -> set[int]:
    hidden = {i for i, s in enumerate(segments) if any("token" in name for name in _PLACEHOLDER.findall(s))}
    if segments[0] in _WITH_TOKEN and len(segments) > 2:
        hidden.add(2)
    return hidden


def _general(segments: list[str], index: int, *, is_secret: bool) -> str:
    """Return the segment with ids, tokens and codes replaced, so that requests with the same limits share it."""
    segment = segments[index]
    if is_secret:
        return "{token}"
    is_value = _ID.fullmatch(segment) or "{" in segment or segment == "@original"
    return "{id}" if is_value or (index > 0 and segments[index - 1] in _BEFORE_TEXT) else segment


def _age(method: str, general: str, filled: list[str], now: float) -> str:
    """Return the age class of the message, by which Discord limits its deletion and its edits."""
    steps = _AGE_STEPS.get((method, general), ())
    if not steps or not _ID.fullmatch(filled[-1]):
        return ""
    age = now - ((int(filled[-1]) >> 22) / 1000 + DISCORD_EPOCH)
    passed = [words for seconds, words in steps if age >= seconds]
    return f" {passed[-1]}" if passed else ""


def _major(filled: list[str], values: Mapping[str, object], hidden: set[int]) -> str:
    named = next((name for name in MAJOR_PARAMETERS if name in values), None)
    if named is not None:
        major = f"{named.removesuffix('_id')} {values[named]}"
    elif filled[0] in _TOP_LEVEL and len(filled) > 1:
        major = f"{_TOP_LEVEL[filled[0]]} {filled[1]}"
    else:
        return ""
    if filled[0] == "webhooks" and 2 in hidden:
        major += f" {hashlib.sha256(filled[2].encode()).hexdigest()[:12]}"  # the token is part of it, but is not shown
    return major
