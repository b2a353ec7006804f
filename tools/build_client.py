#!/usr/bin/env python3
"""Build the distribution discorder-client: what a bot needs to read a bus, from the modules of this tree.

    python tools/build_client.py                  # a wheel in dist/
    python tools/build_client.py --source FOLDER  # its source tree only

The modules that `EXPORTS` needs are copied, with ``discorder`` renamed to ``discorder_client``. The build fails if one of them
needs a package besides those of `DEPENDENCIES` and `EXTRAS`.
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "discorder"
CLIENT = "discorder_client"
DEPENDENCIES = {"msgspec": "msgspec", "zmq": "pyzmq"}  # import name: distribution
EXTRAS = {"nats": "nats", "redis": "redis"}  # import name: extra of the full package, and of the client
ERRORS = "discorder.errors"  # the only module of which a part is copied

EXPORTS = {
    "CommandRefused": "errors",
    "Commands": "bot.commands",
    "CurveKeys": "bot.subscriber",
    "CursorInUse": "errors",
    "Decoded": "bot.subscriber",
    "DiscorderError": "errors",
    "FileCursor": "bot.subscriber",
    "Gap": "bot.subscriber",
    "GapKind": "bot.subscriber",
    "ReceivedEvent": "wire",
    "Subscription": "bot.subscriber",
    "run_bot": "runtime.moderation",
    "session_label": "wire",
    "shard_of_guild": "wire",
    "subscribe": "bot.subscriber",
}


class BuildError(Exception):
    """The client cannot be made of the modules as they are."""


def main() -> int:
    """Build a wheel, or write the source tree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="the folder of the wheel")
    parser.add_argument("--source", type=Path, help="write the source tree here, and build nothing")
    arguments = parser.parse_args()
    if arguments.source is not None:
        write_source(arguments.source)
        return 0
    print(build_wheel(arguments.out))
    return 0


def build_wheel(out: Path) -> Path:
    """Build the wheel in ``out`` and return its path."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "source", Path(folder) / "wheel"
        write_source(source)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(made), str(source)]
        subprocess.run(command, check=True)
        (wheel,) = made.iterdir()
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(wheel, out))


def write_source(folder: Path) -> None:
    """Write the source tree of the distribution. Raises `BuildError` if a module needs a package that it must not need."""
    modules = needed_modules()
    _check_dependencies(modules)
    for module in sorted(modules):
        target = folder / CLIENT / _file(module).relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        source = _file(module).read_text(encoding="utf-8")
        target.write_text(renamed(needed_errors(source, modules) if module == ERRORS else source), encoding="utf-8")
    (folder / CLIENT / "__init__.py").write_text(_init(), encoding="utf-8")
    (folder / CLIENT / "py.typed").touch()
    shutil.copy(ROOT / "LICENSE", folder)
    shutil.copy(ROOT / "client" / "README.md", folder)
    (folder / "pyproject.toml").write_text(_pyproject(), encoding="utf-8")


# ---------------------------------------------------------------- modules


def needed_modules() -> set[str]:
    """Return the modules and packages that the exports need, directly or not."""
    needed: set[str] = set()
    todo = [f"discorder.{home}" for home in EXPORTS.values()]
    while todo:
        module = todo.pop()
        if module in needed or module == "discorder":
            continue
        needed.add(module)
        todo += [module.rpartition(".")[0], *(name for name in _imports(module) if name.startswith("discorder."))]
    return needed


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imports(module: str) -> Iterator[str]:
    """Yield the modules that ``module`` imports, anywhere in it."""
    for node in ast.walk(ast.parse(_file(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _check_dependencies(modules: set[str]) -> None:
    allowed = {"discorder", *DEPENDENCIES, *EXTRAS, *sys.stdlib_module_names}
    wrong = [
        f"{_file(module).relative_to(ROOT)} imports {name}"
        for module in sorted(modules)
        for name in _imports(module)
        if name.split(".")[0] not in allowed
    ]
    if wrong:
        msg = f"discorder-client needs {' and '.join(DEPENDENCIES.values())} only, but {'; '.join(wrong)}"
        raise BuildError(msg)


def renamed(source: str) -> str:
    """Return ``source`` with the names of modules and examples of the client."""
    return re.sub(r"\bdiscorder\.(?=\w)", f"{CLIENT}.", source).replace("'discorder[", "'discorder-client[")


def needed_errors(source: str, modules: set[str]) -> str:
    """Return the module of errors with the classes that the client raises, and their bases."""
    tree = ast.parse(source)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    todo = [name for name, home in EXPORTS.items() if home == "errors"]
    for module in modules:
        for node in ast.walk(ast.parse(_file(module).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == ERRORS:
                todo += [alias.name for alias in node.names]
    needed: set[str] = set()
    while todo:
        name = todo.pop()
        if name in classes and name not in needed:
            needed.add(name)
            todo += [base.id for base in classes[name].bases if isinstance(base, ast.Name)]
    kept = [ast.get_source_segment(source, classes[name]) for name in classes if name in needed]
    head = '"""Every error that the client raises."""\n\nfrom __future__ import annotations\n\nfrom typing import ClassVar\n'
    return "\n\n".join([head, *(f"{text}\n" for text in kept)])


# ---------------------------------------------------------------- files of the distribution


def _init() -> str:
    imports = "\n".join(f"from {CLIENT}.{home} import {name}" for name, home in sorted(EXPORTS.items(), key=_by_home))
    listed = "\n".join(f'    "{name}",' for name in EXPORTS)
    says = "Read the events of a Discorder bus, and send commands to Discord's gateway through it."
    return f'"""{says}"""\n\n{imports}\n\n__all__ = [\n{listed}\n]\n'


def _by_home(export: tuple[str, str]) -> tuple[str, str]:
    return export[1], export[0]


def _pyproject() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = "\n".join(f"{one} = {project['optional-dependencies'][one]!r}" for one in EXTRAS.values())
    wanted = [one for one in project["dependencies"] if re.split(r"[<>=\[ ;]", one)[0] in DEPENDENCIES.values()]
    return f"""\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "discorder-client"
version = "{project["version"]}"
description = "Read the events of a Discorder bus in a bot, and send commands to Discord's gateway through it."
readme = "README.md"
requires-python = "{project["requires-python"]}"
license = "{project["license"]}"
license-files = ["LICENSE"]
dependencies = {wanted!r}
classifiers = {project["classifiers"]!r}

[project.optional-dependencies]
{extras}

[tool.setuptools.packages.find]
include = ["{CLIENT}*"]

[tool.setuptools.package-data]
{CLIENT} = ["py.typed"]
"""


if __name__ == "__main__":
    sys.exit(main())
