"""What is to happen some day: properties of whole runs, under weak fairness. Checked by spin (`promela.py`, `spin.py`).

Fair means: whoever of the machine, the doctor, the timers, the gate and the publishers can act without end, does so one day; so
does the gateway on a connection that was opened in good weather. Faults and the operator owe nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from discorder.proofs.facts import CAUSE, FAIL_ON_ERROR, WEATHER, in_state
from discorder.proofs.language import YES, Condition, all_of
from discorder.proofs.properties import STOPPED, WRONG, Property
from discorder.statemachine.table import DEADLINES, State


@dataclass(frozen=True, slots=True)
class Liveness:
    """``formula`` is LTL over the names of ``atoms``. ``weather``: the network may become good in this check."""

    name: str
    says: str
    formula: str
    atoms: tuple[tuple[str, Condition], ...]
    weather: bool = False

    @property
    def safety(self) -> bool:
        """No fairness is needed: a violation shows in finitely many steps."""
        return "<>" not in self.formula and " U " not in self.formula


_EXITED = ("exited", in_state(State.EXITED))
_PASSING = tuple(
    state for state in State if state in DEADLINES or state is State.RESTARTING
)  # its back-off is its deadline


def _left(state: State) -> Liveness:
    return Liveness(
        f"{state.lower()}_ends",
        f"{state} does not last for ever, whatever the network does",
        "[] (inside -> <> !inside)",
        (("inside", in_state(state)),),
    )


LIVENESS: tuple[Liveness, ...] = (
    Liveness(
        "one_socket",
        "never two sockets",
        "[] !two_sockets",
        (("two_sockets", WRONG.is_(Property.ONE_SOCKET.name)),),
    ),
    *(_left(state) for state in _PASSING),
    Liveness(
        "recovery",
        "once the network stays good, Ready is reached, or Exited",
        "[] (good -> <> (ready || exited))",
        (("good", WEATHER.is_("good")), ("ready", in_state(State.READY)), _EXITED),
        weather=True,
    ),
    Liveness(
        "fail_on_error",
        "under fail_on_error a failure is followed by Exited, and by no Restarting before",
        "[] (failed -> (!restarting U exited))",
        (
            ("failed", all_of(FAIL_ON_ERROR.is_(YES), CAUSE.is_("failure"), in_state(State.UNHEALTHY))),
            ("restarting", in_state(State.RESTARTING)),
            _EXITED,
        ),
    ),
    Liveness(
        "stop_exits",
        "stop always reaches Exited, and nothing reconnects",
        "[] (stopped -> ((!connecting U exited) && [] !connecting))",
        (("stopped", STOPPED.is_(YES)), ("connecting", in_state(State.CONNECTING)), _EXITED),
    ),
)
