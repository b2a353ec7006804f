"""What a recording must not contain, taken out of a message: secrets always, people's words on demand.

A secret becomes a placeholder, the same one wherever it occurs in one recording, so that a replay still fits together. This
file knows which fields of Discord's payloads are secret; it does no I/O.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from discorder.wire import Op

TOKEN = "<token>"  # noqa: S105 # the placeholder, not a token
GATEWAY_HOST = "gateway.invalid"  # stands for the host that GET /gateway/bot named
RESUME_HOST = re.compile(r"^resume-\d+\.invalid$")

# Keys whose strings let their reader act as somebody: interaction, webhook and voice tokens, OAuth2, a voice session.
_SECRET_KEYS = frozenset(
    {"token", "access_token", "refresh_token", "webhook_token", "client_secret", "secret_key", "secret"}
)
_SESSION_KEY = "session_id"
_RESUME_KEY = "resume_gateway_url"

# What stays when people's words are replaced: it is Discord's vocabulary, or a reader needs it to follow the session. A value
# alone proves nothing (a message may consist of digits), so key and value must fit together.
_KEPT_KEYS = frozenset({"t", "os", "browser", "device", "desktop", "mobile", "web", "event_type", "locale"})
_ID_KEY = re.compile(r"(?:^|_)(?:ids?|roles|permissions|allow|deny|flags|new)$")
_TIME_KEY = re.compile(r"(?:timestamp|_at|_until|_time|since)$")
_ID = re.compile(r"[0-9]+")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.+Z-]+")
_PLACEHOLDER = re.compile(r"(?:Bot )?<(?:token|session-\d+|secret-\d+)>|wss://[a-z0-9-]+\.invalid/?")
_PRESENCES = frozenset({"online", "idle", "dnd", "offline", "invisible"})


class Redaction:
    """One recording's memory of placeholders.

    ``secrets`` are what the caller knows to be secret: the bot token. With ``filler`` every text that people wrote becomes
    filler of the same number of characters; ids, timestamps and numbers stay.
    """

    def __init__(self, secrets: Iterable[str] = (), *, filler: bool = False) -> None:
        self._known: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._filler = filler
        for secret in secrets:
            bare = secret.removeprefix("Bot ").strip()
            if bare:
                self._known[bare] = TOKEN

    def message(self, text: str) -> str:
        """A gateway message. One in which nothing is secret comes back as it was, character for character."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return _fill(text) if self._filler else self.plain(text)
        self._learn(document)
        words = "\n".join(value for _, value in _strings(document))
        present = [
            pair for pair in self._known.items() if pair[0] in words
        ]  # few of the many that a long recording knows
        clean = _rewritten(document, partial(_replaced, present)) if present else document
        if self._filler:
            clean = _filled(clean)
        return text if clean == document else json.dumps(clean, separators=(",", ":"), ensure_ascii=False)

    def plain(self, text: str) -> str:
        """Any other text, with the secrets known so far replaced."""
        return _replaced(self._known.items(), text)

    def url(self, url: str) -> str:
        """A dialled URL: its host is a known resume host's placeholder or the main gateway's."""
        clean = self.plain(url)
        if clean != url:
            return clean
        parts = urlsplit(url)
        return f"wss://{GATEWAY_HOST}{parts.path or '/'}" + (f"?{parts.query}" if parts.query else "")

    def _learn(self, document: object) -> None:
        """Note every secret in a message, before any of it is replaced: a webhook's URL repeats its token."""
        if isinstance(document, dict) and document.get("op") in (Op.IDENTIFY, Op.RESUME):
            data = document.get("d")
            token = data.get("token") if isinstance(data, dict) else None
            if isinstance(token, str) and token:
                self._remember(token.removeprefix("Bot "), TOKEN)
        for key, value in _strings(document):
            if not value or value in self._known.values():
                continue
            if key == _RESUME_KEY:
                self._learn_host(value)
            elif key == _SESSION_KEY:
                self._note(value, "session", "<session-{}>")
            elif key in _SECRET_KEYS:
                self._note(value.removeprefix("Bot "), "secret", "<secret-{}>")

    def _learn_host(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.netloc and not RESUME_HOST.match(parts.netloc):
            self._note(f"{parts.scheme}://{parts.netloc}", "resume", "wss://resume-{}.invalid")

    def _note(self, secret: str, kind: str, pattern: str) -> None:
        if secret and secret not in self._known:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._remember(secret, pattern.format(self._counts[kind]))

    def _remember(self, secret: str, placeholder: str) -> None:
        """Keep a secret; the longest first, since one may be part of another."""
        self._known[secret] = placeholder
        self._known = dict(sorted(self._known.items(), key=lambda item: -len(item[0])))


def _replaced(secrets: Iterable[tuple[str, str]], text: str) -> str:
    for secret, placeholder in secrets:
        text = text.replace(secret, placeholder)
    return text


def _strings(value: object, key: str = "") -> Iterable[tuple[str, str]]:
    """Each string of a document with the key it stands under."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, key)


def _rewritten(value: Any, change: Callable[[str], str]) -> Any:
    """The document with each string (not the keys) run through ``change``."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {name: _rewritten(inner, change) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rewritten(inner, change) for inner in value]
    return value


def _filled(value: Any, key: str = "") -> Any:
    """The document with filler for everything that may be somebody's words. What is not known to be harmless is filled."""
    if isinstance(value, str):
        return value if _is_harmless(key, value) else _fill(value)
    if isinstance(value, dict):
        return {name: _filled(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, key) for inner in value]
    return value


def _is_harmless(key: str, value: str) -> bool:
    if key in _KEPT_KEYS or value in _PRESENCES or _PLACEHOLDER.fullmatch(value):
        return True
    if _ID_KEY.search(key):
        return _ID.fullmatch(value) is not None
    return _TIME_KEY.search(key) is not None and _TIME.fullmatch(value) is not None


def _fill(text: str) -> str:
    return "x" * len(text)
