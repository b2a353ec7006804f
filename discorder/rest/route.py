"""A request's path: filled in, quoted, and split into what the limiter needs (route, major parameter) and what people may see.

Must not: know limits, HTTP or the bot token.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from discorder.redaction import REDACTED

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
MAJOR_PARAMETERS = ("channel_id", "guild_id", "webhook_id")  # gateway-protocol.md §15

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SNOWFLAKE = re.compile(r"\d{15,20}")
_LITERAL = "{}%@:!$&'()*+,;=~"  # may stay as it is in the literal part of a path (RFC 3986 §3.3)
_WITH_TOKEN = ("webhooks", "interactions")  # /webhooks/{id}/{token}/…, /interactions/{id}/{token}/callback
_TOP_LEVEL = {"channels": "channel", "guilds": "guild", "webhooks": "webhook", "interactions": "interaction"}


@dataclass(frozen=True, slots=True)
class Route:
    """One request's address.

    ``key`` is the same for all requests that share limits up to the major parameter, ``shown`` is for messages and logs.
    ``exempt``: an interaction endpoint, outside the global limit (gateway-protocol.md §15). Only ``path`` and ``secrets`` hold
    the tokens of webhooks and interactions, and they are not in the repr.
    """

    method: str
    template: str
    major: str
    shown: str
    exempt: bool
    path: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    @property
    def key(self) -> tuple[str, str]:
        return self.method, self.template

    def redact(self, text: str) -> str:
        """``text`` without the webhook's or interaction's token."""
        for secret in self.secrets:
            text = text.replace(secret, REDACTED)
        return text


def make_route(method: str, template: str, values: Mapping[str, object]) -> Route:
    """Fill ``template`` (``/channels/{channel_id}/messages``) with ``values``, each quoted.

    Ids written straight into the path work too: the route is recognised all the same. Raises ValueError for a method or path
    that cannot be one, TypeError for path parameters that are missing, unknown, or neither str nor int.
    """
    if method not in METHODS:
        msg = f"method {method!r}: one of {', '.join(sorted(METHODS))} is allowed"
        raise ValueError(msg)
    segments = _segments(template)
    filled = _filled(template, segments, values)
    hidden = _hidden_segments(segments)
    texts = {str(values[name]) for name in values if "token" in name} | {filled[i] for i in hidden}
    return Route(
        method=method,
        template="/" + "/".join(_general(s, is_secret=i in hidden) for i, s in enumerate(segments)),
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


def _general(segment: str, *, is_secret: bool) -> str:
    if is_secret:
        return "{token}"
    return "{id}" if _SNOWFLAKE.fullmatch(segment) or _PLACEHOLDER.fullmatch(segment) else segment


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
