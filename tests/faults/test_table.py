"""The table itself: no case without a test, and a case that failed cannot look like one that passed."""

from __future__ import annotations

import re
from pathlib import Path

from tests.faults.cases import CASES
from tests.faults.table import Case, Figures, Row, case_number, lines, merged

DOCS = Path(__file__).parents[2] / "docs" / "faults.md"


def test_the_cases_are_those_of_the_documentation() -> None:
    """The same sentences under the same numbers, from 1 on without a hole, in order."""
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", DOCS.read_text(), re.MULTILINE)
    assert [(int(number), sentence) for number, sentence in rows] == list(CASES.items())
    assert list(CASES) == list(range(1, len(CASES) + 1))


def test_every_case_has_a_test() -> None:
    """By its number in the name of a test in this folder."""
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    tested = {number for line in text.splitlines() if "def test_" in line and (number := _number(line)) is not None}
    assert sorted(set(CASES) - tested) == []
    assert tested <= set(CASES)


def _number(line: str) -> int | None:
    return case_number(line.partition("def ")[2])


def test_the_worst_figures_of_a_case_are_shown() -> None:
    """Over all of its tests, and over all notes of one test."""
    case = Case(1)
    case.note(recovery=3.0, lost=0, note="a")
    case.note(recovery=1.5, identifies=1)
    assert case.figures == Figures(3.0, 1, 0, None, "a")
    assert merged([case.figures, Figures(lost=2, note="a"), Figures(note="b")]) == Figures(3.0, 1, 2, None, "a; b")


def test_a_failure_shows_and_what_was_not_measured_shows_a_dash() -> None:
    """One failed test of many is enough."""
    rows = {7: Row(passed=5, failed=1), 4: Row(passed=2, figures=[Figures(0.75, 0, 0, 0, "floor kept")])}
    _, four, seven = lines(rows)
    assert " ".join(four.split()) == f"4 {CASES[4]} ok (2) 0.75 s 0 0 0 floor kept"
    assert " ".join(seven.split()) == f"7 {CASES[7]} FAILED (1 of 6) - - - -"
