"""The core stays pure: its syntax trees are checked, so that no code path is left out."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import discorder.statemachine

FOLDER = Path(discorder.statemachine.__file__).parent
FILES = sorted(FOLDER.rglob("*.py"))

MAY_IMPORT = frozenset(
    {
        "__future__",
        "collections",
        "collections.abc",
        "dataclasses",
        "datetime",
        "enum",
        "itertools",
        "math",
        "types",
        "typing",
    }
)
OURS = ("transitions", "discorder.statemachine")
NEVER_CALLED = frozenset({"print", "open", "input", "eval", "exec", "compile", "__import__", "breakpoint"})
CLOCKS = frozenset({"now", "utcnow", "today"})
CALENDARS = frozenset({"datetime", "date"})
WAITING = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Global, ast.Nonlocal)


def impurities(source: str) -> list[str]:
    """Return everything in ``source`` that reaches out of the core."""
    return [finding for node in ast.walk(ast.parse(source)) for finding in _impure(node)]


def _impure(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (f"imports {alias.name}" for alias in node.names if not _allowed(alias.name))
    elif isinstance(node, ast.ImportFrom):
        if node.level or not _allowed(node.module or ""):
            yield f"imports from {node.module}"
        if any(alias.name in CALENDARS and alias.asname for alias in node.names):
            yield "hides a calendar behind another name"
    elif isinstance(node, WAITING):
        yield type(node).__name__
    elif isinstance(node, ast.Name) and node.id in NEVER_CALLED:
        yield f"uses {node.id}"
    elif isinstance(node, ast.Attribute) and node.attr in CLOCKS and _named(node.value) in CALENDARS:
        yield f"reads a clock: {node.attr}"


def _named(node: ast.expr) -> str | None:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None


def _allowed(module: str) -> bool:
    return module in MAY_IMPORT or any(module == ours or module.startswith(f"{ours}.") for ours in OURS)


def test_all_files_are_read() -> None:
    """The list would be empty if the folder had moved."""
    assert {"machine.py", "table.py", "triggers.py", "commands.py"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_core_reaches_nothing_outside(path: Path) -> None:
    """No I/O, no clock, no randomness, no logging, no waiting, and no import of our own but the core."""
    assert impurities(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import asyncio",
        "import time, enum",
        "from random import uniform",
        "import logging",
        "import socket",
        "from discorder.clock import Clock",
        "from discorder import wire",
        "from .. import clock",
        "async def wait(): ...",
        "def later():\n    import os",
        "print('here')",
        "with open('file') as file: pass",
        "from datetime import datetime\ndatetime.now()",
        "import datetime\ndatetime.date.today()",
        "from datetime import datetime as day",
        "import importlib",
    ],
)
def test_an_impurity_is_noticed(source: str) -> None:
    """The check finds impurities."""
    assert impurities(source) != []
