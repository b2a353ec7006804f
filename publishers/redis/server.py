"""Check whether a Redis server keeps what it has accepted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from redis.exceptions import ResponseError

from discorder.publishers.redis.connection import Connection


@dataclass(frozen=True, slots=True)
class Keeping:
    """Say how a server keeps its data. None: it does not say.

    ``has_aof``: whether it writes an append-only file. ``evicting``: the policy by which it drops keys without an expiry when
    its memory is full; "" if it drops none.
    """

    has_aof: bool | None
    evicting: str | None


async def ask_keeping(connection: Connection) -> Keeping:
    """Ask the server, by CONFIG GET or, where the user may not run it, by INFO. Raises one of `connection.FAILURES`."""
    names = ("appendonly", "maxmemory", "maxmemory-policy")
    answers = await connection.ask(
        [*(("CONFIG", "GET", name) for name in names), ("INFO", "persistence"), ("INFO", "memory")]
    )
    config = [_value(answer) for answer in answers[:3]]
    persistence, memory = (_fields(answer) for answer in answers[3:])
    aof = config[0] or persistence.get("aof_enabled")
    limit = config[1] or memory.get("maxmemory")
    policy = config[2] or memory.get("maxmemory_policy")
    is_known = limit is not None and policy is not None
    evicts = limit != "0" and (policy or "").startswith("allkeys")
    return Keeping(None if aof is None else aof in ("yes", "1"), (policy if evicts else "") if is_known else None)


def weaknesses(keeping: Keeping) -> Iterator[str]:
    """Yield why the server may lose accepted events, each with the remedy."""
    if keeping.has_aof is None or keeping.evicting is None:
        yield (
            "the server does not say how it keeps its data; allow its user CONFIG GET (ACL: +config|get) or INFO (ACL: +info)"
        )
    if keeping.has_aof is False:
        yield (
            "the server has no append-only file, so its crash loses accepted events; set appendonly yes in its configuration "
            "(at once: CONFIG SET appendonly yes, then CONFIG REWRITE)"
        )
    if keeping.evicting:
        yield (
            f"the server drops whole streams when its memory is full (maxmemory-policy {keeping.evicting}); set "
            "maxmemory-policy noeviction in its configuration"
        )


def _value(answer: object) -> str | None:
    """Return the value in an answer to CONFIG GET; None if the server refused, or does not know the name."""
    if isinstance(answer, list) and len(answer) == 2:
        return bytes(answer[1]).decode()
    return None


def _fields(answer: object) -> Mapping[str, str]:
    """Return the fields in an answer to INFO; none if the server refused."""
    if isinstance(answer, ResponseError) or not isinstance(answer, bytes):
        return {}
    pairs = (line.partition(":") for line in answer.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in pairs if colon}
