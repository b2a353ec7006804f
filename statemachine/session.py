"""A gateway session as a value, and the rule that tells a refused session from an unlucky connection."""

from __future__ import annotations

from dataclasses import dataclass, replace

REFUSALS_TO_GIVE_UP = 3
REFUSING_SECONDS_TO_GIVE_UP = 180.0


@dataclass(frozen=True, slots=True)
class Session:
    """What a RESUME needs besides the sequence. ``resume_url`` is READY's ``resume_gateway_url`` ("" = the main host).

    The sequence is not here: it changes with every event, and events do not pass through the machine.
    """

    session_id: str
    resume_url: str

    def __post_init__(self) -> None:
        if not self.session_id:
            msg = "a session needs a session id"
            raise ValueError(msg)

    def __repr__(self) -> str:
        return "Session(<id>, <resume url>)"  # the id is a credential: with the token it takes the session over


@dataclass(frozen=True, slots=True)
class Suspicion:
    """How often RESUME went unanswered, and since when (monotonic seconds).

    A refusal is a connection on which RESUME was sent and which ended without RESUMED and without one replayed dispatch. The
    session is given up after three refusals *and* 180 s since the first, so that neither a short outage nor one bad host
    costs a session.
    """

    refusals: int = 0
    first_at: float = 0.0

    def refused(self, at: float) -> Suspicion:
        """One more refusal at monotonic second ``at``."""
        if self.refusals == 0:
            return Suspicion(1, at)
        return replace(self, refusals=self.refusals + 1)

    def condemns(self, at: float) -> bool:
        """True when the session is not worth another RESUME."""
        return self.refusals >= REFUSALS_TO_GIVE_UP and at - self.first_at >= REFUSING_SECONDS_TO_GIVE_UP
