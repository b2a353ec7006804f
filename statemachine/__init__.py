"""Define the life cycle of a gateway session as an explicit state machine.

A pure core: it takes triggers and returns commands. It never awaits, sleeps, reads a clock, draws a random number, logs or
uses a socket. The table (`table.py`) is the only definition of the life cycle; the diagrams, the checks and the running
machine are generated from it. The package imports only the standard library and `transitions`.

Begin with `table`, in the terms of `terms`; `check` proves that it is complete. `machine` runs it, with the machine of
`life_cycle`: it takes `triggers`, returns `commands`, and keeps the `session`, the `cause` of an end (`close_codes`) and the
`backoff`. The driver also uses `heartbeat`, `health` and `send_window`.
"""

from discorder.statemachine.cause import CauseKind, Ended, EndKind
from discorder.statemachine.machine import Facts, ShardMachine
from discorder.statemachine.session import Session
from discorder.statemachine.table import RUNS, State
from discorder.statemachine.terms import Task

__all__ = [
    "RUNS",
    "CauseKind",
    "EndKind",
    "Ended",
    "Facts",
    "Session",
    "ShardMachine",
    "State",
    "Task",
]
