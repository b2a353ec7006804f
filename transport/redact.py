"""Remove secrets, and on request the texts of users, from the messages of a recording.

One secret always gets the same placeholder within a recording, so that the replay stays consistent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import partial
from urllib.parse import SplitResult, urlsplit

from discorder.transport.json_strings import Literal, literals, rewritten
from discorder.wire import Op

TOKEN = "<token>"  # noqa: S105 # the placeholder, not a token
GATEWAY_HOST = "gateway.invalid"  # placeholder for the host that GET /gateway/bot returned
RESUME_HOST = re.compile(r"^resume-\d+\.invalid$")

# Keys whose strings are credentials: interaction, webhook and voice tokens, OAuth2, a voice session.
_SECRET_KEYS = frozenset(
    {"token", "access_token", "refresh_token", "webhook_token", "client_secret", "secret_key", "secret"}
)
_SESSION_KEY = "session_id"
_RESUME_KEY = "resume_gateway_url"

# Kept when filler replaces the texts of users: Discord's own words, and values needed to follow the session. Both the key and the
# value must match, since a message may consist of digits.
_KEPT_KEYS = frozenset({"t", "os", "browser", "device", "desktop", "mobile", "web", "event_type", "locale"})
_ID_KEY = re.compile(r"(?:^|_)(?:ids?|roles|permissions|allow|deny|flags|new)$")
_TIME_KEY = re.compile(r"(?:timestamp|_at|_until|_time|since)$")
_ID = re.compile(r"[0-9]+")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.+Z-]+")
_PLACEHOLDER = re.compile(r"(?:Bot )?<(?:token|session-\d+|secret-\d+)>|wss://[a-z0-9-]+\.invalid/?")
_SHORTEST_PART = 8  # letters; a shorter value of a secret key (a test server's "1") is replaced only as a whole string
_PRESENCES = frozenset({"online", "idle", "dnd", "offline", "invisible"})


class Redaction:
    """Keep the placeholders of one recording.

    ``secrets``: secrets known in advance, such as the bot token. With ``filler``, filler with the same number of characters
    replaces every text that users wrote; ids, timestamps and numbers stay.
    """

    def __init__(self, secrets: Iterable[str] = (), *, filler: bool = False) -> None:
        self._known: dict[str, str] = {}
        self._placeholders: set[str] = set()
        self._counts: dict[str, int] = {}
        self._filler = filler
        for secret in secrets:
            bare = secret.removeprefix("Bot ").strip()
            if bare:
                self._remember(bare, TOKEN)

    def message(self, text: str) -> str:
        """Redact a gateway message. The rest of the text stays unchanged, character for character."""
        found = literals(text)
        if found is None:
            return _fill(text) if self._filler else self.plain(text)
        self._learn(text, found)
        words = "\n".join(literal.value for literal in found)
        present = [pair for pair in self._known.items() if pair[0] in words]  # few of the many secrets
        if not present and not self._filler:
            return text
        return rewritten(text, found, partial(self._clean, present))

    def _clean(self, present: Sequence[tuple[str, str]], literal: Literal) -> str:
        value = _replaced(present, literal.value)
        if self._filler and not literal.is_key and not _is_harmless(literal.key, value):
            return _fill(value)
        return value

    def plain(self, text: str) -> str:
        """Redact any other text, with the secrets known so far."""
        return _replaced(self._known.items(), text)

    def url(self, url: str) -> str:
        """Replace the host of a dialled URL by the placeholder of its resume host, or of the main gateway."""
        clean = self.plain(url)
        if clean != url:
            return clean
        parts = split_url(url)
        if parts is None:
            return f"wss://{GATEWAY_HOST}/"
        return f"wss://{GATEWAY_HOST}{parts.path or '/'}" + (f"?{parts.query}" if parts.query else "")

    def _learn(self, text: str, found: Sequence[Literal]) -> None:
        """Remember every secret in a message before any is replaced: a webhook's URL repeats its token."""
        values = [literal for literal in found if not literal.is_key]
        if any(literal.key == "token" for literal in values) and _opens_session(text):
            for literal in values:
                if literal.key == "token" and literal.value:
                    self._remember(literal.value.removeprefix("Bot "), TOKEN)
        for literal in values:
            key, value = literal.key, literal.value
            if not value or value in self._placeholders:
                continue
            if key == _RESUME_KEY:
                self._learn_host(value)
            elif key == _SESSION_KEY:
                self._note(value, "session", "<session-{}>")
            elif key in _SECRET_KEYS:
                self._note(value.removeprefix("Bot "), "secret", "<secret-{}>")

    def _learn_host(self, url: str) -> None:
        parts = split_url(url)
        if parts is not None and parts.netloc and not RESUME_HOST.match(parts.netloc):
            self._note(f"{parts.scheme}://{parts.netloc}", "resume", "wss://resume-{}.invalid")

    def _note(self, secret: str, kind: str, pattern: str) -> None:
        if secret and secret not in self._known:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._remember(secret, pattern.format(self._counts[kind]))

    def _remember(self, secret: str, placeholder: str) -> None:
        """Store a secret; the longest first, since one may be part of another."""
        self._placeholders.add(placeholder)
        self._known[secret] = placeholder
        self._known = dict(sorted(self._known.items(), key=lambda item: -len(item[0])))


def split_url(url: str) -> SplitResult | None:
    """Return the parts of ``url``, None if it is not a URL."""
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _opens_session(text: str) -> bool:
    """Return whether a message is an IDENTIFY or a RESUME, which contains the bot's ``token``."""
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(frame, dict) and frame.get("op") in (Op.IDENTIFY, Op.RESUME)


def _replaced(secrets: Iterable[tuple[str, str]], text: str) -> str:
    for secret, placeholder in secrets:
        if len(secret) >= _SHORTEST_PART or placeholder == TOKEN:
            text = text.replace(secret, placeholder)
        elif text == secret:
            text = placeholder
    return text


def _is_harmless(key: str, value: str) -> bool:
    if key in _KEPT_KEYS or value in _PRESENCES or _PLACEHOLDER.fullmatch(value):
        return True
    if _ID_KEY.search(key):
        return _ID.fullmatch(value) is not None
    return _TIME_KEY.search(key) is not None and _TIME.fullmatch(value) is not None


def _fill(text: str) -> str:
    return "x" * len(text)
