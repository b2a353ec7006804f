"""Read the sample frames of ``payloads/``, one per file, and remove their white space."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources

import msgspec


@dataclass(frozen=True, slots=True)
class Payload:
    """One sample dispatch. ``name`` is its file without ``.json``; ``data`` is the compact JSON of its ``d``."""

    name: str
    type: str
    data: bytes


class _SampleFrame(msgspec.Struct):
    t: str
    d: msgspec.Raw


@functools.cache
def load_payloads() -> dict[str, Payload]:
    """Return all sample frames by name, sorted."""
    decode = msgspec.json.Decoder(_SampleFrame).decode
    payloads = {}
    folder = resources.files("discorder.simulator") / "payloads"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".json"):
            frame = decode(msgspec.json.format(file.read_bytes(), indent=-1))
            name = file.name.removesuffix(".json")
            payloads[name] = Payload(name, frame.t, bytes(frame.d))
    return payloads


def replay_order() -> list[Payload]:
    """Return all sample frames in an order that lets caches resolve everything.

    The order of the payloads' own notes: READY, GUILD_CREATE, the two messages that others refer to, the rest, then what
    deletes or removes, last the ends of guilds. READY without guilds goes first: after the other it would empty caches.
    """
    first = ["READY.no_shard_no_guilds", "READY", "GUILD_CREATE", "MESSAGE_CREATE", "MESSAGE_CREATE.poll"]

    def rank(payload: Payload) -> int:
        if payload.name in first:
            return first.index(payload.name)
        if payload.type == "GUILD_DELETE":
            return len(first) + 2
        return len(first) + ("DELETE" in payload.type or "REMOVE" in payload.type)

    return sorted(load_payloads().values(), key=rank)
