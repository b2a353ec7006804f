"""Share the answer to a request for all members of a guild: Discord answers such a request once in about 30 s.

A bot that is started again, or a second bot, is answered from the chunks of the earlier request
(docs/protocol.md#request-guild-members).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

SHARED_SECONDS = 31.0  # Discord's 30, and some for the way
KEPT = 1_000  # requests


class AllMembers(NamedTuple):
    """What is asked for: all members of a guild, in a session of Discord's (``label``) of a shard."""

    shard: int
    label: str
    guild_id: str
    presences: bool


@dataclass(frozen=True, slots=True)
class Asker:
    """A session that joined. ``replayed``: sequences of the chunks that it got apart from its stream."""

    nonce: str | None
    replayed: frozenset[int]


@dataclass(slots=True)
class _Request:
    mark: str
    sent_at: float | None = None  # None while it waits for Discord's limits: it may yet be dropped
    chunks: list[int] = field(default_factory=list)  # sequences of those that have come
    askers: dict[str, Asker] = field(default_factory=dict)  # by tag


class SharedMemberRequests:
    """The requests that went to Discord, by what they ask for, and by their nonce there (``mark``)."""

    def __init__(self) -> None:
        self._by_question: dict[AllMembers, _Request] = {}
        self._by_mark: OrderedDict[str, _Request] = OrderedDict()

    def begin(self, question: AllMembers, mark: str) -> None:
        """Note a request that is to be sent to Discord. Others join it once it is sent."""
        request = self._by_question[question] = self._by_mark[mark] = _Request(mark)
        if len(self._by_mark) > KEPT:
            _, oldest = self._by_mark.popitem(last=False)
            for other in [one for one, kept in self._by_question.items() if kept is oldest and kept is not request]:
                del self._by_question[other]

    def join(self, question: AllMembers, tag: str, nonce: str | None, now: float) -> Sequence[int] | None:
        """Let the session ``tag`` take part in an earlier request; return the sequences of the chunks that it has missed.

        The others come through its stream (`asker`). None: Discord has to be asked.
        """
        request = self._by_question.get(question)
        if request is None or request.sent_at is None or request.mark.startswith(tag):
            return None
        if now - request.sent_at > SHARED_SECONDS:
            return None
        request.askers[tag] = Asker(nonce, frozenset(request.chunks))
        return list(request.chunks)

    def note_sent(self, mark: str, now: float) -> None:
        """Note that Discord has a request."""
        request = self._by_mark.get(mark)
        if request is not None:
            request.sent_at = now

    def note_chunk(self, mark: str, seq: int) -> None:
        """Note a chunk that has come; each stream that passes it does so."""
        request = self._by_mark.get(mark)
        if request is not None and seq not in request.chunks:
            request.chunks.append(seq)

    def note_refusal(self, mark: str) -> None:
        """Note that Discord does not answer a request: no further session joins it."""
        request = self._by_mark.get(mark)
        for question in [one for one, kept in self._by_question.items() if kept is request]:
            del self._by_question[question]

    def asker(self, mark: str, tag: str, seq: int) -> Asker | None:
        """Return the session ``tag`` if it joined the request and has not got the answer in ``seq``."""
        request = self._by_mark.get(mark)
        asker = None if request is None else request.askers.get(tag)
        return None if asker is None or seq in asker.replayed else asker
