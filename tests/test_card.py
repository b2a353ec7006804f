"""The dependency table of the design holds: each package is declared, used, and used only where it belongs."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "discorder"

# import name: (distribution, the rooms that import it); a room is a sub-package or a module at the top.
CARD = {
    "transitions": ("transitions", {"statemachine"}),
    "aiohttp": ("aiohttp", {"transport", "rest", "simulator"}),
    "zmq": ("pyzmq", {"bot", "curve", "publishers"}),
    "tenacity": ("tenacity", {"rest", "publishers"}),
    "tomli": ("tomli", {"config"}),
    "loguru": ("loguru", {"logs"}),
    "msgspec": (
        "msgspec",
        {
            *("wire", "records", "config", "publishers", "rest", "sessions", "shard", "outbound", "bot"),
            *("replaying", "simulator", "cli"),
        },
    ),
    "typer": ("typer", {"cli"}),
    "rich": ("rich", {"cli"}),
    "platformdirs": ("platformdirs", {"sessions"}),
}
RUN_AS_A_COMMAND = {"graphviz-pure"}  # its wheel holds no Python module


def rooms_that_import(name: str) -> set[str]:
    rooms = set()
    for path in [
        *PACKAGE.rglob("*.py"),
        *(f for link in PACKAGE.iterdir() if link.is_symlink() for f in link.rglob("*.py")),
    ]:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                modules = [node.module]
            if any(module.split(".")[0] == name for module in modules):
                rooms.add(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))
    return rooms


@pytest.mark.parametrize("name", CARD)
def test_a_package_is_used_where_the_design_says(name: str) -> None:
    assert rooms_that_import(name) == CARD[name][1]


def test_the_declared_dependencies_are_those_of_the_card() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=\[ ;]", requirement)[0] for requirement in project["dependencies"]}
    assert declared == {distribution for distribution, _ in CARD.values()} | RUN_AS_A_COMMAND
