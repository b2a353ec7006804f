"""Leaves faults out of a plan for as long as it still fails (delta debugging)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.simulation.plan import Plan


def shrink(plan: Plan, fails: Callable[[Plan], bool], *, tries: int = 200) -> Plan:
    """A plan with as few faults as possible that still ``fails``, after at most ``tries`` runs."""
    left = [tries]

    def still_fails(candidate: Plan) -> bool:
        left[0] -= 1
        return left[0] >= 0 and fails(candidate)

    plan = _cut_the_end(plan, still_fails)
    chunk = max(1, len(plan.faults) // 2)
    while left[0] > 0:
        before = len(plan.faults)
        plan = _drop_chunks(plan, chunk, still_fails)
        if chunk == 1 and len(plan.faults) == before:
            break
        chunk = max(1, min(chunk // 2, len(plan.faults) // 2))
    return plan


def _cut_the_end(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    """Remove half of the faults at a time, and the time that no fault needs."""
    low, high = 0, len(plan.faults)
    while low < high:
        middle = (low + high) // 2
        if fails(_first(plan, middle)):
            high = middle
        else:
            low = middle + 1
    shorter = _first(plan, high)
    return shorter if fails(shorter) else plan


def _first(plan: Plan, count: int) -> Plan:
    kept = plan.faults[:count]
    return replace(plan, faults=kept, seconds=kept[-1].at + 1.0 if kept else 1.0)


def _drop_chunks(plan: Plan, chunk: int, fails: Callable[[Plan], bool]) -> Plan:
    at = len(plan.faults) - chunk
    while at > -chunk:
        candidate = plan.without(set(range(max(0, at), at + chunk)))
        if len(candidate.faults) < len(plan.faults) and fails(candidate):
            plan = candidate
        at -= chunk
    return plan
