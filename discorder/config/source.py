"""Where a configuration comes from: one TOML file and ``--set KEY=VALUE`` on top, merged into one tree of tables.

Knows TOML and files, not which keys exist; remembers which key came from where, so that an error can name the place.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import tomli

from discorder.errors import ConfigError
from discorder.redaction import Redactor

MAX_BYTES = 1 << 20  # of a configuration file; anything longer is not one (and /dev/zero never ends)
_BOM = b"\xef\xbb\xbf"
_redact = Redactor()

KeyPath = tuple[str, ...]


@dataclass(slots=True)
class Source:
    """The merged tables, and for each overridden key the ``--set`` that did it."""

    file: str  # as the user named it; "" without one
    tree: dict[str, object]
    overridden: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, dotted: str) -> str:
        """Where ``dotted`` was written: the file, the ``--set`` that wrote it, or both if one completed the other."""
        key = tuple(dotted.split("."))
        file = self.file or "built-in defaults"
        for path, override in reversed(self.overridden.items()):
            if key[: len(path)] == path:
                return f"--set {override}"
            if path[: len(key)] == key:
                return f"{file} with --set {override}" if self.file else f"--set {override}"
        return file


def read_source(path: str | os.PathLike[str] | None, overrides: Sequence[str]) -> Source:
    """The file, if any, with the overrides applied in order. Raises `ConfigError` naming the file or the ``--set``."""
    source = Source("", {}) if path is None else _read_file(path)
    for override in overrides:
        _apply(override, source)
    return source


def _read_file(path: str | os.PathLike[str]) -> Source:
    name = _redact(os.fspath(path))
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        msg = f"{name}: there is no such configuration file; `discorder init` writes one"
        raise ConfigError(msg) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        msg = f"{name!r}: the configuration file cannot be read: {reason}"
        raise ConfigError(msg) from None
    if len(content) > MAX_BYTES:
        msg = f"{name}: larger than {MAX_BYTES} bytes; this is not a configuration file"
        raise ConfigError(msg)
    return Source(name, _parse(content.removeprefix(_BOM), name))


def _parse(content: bytes, name: str) -> dict[str, object]:
    try:
        return tomli.load(io.BytesIO(content))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        msg = f"{name}: not UTF-8 at line {line} (byte 0x{content[error.start]:02x}); save the file as UTF-8"
    except tomli.TOMLDecodeError as error:
        msg = f"{name}: not valid TOML: {error}"
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, hundreds of nested brackets
        msg = f"{name}: not usable as a configuration: {error}"
    raise ConfigError(_redact(msg)) from None


def _apply(override: str, source: Source) -> None:
    """Put one ``KEY=VALUE`` into the tree."""
    key, equals, value = override.partition("=")
    shown = _without_secret(override)
    if not equals:
        msg = f"--set {shown}: write KEY=VALUE, for example --set log.level=debug"
        raise ConfigError(msg)
    path = _parse_key(key.strip(), shown)
    table = source.tree
    for depth, part in enumerate(path[:-1], start=1):
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict):
            msg = f"--set {shown}: {'.'.join(path[:depth])} is a value, not a table, and has no keys below it"
            raise ConfigError(msg)
        table = cast("dict[str, object]", inner)
    table[path[-1]] = parse_value(value)
    source.overridden.pop(path, None)  # the last one counts as the place
    source.overridden[path] = shown


def _without_secret(override: str) -> str:
    """The override as an error may show it: a token, or a URL with a password in it, is left out."""
    key, equals, value = override.partition("=")
    if key.strip(" \"'").lower().endswith("token") or ("://" in value and "@" in value):
        return f"{key}{equals}…"
    return _redact(override)


def _parse_key(key: str, shown: str) -> KeyPath:
    """The parts of a dotted TOML key; quoted parts may hold dots."""
    try:
        if "\n" in key or "#" in key:
            raise ValueError(key)
        node: object = tomli.loads(f"{key} = 0")
    except (ValueError, RecursionError):
        msg = f"--set {shown}: {key!r} is not a key; write it as section.key, for example log.level"
        raise ConfigError(_redact(msg)) from None
    path: list[str] = []
    while isinstance(node, dict) and len(node) == 1:
        [(part, node)] = node.items()
        path.append(part)
    return tuple(path)


def parse_value(text: str) -> object:
    """``text`` as a TOML value if it is one, else as the string that it is."""
    try:
        document = tomli.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return document["value"] if document.keys() == {"value"} and "\n" not in text else text
