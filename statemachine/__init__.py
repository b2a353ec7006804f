"""The life cycle of a gateway session as an explicit state machine.

Pure: takes triggers, returns commands. It never awaits, sleeps, reads a clock, draws a random number, logs or touches a
socket, and imports nothing but the standard library and `transitions`. The table (`table.py`) is the only place where the
life cycle is written; diagrams, checks and the running machine are read off it.
"""

from discorder.statemachine.cause import Cause, CauseKind
from discorder.statemachine.life_cycle import TableError
from discorder.statemachine.machine import Facts, ShardMachine
from discorder.statemachine.session import Session
from discorder.statemachine.table import RUNS, State
from discorder.statemachine.terms import Task

__all__ = ["RUNS", "Cause", "CauseKind", "Facts", "Session", "ShardMachine", "State", "TableError", "Task"]
