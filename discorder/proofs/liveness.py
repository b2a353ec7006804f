"""Define the liveness properties: properties of whole runs, under weak fairness. spin checks them (`promela.py`, `spin.py`).

Weak fairness: an actor that can act without interruption acts eventually. This holds for the machine, the doctor, the timers,
the gate and the publishers, and for the gateway on a connection that was opened on a good network. It does not hold for faults
and the operator.
"""

from __future__ import annotations

from dataclasses import dataclass

from discorder.proofs.model_dsl import YES, Condition, all_of
from discorder.proofs.properties import STOPPED, WRONG, Property
from discorder.proofs.variables import CAUSE, FAIL_ON_ERROR, PAUSED, WEATHER, in_state
from discorder.statemachine.table import DEADLINES, LIVE, State


@dataclass(frozen=True, slots=True)
class Liveness:
    """Describe one property. ``formula`` is LTL over the names of ``atoms``. ``weather``: the network may become good."""

    name: str
    says: str
    formula: str
    atoms: tuple[tuple[str, Condition], ...]
    weather: bool = False

    @property
    def safety(self) -> bool:
        """Return whether a finite run can violate the property. Such a check needs no fairness."""
        return "<>" not in self.formula and " U " not in self.formula


_EXITED = ("exited", in_state(State.EXITED))
_PAUSED = ("paused", PAUSED.is_(YES))


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
    *(_left(state) for state in State if state in DEADLINES),
    Liveness(
        "dials",
        "Disconnected, Unhealthy and Restarting end by a dial or by Exited, unless the shard is paused",
        "[] (!paused -> <> (live || paused || exited))",
        (_PAUSED, ("live", in_state(*LIVE)), _EXITED),
    ),
    Liveness(
        "recovery",
        "once the network stays good and the operator only unpauses, Ready is reached, or Exited, unless the shard is paused",
        "[] (good -> <> (ready || exited || paused))",
        (("good", WEATHER.is_("good")), ("ready", in_state(State.READY)), _EXITED, _PAUSED),
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
