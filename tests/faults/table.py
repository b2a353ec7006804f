"""A pytest plugin: the figures of the fault cases, and the table that `make faults` prints.

A test notes its figures in `Case`; they are part of its report, also from a worker of pytest-xdist.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields

import pytest

from tests.faults.cases import CASES

PROPERTY = "fault case"
OPTION = "--fault-table"
_NAME = re.compile(r"test_(\d\d)_")


@dataclass(slots=True)
class Figures:
    """What one test measured; None = it is not about that.

    ``recovery``: seconds on the case's clock until the shard was Ready again, or until what the case asks for was true.
    ``identifies``: spent since the fault began. ``lost``, ``duplicates``: events, by (session, seq).
    """

    recovery: float | None = None
    identifies: int | None = None
    lost: int | None = None
    duplicates: int | None = None
    note: str = ""


class Case:
    """The case of the running test; `note` may be called several times, the largest figures stay."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.figures = Figures()

    def note(
        self,
        *,
        recovery: float | None = None,
        identifies: int | None = None,
        lost: int | None = None,
        duplicates: int | None = None,
        note: str = "",
    ) -> None:
        """Put figures into the table."""
        self.figures = merged([self.figures, Figures(recovery, identifies, lost, duplicates, note)])


@dataclass(slots=True)
class Row:
    """All tests of one case."""

    passed: int = 0
    failed: int = 0
    figures: list[Figures] = field(default_factory=list)


def merged(many: Iterable[Figures]) -> Figures:
    """Return the worst of each figure, and every note once."""
    figures = list(many)
    result = Figures(note="; ".join(dict.fromkeys(one.note for one in figures if one.note)))
    for name in (one.name for one in fields(Figures) if one.name != "note"):
        setattr(result, name, max((v for one in figures if (v := getattr(one, name)) is not None), default=None))
    return result


def case_number(test_name: str) -> int | None:
    """Return the number in a test's name, None where there is none."""
    match = _NAME.match(test_name)
    return None if match is None else int(match[1])


# ---------------------------------------------------------------- hooks


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, action="store_true", help="print the table of the fault cases and what they measured")


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Iterable[Case]:
    """Collect what a test of a fault case measures."""
    number = case_number(request.node.name)
    assert number in CASES, "a test of a fault case is named after its number: test_07_…"
    made = Case(number)
    yield made
    request.node.user_properties.append((PROPERTY, asdict(made.figures)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not terminalreporter.config.getoption(OPTION):
        return
    terminalreporter.section("fault cases")
    for line in lines(_rows(terminalreporter)):
        terminalreporter.write_line(line)


def _rows(reporter: pytest.TerminalReporter) -> dict[int, Row]:
    rows: dict[int, Row] = defaultdict(Row)
    for outcome in ("passed", "failed", "error"):
        for report in reporter.stats.get(outcome, ()):
            number = case_number(report.nodeid.rpartition("::")[2])
            if number is not None:
                rows[number].passed += outcome == "passed"
                rows[number].failed += outcome != "passed"
    for reports in reporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "teardown":
                number = case_number(report.nodeid.rpartition("::")[2])
                found = [value for name, value in report.user_properties if name == PROPERTY]
                if number is not None:
                    rows[number].figures += [Figures(**value) for value in found]
    return rows


# ---------------------------------------------------------------- the table

_HEAD = ("", "fault", "result", "recovery", "identifies", "lost", "duplicates", "measured besides")


def lines(rows: dict[int, Row]) -> list[str]:
    """The table as text, one case a line; what has no figure shows a dash."""
    table = [_HEAD, *(_cells(number, rows[number]) for number in sorted(rows))]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEAD) - 1)]
    return [_line(row, widths) for row in table]


def _cells(number: int, row: Row) -> tuple[str, ...]:
    figures = merged(row.figures)
    result = f"ok ({row.passed})" if not row.failed else f"FAILED ({row.failed} of {row.failed + row.passed})"
    recovery = "-" if figures.recovery is None else f"{figures.recovery:.2f} s"
    counts = ("-" if n is None else str(n) for n in (figures.identifies, figures.lost, figures.duplicates))
    return (f"{number:2}", CASES[number], result, recovery, *counts, figures.note)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
