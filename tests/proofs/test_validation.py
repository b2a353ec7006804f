"""A trace is checked against the table and the environment: possible steps pass, an impossible one is named."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from discorder.proofs.traces import Trace, TraceStep
from discorder.proofs.validation import Broken, trace_checker
from discorder.statemachine import State
from discorder.statemachine.table import Name

START = "Disconnected start Connecting 1"
FAILED = (START, "Connecting connect_failed Unhealthy 1", "Unhealthy diagnosed Restarting 1")
READY = (
    START,
    "Connecting hello Identifying 1",
    "Identifying identify_slot Identifying 1",
    "Identifying ready Ready 1",
)
LOST = (*READY, "Ready closed Unhealthy 1", "Unhealthy diagnosed Restarting 1", "Restarting restart_due Connecting 2")
LINGERS = (
    *("Ready zombie Unhealthy 1", "Unhealthy diagnosed Restarting 1"),
    *("Restarting restart_due Restarting 1", "Restarting restart_due Connecting 2"),
)
RESUMED = (*LOST, "Connecting hello Resuming 2", "Resuming resumed Ready 2")


def trace(lines: Sequence[str]) -> Trace:
    """Return a trace with one step per line: source, trigger, target, generation."""
    steps = []
    for number, line in enumerate(lines, 1):
        source, trigger, target, generation = line.split()
        steps.append(TraceStep(State(source), Name(trigger), State(target), int(generation), f"line {number}"))
    return Trace("shard 0", tuple(steps))


def check(lines: Sequence[str]) -> Broken | None:
    return trace_checker().check(trace(lines))


@pytest.mark.parametrize(
    "lines",
    [
        RESUMED,
        (*RESUMED, "Ready stop Stopping 2", "Stopping stopped Exited 2"),
        (
            *READY[:3],
            "Identifying timeout Unhealthy 1",
            "Unhealthy ready Unhealthy 1",
            "Unhealthy diagnosed Restarting 1",
        ),
        (*LOST[:4], *LINGERS),
        ("Disconnected stop Stopping 0", "Stopping timeout Exited 0"),
    ],
    ids=["resumed", "stopped", "late READY", "rearmed", "never started"],
)
def test_what_can_happen_passes(lines: Sequence[str]) -> None:
    """These runs of the driver were observed."""
    assert check(lines) is None


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ((START, "Connecting ready Ready 1"), "the table has no row for ready in Connecting"),
        ((START, "Connecting hello Ready 1"), "the table leads from Connecting by hello elsewhere"),
        ((START, "Unhealthy diagnosed Restarting 1"), "it does not go on where the step before has led to"),
        (
            (*FAILED, "Restarting restart_due Connecting 1"),
            "the generation before was 1: it grows by one with open_socket",
        ),
        ((*READY, "Ready closed Unhealthy 2"), "the generation before was 1: it grows by one with open_socket"),
        (
            (
                *LOST,
                "Connecting hello Resuming 2",
                "Resuming invalid_session Unhealthy 2",
                "Unhealthy diagnosed Restarting 2",
                "Restarting restart_due Connecting 3",
                "Connecting hello Resuming 3",
            ),
            "the table has such a row, but after these steps nothing in the model can bring it about",
        ),
        (
            (*READY[:2], "Identifying ready Ready 1"),
            "the table has such a row, but after these steps nothing in the model can bring it about",
        ),
        (
            (*READY, "Ready reconnect Unhealthy 1", "Unhealthy diagnosed Exited 1"),
            "the table has such a row, but after these steps nothing in the model can bring it about",
        ),
    ],
    ids=[
        *("no row", "wrong target", "missing step", "generation kept", "generation grown"),
        *("resumed what was refused", "READY without IDENTIFY", "a planned end that exits"),
    ],
)
def test_the_first_impossible_step_is_named(lines: Sequence[str], why: str) -> None:
    """It is the last step of each trace. The reason says whether the table or the environment excludes it."""
    broken = check(lines)
    assert broken is not None
    assert broken.number == len(lines) - 1
    assert broken.why.startswith(why)


def test_a_broken_trace_tells_what_would_have_been_possible() -> None:
    """It has the steps before, the impossible step, the reason, and the possible steps."""
    broken = check((*READY, "Ready timeout Unhealthy 1"))
    assert broken is not None
    text = str(broken)
    assert text.startswith(
        "shard 0: step 5 of 5 is impossible (line 5)\n    Disconnected --start--> Connecting (generation 1)"
    )
    assert "  > Ready --timeout--> Unhealthy (generation 1)\n  the table has no row for timeout in Ready" in text
    assert "possible would have been:\n" in text
    assert "\n    Ready --closed--> Unhealthy" in text


def test_a_trace_may_begin_in_the_middle() -> None:
    """The ring holds the last 256 steps: the earlier ones are unknown, and the later ones are still checked."""
    assert check(RESUMED[5:]) is None
    broken = check((*RESUMED[5:], "Ready hello Ready 2"))
    assert broken is not None
    assert broken.number == 4
