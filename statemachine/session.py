"""Define a gateway session, and the rule that decides when refused RESUMEs end it."""

from __future__ import annotations

from dataclasses import dataclass, replace

REFUSALS_TO_GIVE_UP = 3
REFUSING_SECONDS_TO_GIVE_UP = 180.0


@dataclass(frozen=True, slots=True)
class Session:
    """Hold what a RESUME needs besides the sequence. ``resume_url`` is READY's ``resume_gateway_url`` ("" = the main host).

    ``ordinal`` counts the sessions with this id, from 0; it is part of the label (`wire.session_label`).

    The sequence is stored elsewhere: it changes with every event, and events do not pass through the machine.
    """

    session_id: str
    resume_url: str
    ordinal: int = 0

    def __post_init__(self) -> None:
        if not self.session_id:
            msg = "a session needs a session id"
            raise ValueError(msg)

    def __repr__(self) -> str:
        return "Session(<id>, <resume url>)"  # the id is a credential: with the token it can take over the session


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Count the refused RESUMEs in a row, with the time of the first (monotonic seconds).

    A refusal is a connection on which RESUME was sent and which ended without RESUMED and without a replayed dispatch. The
    session is dropped after three refusals *and* 180 s since the first, so that neither a short outage nor one bad host
    costs a session.
    """

    refusals: int = 0
    first_at: float = 0.0

    def refused(self, at: float) -> Suspicion:
        """Return the count after one more refusal at ``at`` (monotonic seconds)."""
        if self.refusals == 0:
            return Suspicion(1, at)
        return replace(self, refusals=self.refusals + 1)

    def condemns(self, at: float) -> bool:
        """Return whether the session must be dropped instead of resumed."""
        return self.refusals >= REFUSALS_TO_GIVE_UP and at - self.first_at >= REFUSING_SECONDS_TO_GIVE_UP
