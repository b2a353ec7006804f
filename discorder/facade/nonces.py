"""Mark the requests of each bot by their nonce, so that an answer reaches the session that asked and no other."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec

from discorder.facade.member_requests import SharedMemberRequests
from discorder.outbound.checks import NONCE_BYTES

CHUNK = "GUILD_MEMBERS_CHUNK"
ANSWERS = frozenset({CHUNK, "RATE_LIMITED"})
KEPT = 10_000  # nonces that are too long to be sent behind a tag, and requests without one

_NONCE = re.compile(rb'"nonce"\s*:\s*("(?:[^"\\]|\\.)*")')
_WITHOUT = re.compile(rb',\s*"nonce"\s*:\s*"(?:[^"\\]|\\.)*"|"nonce"\s*:\s*"(?:[^"\\]|\\.)*"\s*,?')


class Nonces:
    """The nonces of all sessions. A tag is followed by ``|`` and the bot's nonce, or by ``~`` and a number in the table."""

    def __init__(self) -> None:
        self.members = SharedMemberRequests()
        self._replaced: OrderedDict[str, str | None] = OrderedDict()
        self._number = 0

    def mark(self, tag: str, d: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``d`` of op 8 with a nonce that names the session ``tag``."""
        nonce = d.get("nonce")
        marked = f"{tag}|{nonce}"
        if not isinstance(nonce, str) or len(marked.encode()) > NONCE_BYTES:
            self._number += 1
            marked = f"{tag}~{self._number:x}"
            self._replaced[marked] = nonce if isinstance(nonce, str) else None
            if len(self._replaced) > KEPT:
                self._replaced.popitem(last=False)
        return {**d, "nonce": marked}

    def restore(self, tag: str, kind: str, data: bytes, seq: int) -> bytes | None:
        """Return the answer ``seq`` with the bot's own nonce; None if it is not for the session ``tag``."""
        found = _NONCE.search(data)
        if found is None:
            return None if kind == CHUNK else data
        marked: str = msgspec.json.decode(found[1])
        if kind == CHUNK:
            self.members.note_chunk(marked, seq)
        else:
            self.members.note_refusal(marked)
        if marked[: len(tag)] != tag:
            asker = self.members.asker(marked, tag, seq)
            return None if asker is None else with_nonce(data, asker.nonce)
        kind_of_mark, rest = marked[len(tag) : len(tag) + 1], marked[len(tag) + 1 :]
        if kind_of_mark == "|":
            nonce: str | None = rest
        elif kind_of_mark == "~" and marked in self._replaced:
            nonce = self._replaced[marked]
        else:  # asked before a restart of the façade
            return None
        return with_nonce(data, nonce)


def with_nonce(data: bytes, nonce: str | None) -> bytes:
    """Return an answer with another nonce, or without one."""
    found = _NONCE.search(data)
    if found is None or nonce is None:
        return _WITHOUT.sub(b"", data, count=1)
    start, end = found.span(1)
    return data[:start] + msgspec.json.encode(nonce) + data[end:]
