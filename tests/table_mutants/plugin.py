"""A plugin for pytest that puts a mutant in place of the table, before any test is collected. For `make mutants` only."""

from __future__ import annotations

import os
import sys

from discorder.statemachine import life_cycle
from discorder.statemachine.table import idle_rows
from tests.table_mutants.mutants import MUTANT_VARIABLE, mutants


def pytest_configure() -> None:
    """Whoever has the table has the mutant now, and the machine is built from it anew."""
    mutant = list(mutants())[int(os.environ[MUTANT_VARIABLE])]
    _replace("ROWS", tuple(mutant.table.rows))
    _replace("IDLE_ROWS", idle_rows(mutant.table.rows))
    _replace("DEADLINES", mutant.table.deadlines)
    _replace("STABLE_AFTER", mutant.table.stable_after)
    _replace("ENTRY", mutant.table.entry)
    _replace("EXIT", mutant.table.exit)
    machine = life_cycle.build_machine(mutant.table.rows, mutant.table.entry, mutant.table.exit)
    _replace("LIFE_CYCLE", machine)


def _replace(name: str, value: object) -> None:
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("discorder.statemachine") and hasattr(module, name):
            setattr(module, name, value)
