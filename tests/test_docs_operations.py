"""docs/operations.md names what there is: every exit code, every state of a shard, and log lines that the program writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from discorder.exits import EXIT_CODES, HOPELESS
from discorder.statemachine import State

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
LINE = re.compile(r"`((?:… )?[^`]+)`")


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def test_every_exit_code_is_explained() -> None:
    listed = {int(code): remedy for code, _, remedy in rows("Exit codes")}
    assert listed.keys() == EXIT_CODES.keys()
    assert {code for code, remedy in listed.items() if "a restart does not help" in remedy} == HOPELESS


def test_every_state_is_explained() -> None:
    assert [state.strip("`") for state, *_ in rows("States of a shard")] == [str(state) for state in State]


def test_the_walk_of_a_supervisor_names_exit_codes_that_exist() -> None:
    walk = {int(code) for _, code, *_ in rows("What a supervisor sees") for code in re.findall(r"\b\d{2}\b", code)}
    assert walk <= EXIT_CODES.keys()
    assert {73, 74, 77} <= walk


SOURCES = " ".join(
    re.sub(r"\{[^}]*\}|%[sdg]", "…", file.read_text(encoding="utf-8"))
    for folder in ("discorder", "publishers", "statemachine", "transport")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if "payloads" not in file.parts
)
LOG_LINES = [line for cell, *_ in rows("What the log says, and what to do") for line in LINE.findall(cell)]


@pytest.mark.parametrize("line", [line for line in LOG_LINES if line[0].isupper() or line[0] == "…"])
def test_the_program_writes_the_lines_that_are_explained(line: str) -> None:
    """Each part of a line between two values stands in the source."""
    for part in line.split("…"):
        assert part.strip(" ,:") in SOURCES, part
