"""Encode the query and the body of a request: JSON, or a multipart form with files."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from urllib.parse import urlencode

import msgspec

WITH_FILES = ("PATCH", "POST", "PUT")

Param = str | int | float | bool | None


_ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})  # in a form's names, as browsers do it


@dataclass(frozen=True, slots=True)
class File:
    """One file to send: its name as Discord shows it, its bytes, and its content type (Discord guesses without one)."""

    filename: str
    data: bytes = field(repr=False)
    content_type: str = "application/octet-stream"

    def __post_init__(self) -> None:
        """Raise TypeError or ValueError for a file that cannot be sent."""
        _check_types(self.filename, self.data)
        if not self.filename:
            msg = "a file needs a name: Discord shows it and judges the file by its ending"
            raise ValueError(msg)
        if not self.content_type.isascii() or not self.content_type.isprintable():
            msg = f"content type {self.content_type!r}: printable ASCII such as image/png"
            raise ValueError(msg)
        object.__setattr__(self, "data", bytes(self.data))  # a copy, so that every try sends the same bytes

    @classmethod
    async def read(cls, path: str | PathLike[str], content_type: str = "application/octet-stream") -> File:
        """Read a file from the disk, in a thread. Raises OSError."""
        source = Path(fspath(path))
        return cls(source.name, await asyncio.to_thread(source.read_bytes), content_type)


FileLike = File | tuple[str, bytes] | tuple[str, bytes, str]


def encode_body(method: str, json: object, files: Sequence[FileLike]) -> tuple[bytes | None, str]:
    """Return the body of a request and its content type. Raises TypeError and ValueError for what cannot be sent."""
    payload = None if json is None else msgspec.json.encode(json)
    if not files:
        return payload, "application/json"
    if isinstance(files, str | bytes | File) or not isinstance(files, Sequence):
        msg = f"files: a list of files, not {type(files).__name__}"
        raise TypeError(msg)
    if method not in WITH_FILES:
        msg = f"files: {method} takes none; {', '.join(WITH_FILES)} do"
        raise ValueError(msg)
    return _encode_form(payload, files)


def encode_query(params: Mapping[str, Param | Sequence[Param]] | None) -> str:
    """Return the query with its question mark, or "" without parameters. Raises TypeError for a value of another type."""
    pairs: list[tuple[str, str]] = []
    for name, value in (params or {}).items():
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        pairs.extend((name, _param(name, each)) for each in values if each is not None)
    return f"?{urlencode(pairs)}" if pairs else ""


def _param(name: str, value: Param) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str() | int() | float():
            return str(value)
        case _:
            msg = f"query parameter {name}: str, int, float or bool, not {type(value).__name__}"
            raise TypeError(msg)


def _encode_form(payload: bytes | None, files: Sequence[FileLike]) -> tuple[bytes, str]:
    """Return a multipart form and its content type. Its parts: ``payload_json`` if given, ``files[0]``, ``files[1]``, …"""
    parts: list[tuple[str, bytes]] = []
    if payload is not None:
        parts.append((_head("payload_json", "application/json"), payload))
    for number, each in enumerate(files):
        file = _as_file(each)
        parts.append((_head(f"files[{number}]", file.content_type, file.filename), file.data))
    boundary = secrets.token_hex(16)
    while any(boundary.encode() in data for _, data in parts):
        boundary = secrets.token_hex(16)
    body = bytearray()
    for head, data in parts:
        body += f"--{boundary}\r\n{head}\r\n\r\n".encode(errors="replace") + data + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    return bytes(body), f"multipart/form-data; boundary={boundary}"


def _check_types(filename: object, data: object) -> None:
    if not isinstance(filename, str) or not isinstance(data, bytes | bytearray | memoryview):
        what = f"{type(filename).__name__} and {type(data).__name__}"
        msg = f"a file has a name (str) and data (bytes), not {what}; File.read takes a path"
        raise TypeError(msg)


def _head(name: str, content_type: str, filename: str | None = None) -> str:
    suffix = "" if filename is None else f'; filename="{filename.translate(_ESCAPES)}"'
    return f'Content-Disposition: form-data; name="{name}"{suffix}\r\nContent-Type: {content_type}'


def _as_file(value: FileLike) -> File:
    match value:
        case File():
            return value
        case tuple() if len(value) in {2, 3}:
            return File(*value)  # pyright: ignore[reportArgumentType]  # File checks its types
        case _:
            msg = f"a file is a discorder.File or (name, bytes), not {type(value).__name__}"
            raise TypeError(msg)
