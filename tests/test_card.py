"""Each dependency is declared, used, and used only in the places that the table CARD lists."""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "discorder"

# import name: (distribution, the rooms that import it); a room is a sub-package or a module at the top.
CARD = {
    "transitions": ("transitions", {"statemachine"}),
    "aiohttp": ("aiohttp", {"facade", "group", "transport", "rest", "simulator", "http"}),
    "zmq": ("pyzmq", {"bot", "curve", "publishers"}),
    "tenacity": ("tenacity", {"rest", "publishers"}),
    "tomli": ("tomli", {"config"}),
    "loguru": ("loguru", {"logs"}),
    "msgspec": (
        "msgspec",
        {
            *("wire", "records", "config", "publishers", "rest", "sessions", "shard", "outbound", "bot", "tracking"),
            *("facade", "group", "guilds", "replaying", "simulator", "cli", "http", "status", "nats_client"),
        },
    ),
    "typer": ("typer", {"cli"}),
    "rich": ("rich", {"cli"}),
    "prometheus_client": ("prometheus-client", {"metrics"}),
    "platformdirs": ("platformdirs", {"sessions"}),
}
# apart from dev
EXTRAS = {
    "diagrams": {"graphviz-pure"},
    "nats": {"nats-py"},
    "redis": {"redis"},
    "speed": {"zlib-ng"},
    "zstd": {"backports.zstd"},
}


@functools.cache
def importers() -> dict[str, set[str]]:
    """Return, for each imported top-level package, the sub-packages and modules of the project that import it."""
    found: dict[str, set[str]] = {}
    for path in [
        *PACKAGE.rglob("*.py"),
        *(f for link in PACKAGE.iterdir() if link.is_symlink() for f in link.rglob("*.py")),
    ]:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                modules = [node.module]
            for module in modules:
                found.setdefault(module.split(".")[0], set()).add(
                    path.relative_to(PACKAGE).parts[0].removesuffix(".py")
                )
    return found


@pytest.mark.parametrize("name", CARD)
def test_a_package_is_used_only_where_the_card_says(name: str) -> None:
    assert importers()[name] == CARD[name][1]


def test_the_library_of_a_broker_is_used_only_by_its_publisher_and_its_reader() -> None:
    """Both make their NATS client with `nats_client`."""
    assert importers()["nats"] == {"bot", "publishers", "nats_client"}
    assert importers()["redis"] == {"bot", "publishers"}


def test_the_declared_dependencies_are_those_of_the_card() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert _names(project["dependencies"]) == {distribution for distribution, _ in CARD.values()}
    extras = {name: _names(wanted) for name, wanted in project["optional-dependencies"].items() if name != "dev"}
    assert extras == EXTRAS


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=\[ ;]", requirement)[0] for requirement in requirements}
