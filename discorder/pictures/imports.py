"""Who imports whom in the package, read off its syntax trees: nothing of it is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import discorder

PACKAGE = discorder.__name__
NOT_PARTS = {"__init__", "__main__"}  # the two doors; behind them is what they import


@dataclass(frozen=True, slots=True)
class Part:
    """A module or sub-package right below the package. ``says``: the first sentence of its docstring."""

    name: str
    says: str
    is_package: bool
    imports: frozenset[str]


@cache
def read_parts(folder: Path | None = None) -> dict[str, Part]:
    """The parts of the package that lies in ``folder`` (default: this one), by name, in alphabetical order."""
    folder = folder or Path(next(iter(discorder.__path__)))
    found = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix == ".py" or _is_package(path)}
    names = frozenset(found) - NOT_PARTS
    return {name: _part(name, found[name], names) for name in sorted(names)}


def reduced(parts: Mapping[str, Part]) -> dict[str, frozenset[str]]:
    """The imports of each part without those that follow from others: a imports b and c, b imports c, so a-c is left out."""
    reach: dict[str, frozenset[str]] = {}

    def below(name: str) -> frozenset[str]:
        if name not in reach:
            reach[name] = parts[name].imports.union(*(below(other) for other in parts[name].imports))
        return reach[name]

    return {
        name: frozenset(
            other
            for other in part.imports
            if not any(other in below(between) for between in part.imports if between != other)
        )
        for name, part in parts.items()
    }


def _is_package(path: Path) -> bool:
    return (path / "__init__.py").is_file() and any(path.glob("*.py"))


def _part(name: str, path: Path, names: frozenset[str]) -> Part:
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    trees = [ast.parse(file.read_bytes()) for file in files]
    imports = {unit for tree in trees for unit in _imported_units(tree)} & names - {name}
    described = ast.parse((path if path.is_file() else path / "__init__.py").read_bytes())
    return Part(name, _first_sentence(ast.get_docstring(described) or ""), path.is_dir(), frozenset(imports))


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
