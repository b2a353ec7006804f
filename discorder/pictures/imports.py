"""Read the imports between the components of the package from its source, without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import discorder

PACKAGE = discorder.__name__
ENTRY_POINTS = {"__init__", "__main__"}  # they import components and are none themselves


@dataclass(frozen=True, slots=True)
class Component:
    """A module or sub-package directly in the package. ``summary``: the first sentence of its docstring."""

    name: str
    summary: str
    is_package: bool
    imports: frozenset[str]


@cache
def read_components() -> dict[str, Component]:
    """Return the components of the package by name, in alphabetical order."""
    folder = Path(next(iter(discorder.__path__)))
    found = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix == ".py" or _is_package(path)}
    names = frozenset(found) - ENTRY_POINTS
    return {name: _component(name, found[name], names) for name in sorted(names)}


def reduced(components: Mapping[str, Component]) -> dict[str, frozenset[str]]:
    """Return the imports of each component, without the implied ones: if a imports b and c, and b imports c, a-c is left out."""
    reach: dict[str, frozenset[str]] = {}

    def below(name: str) -> frozenset[str]:
        if name not in reach:
            reach[name] = components[name].imports.union(*(below(other) for other in components[name].imports))
        return reach[name]

    return {
        name: frozenset(
            other
            for other in component.imports
            if not any(other in below(between) for between in component.imports if between != other)
        )
        for name, component in components.items()
    }


def _is_package(path: Path) -> bool:
    return (path / "__init__.py").is_file() and any(path.glob("*.py"))


def _component(name: str, path: Path, names: frozenset[str]) -> Component:
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    trees = [ast.parse(file.read_bytes()) for file in files]
    imports = {unit for tree in trees for unit in _imported_units(tree)} & names - {name}
    described = ast.parse((path if path.is_file() else path / "__init__.py").read_bytes())
    return Component(name, _first_sentence(ast.get_docstring(described) or ""), path.is_dir(), frozenset(imports))


def _imported_units(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            package, _, rest = target.partition(".")
            if package == PACKAGE and rest:
                yield rest.partition(".")[0]


def _first_sentence(text: str) -> str:
    return " ".join(text.split()).partition(". ")[0].rstrip(".")
