"""Merge one TOML file and the ``--set KEY=VALUE`` overrides into one tree of tables.

Records where each key was set, so that an error can name the place.
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
from discorder.paths import read_small_file
from discorder.redaction import Redactor

MAX_BYTES = 1 << 20  # of a configuration file; /dev/zero never ends
_BOM = b"\xef\xbb\xbf"
_redact = Redactor()

KeyPath = tuple[str, ...]


@dataclass(slots=True)
class Source:
    """The merged tables, and for each overridden key its ``--set``."""

    file: str  # as the user named it; "" without one
    tree: dict[str, object]
    overridden: dict[KeyPath, str] = field(default_factory=dict)
    defaults: set[KeyPath] = field(default_factory=set)  # the keys with the value of a KEY?=VALUE

    def sets(self, *path: str) -> bool:
        """Return whether the file or a ``--set`` gives the key a value; a ``KEY?=VALUE`` does not count."""
        return self._has(path) and path not in self.defaults

    def _has(self, path: KeyPath) -> bool:
        node: object = self.tree
        for part in path:
            if not isinstance(node, dict) or part not in node:
                return False
            node = node[part]
        return True

    def place(self, dotted: str) -> str:
        """Return where ``dotted`` was set: in the file, by a ``--set``, or by both if the ``--set`` completed a table."""
        key = tuple(dotted.split("."))
        file = self.file or "built-in defaults"
        for path, override in reversed(self.overridden.items()):
            if key[: len(path)] == path:
                return f"--set {override}"
            if path[: len(key)] == key:
                return f"{file} with --set {override}" if self.file else f"--set {override}"
        return file


def read_source(path: str | os.PathLike[str] | None, overrides: Sequence[str]) -> Source:
    """Read the file, if any, and apply the overrides in order. Raises `ConfigError` naming the file or the ``--set``."""
    source = Source("", {}) if path is None else _read_file(path)
    for override in overrides:
        _apply(override, source)
    return source


def _read_file(path: str | os.PathLike[str]) -> Source:
    name = _redact(os.fspath(path))
    try:
        content = read_small_file(Path(path), MAX_BYTES + 1)
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
    """Set one ``KEY=VALUE`` in the tree; a ``KEY?=VALUE``, as in make, only if nothing has set the key."""
    key, equals, value = override.partition("=")
    is_default = key.endswith("?")
    key = key.removesuffix("?")
    shown = _without_secret(override)
    if not equals:
        msg = f"--set {shown}: write KEY=VALUE, for example --set log.level=debug"
        raise ConfigError(msg)
    path = _parse_key(key.strip(), shown)
    if is_default:
        if source.sets(*path):
            return
        source.defaults.add(path)
    else:
        source.defaults.discard(path)
    table = source.tree
    for depth, part in enumerate(path[:-1], start=1):
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict):
            msg = f"--set {shown}: {'.'.join(path[:depth])} is a value, not a table, and has no keys below it"
            raise ConfigError(msg)
        table = cast("dict[str, object]", inner)
    table[path[-1]] = parse_value(value)
    source.overridden.pop(path, None)  # the last one is named in errors
    source.overridden[path] = shown


def _without_secret(override: str) -> str:
    """Return the override for an error message, without a token or a URL with a password."""
    key, equals, value = override.partition("=")
    if key.strip(" \"'").lower().endswith("token") or ("://" in value and "@" in value):
        return f"{key}{equals}…"
    return _redact(override)


def _parse_key(key: str, shown: str) -> KeyPath:
    """Return the parts of a dotted TOML key; quoted parts may contain dots."""
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
    """Parse ``text`` as a TOML value; return it as a string if it is none."""
    try:
        document = tomli.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return document["value"] if document.keys() == {"value"} and "\n" not in text else text
