"""Divide one configuration among several processes: shards, addresses and files of each, as ``--set`` overrides."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from discorder.config.facade import SYSTEMD
from discorder.config.http import AUTO, ListenAddress
from discorder.config.schema import Config, ShardSet, Table
from discorder.errors import ConfigError
from discorder.paths import DEFAULT_ADDRESS, IPC, resolve_endpoint
from discorder.wire import MAX_PORT

BEHIND_PARENT = ('http.bind="127.0.0.1:0"', 'http.tls_cert_file=""', 'http.tls_key_file=""')
PORTS_PER_PROCESS = 2  # the bus, and beside it the requests

_TCP = re.compile(r"(tcp://.+:)(\d{1,5})")


@dataclass(frozen=True, slots=True)
class Share:
    """The part of one process."""

    shards: tuple[int, ...]
    of: int
    overrides: tuple[str, ...]  # KEY=VALUE, for --set


@dataclass(frozen=True, slots=True)
class SocketFolder:
    """A folder of IPC sockets, one for each process. ``mode`` is that of the sockets, ``group`` their group or ""."""

    path: Path
    mode: int
    group: str


def divide(config: Config, processes: int) -> list[Share]:
    """Return the share of each process. Raises `ConfigError` for a configuration that several processes cannot share.

    Shards are divided into blocks of equal size, give or take one. A TCP port of a bus becomes that of the first process, each
    further process takes the next pair of ports. The port of the façade counts up by one. An IPC path becomes a folder with a
    socket for each process. The paths of the log, of delimited files and of the façade's journal get the number of the process
    before their suffix. The HTTP server is the parent's, which passes each process a socket on loopback.
    """
    ids, of = _shards(config, processes)
    if not config.session.store:
        msg = 'session.store: several processes share the identify budget through a session store; give it a path or "auto"'
        raise ConfigError(msg)
    shares = []
    for number in range(processes):
        mine = ids[len(ids) * number // processes : len(ids) * (number + 1) // processes]
        changes = {("gateway", "shards"): ShardSet(mine, of), **dict(_changes(config, number))}
        overrides = [f"{_key(key)}={_toml(value)}" for key, value in changes.items()]
        shares.append(Share(mine, of, (*overrides, *(BEHIND_PARENT if config.http.address else ()))))
    return shares


def socket_folders(config: Config) -> Iterator[SocketFolder]:
    """Yield the folders that must exist before the processes start."""
    for table in _tables(config, "zmq").values():
        for endpoint in (*_endpoints(table.get("bind", DEFAULT_ADDRESS)), *_endpoints(table.get("replay", ()))):
            path = resolve_endpoint(endpoint).removeprefix(IPC)
            if endpoint.startswith(IPC) and not path.startswith("@"):
                yield SocketFolder(Path(path), int(str(table.get("mode", "0600")), 8), str(table.get("group", "")))


def _shards(config: Config, processes: int) -> tuple[tuple[int, ...], int]:
    match config.gateway.shards:
        case int(count):
            ids, of = tuple(range(count)), count
        case ShardSet(listed, of):
            ids = tuple(sorted(listed))
        case _:
            msg = (
                "gateway.shards: several processes need the number of shards, to divide them; set gateway.shards = N. "
                "discorder budget shows the number that Discord recommends"
            )
            raise ConfigError(msg)
    if len(ids) < processes:
        msg = f"gateway.shards: {len(ids)} shards cannot be divided among {processes} processes; start fewer processes"
        raise ConfigError(msg)
    return ids, of


def _changes(config: Config, number: int) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield the keys that differ in process ``number``, beside the shards."""
    if config.log.file:
        yield ("log", "file"), _numbered(config.log.file, number)
    for name, table in _tables(config, "zmq").items():
        bind = [_shifted(name, "bind", one, number) for one in _endpoints(table.get("bind", DEFAULT_ADDRESS))]
        yield ("publishers", name, "bind"), bind
        for endpoint in _endpoints(table.get("replay", ())):
            yield ("publishers", name, "replay"), _shifted(name, "replay", endpoint, number)
    for name, table in _tables(config, "delimited_file").items():
        yield ("publishers", name, "path"), _numbered(str(table["path"]), number)
    yield from _facade_changes(config, number)


def _facade_changes(config: Config, number: int) -> Iterator[tuple[tuple[str, ...], object]]:
    facade = config.facade
    if facade.bind == SYSTEMD:
        msg = f'facade.bind: several processes cannot share the socket of "{SYSTEMD}"; set it to HOST:PORT'
        raise ConfigError(msg)
    address = _counted_up("facade.bind", facade.address, number)
    if address is not None:
        yield ("facade", "bind"), str(address)
    if facade.journal not in {"", AUTO}:
        yield ("facade", "journal"), _numbered(facade.journal, number)


def _counted_up(key: str, address: ListenAddress | None, number: int) -> ListenAddress | None:
    """Return the address of process ``number``; None if there is none, or one that the system chooses."""
    if address is None or not address.port:
        return None
    port = address.port + number
    if port > MAX_PORT:
        msg = f"{key}: {address} leaves no port for process {number}; choose a lower port"
        raise ConfigError(msg)
    return replace(address, port=port)


def _tables(config: Config, kind: str) -> dict[str, Table]:
    return {name: table for name, table in config.publisher_tables().items() if table.get("kind", name) == kind}


def _endpoints(value: object) -> list[str]:
    values = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
    return [one for one in values if isinstance(one, str) and "://" in one]  # not "auto" or ""


def _shifted(name: str, key: str, endpoint: str, number: int) -> str:
    if endpoint.startswith(f"{IPC}@"):
        return f"{endpoint}.{number}"
    if endpoint.startswith(IPC):
        return f"{endpoint.rstrip('/')}/{number}"
    match = _TCP.fullmatch(endpoint)
    if match is None or int(match[2]) == 0:
        return endpoint  # the system chooses the port
    port = int(match[2]) + PORTS_PER_PROCESS * number
    if port + 1 > MAX_PORT:
        msg = f"publishers.{name}.{key}: {endpoint} leaves no ports for process {number}; choose a lower port or an ipc:// path"
        raise ConfigError(msg)
    return f"{match[1]}{port}"


def _numbered(path: str, number: int) -> str:
    place = Path(path)
    return str(place.with_name(f"{place.stem}.{number}{place.suffix}"))


def _key(parts: Sequence[str]) -> str:
    return ".".join(part if re.fullmatch(r"[\w-]+", part, re.ASCII) else _toml(part) for part in parts)


def _toml(value: object) -> str:
    if isinstance(value, ShardSet):
        return f"{{ ids = {list(value.ids)}, of = {value.of} }}"
    return msgspec.json.encode(value).decode()  # a string or a list of strings is written alike in both
