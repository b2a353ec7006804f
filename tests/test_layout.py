"""The folders, the links, the packaging tables and the import contract agree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.simulation.sabotage import MUTATIONS
from tools.mutate_code import TARGETS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
GUIDED = (
    *(
        f"discorder/{name}"
        for name in ("cli", "cli/doctor", "facade", "group", "http", "pictures", "plane", "proofs", "rest")
    ),
    *(f"discorder/{name}" for name in ("sessions", "shard", "simulator", "status", "tracking")),
    *("publishers/zeromq", "statemachine", "transport"),
)
AT_THE_ROOT = ("etc", "publishers", "statemachine", "transport")


def folders_with_modules() -> set[str]:
    """Return every importable folder below discorder/ as a package name; links are followed."""
    package = ROOT / "discorder"
    folders = {package}
    for start in (package, *(package / name for name in AT_THE_ROOT)):
        folders |= {path.parent for path in start.rglob("*.py")}
    return {".".join(folder.relative_to(ROOT).parts) for folder in folders}


def test_each_root_folder_is_linked_into_the_package() -> None:
    for name in AT_THE_ROOT:
        link = ROOT / "discorder" / name
        assert link.is_symlink(), f"discorder/{name} must be a link, for editors and type checkers"
        assert link.readlink() == Path("..") / name


def test_nothing_else_in_the_package_is_a_link() -> None:
    links = {path.name for path in (ROOT / "discorder").rglob("*") if path.is_symlink()}
    assert links == set(AT_THE_ROOT)


def test_package_dir_maps_exactly_the_root_folders() -> None:
    mapping = dict(SETUPTOOLS["package-dir"])
    assert mapping.pop("discorder") == "discorder"
    assert mapping == {f"discorder.{name}": name for name in AT_THE_ROOT}


def test_every_folder_with_modules_is_packaged() -> None:
    data_only = {"discorder.etc"}
    assert set(SETUPTOOLS["packages"]) == folders_with_modules() | data_only


def test_package_data_names_files_that_exist() -> None:
    for package, patterns in SETUPTOOLS["package-data"].items():
        folder = ROOT / Path(*package.split("."))
        for pattern in patterns:
            assert list(folder.glob(pattern)), f"{package}: no file matches {pattern}"


@pytest.mark.parametrize("package", GUIDED)
def test_the_docstring_of_a_large_package_guides_through_its_modules(package: str) -> None:
    """Each module is named; nobody reads twenty files to find the one to begin with."""
    text = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text())) or ""
    modules = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    assert modules - set(re.findall(r"`([a-z_]+)`", text)) == set()


def test_every_module_stands_in_the_import_contract() -> None:
    """A new module at the top of the package must be added to the layers."""
    contract = next(one for one in PROJECT["tool"]["importlinter"]["contracts"] if one["type"] == "layers")
    placed = {name.strip() for layer in contract["layers"] for name in layer.split("|")}
    package = ROOT / "discorder"
    present = {path.stem for path in package.glob("*.py")} | {path.name for path in package.iterdir() if path.is_dir()}
    assert placed == present - {"__init__", "__main__", "__pycache__", "etc"}


def test_the_files_that_mutants_are_made_of_exist() -> None:
    named = {path for target in TARGETS.values() for path in (*target.files, *target.tests, *target.wider)}
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_what_the_simulation_breaks_on_purpose_is_in_the_source() -> None:
    assert [one.name for one in MUTATIONS if (ROOT / one.file).read_text().count(one.old) != 1] == []


def test_the_places_at_which_processes_are_killed_exist() -> None:
    """Arming a point changes its class, so it is done in another process."""
    script = "from tests.kills.points import POINTS\nfor point in POINTS.values(): point.arm(lambda: None)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)
