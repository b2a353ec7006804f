"""Keeps bot tokens out of text: what is shaped like one, and what is known to be one.

A leaf: no logging, no configuration. Whoever writes text that a token might have strayed into asks `Redactor` first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

REDACTED = "<token>"  # the seed's word; BotClient prints the same

# base64 of the bot's id (ASCII digits, so its first letter is M, N or O) . issue time . signature
_TOKEN_SHAPE = re.compile(r"[MNO][\w-]{22,30}\.[\w-]{6,7}\.[\w-]{25,}", re.ASCII)


class Redactor:
    """Replaces the secrets it was given, in every notation they may appear in, and whatever looks like a bot token."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        notations = {notation for secret in secrets for notation in _notations(secret)}
        longest_first = sorted(notations, key=len, reverse=True)  # one secret may be part of another
        self._known = re.compile("|".join(map(re.escape, longest_first))) if notations else None

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        return _TOKEN_SHAPE.sub(REDACTED, text)


def _notations(secret: str) -> set[str]:
    """The secret as it stands, and as JSON, a URL and ``repr`` (of it and of its bytes) write it; none if it is empty."""
    if not secret.strip():
        return set()
    return {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], repr(secret.encode())[2:-1], quote(secret, safe="")}
