"""Define the result of a check: what was found, how bad it is, and the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """FAIL: a start would fail, or lose what the configuration asks for. WARN: worth a look."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. ``remedy`` is "" where nothing is to be done, or ``text`` contains it."""

    check: str
    status: Status
    text: str
    remedy: str = ""


def ok(check: str, text: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(check, Status.OK, text)


def warn(check: str, text: str, remedy: str = "") -> Finding:
    """Return a finding that does not prevent a start."""
    return Finding(check, Status.WARN, text, remedy)


def fail(check: str, text: str, remedy: str = "") -> Finding:
    """Return a finding that prevents a start, or makes it useless."""
    return Finding(check, Status.FAIL, text, remedy)


def not_checked(check: str, reason: str, remedy: str) -> Finding:
    """Return a warning that a check could not be made. ``reason`` is a sentence without its full stop."""
    return Finding(check, Status.WARN, f"not checked: {reason}", remedy)


def failed(check: str, error: Exception) -> Finding:
    """Return the failure that ``error`` describes; its text names the remedy behind the first semicolon."""
    text, _, remedy = str(error).partition("; ")
    return Finding(check, Status.FAIL, text, remedy)
