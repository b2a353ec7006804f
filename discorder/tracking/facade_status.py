"""Show who is connected to the façade."""

from __future__ import annotations

from dataclasses import dataclass

from discorder.wire import StreamPosition


@dataclass(frozen=True, slots=True)
class FacadeSessionStatus:
    """One bot on one shard. ``library``: what it says of itself at IDENTIFY, empty after a RESUME.

    ``position``: up to where it has the events. ``lag``: how many events, by their sequence numbers, it has yet to get.
    """

    client: str
    shard: int
    library: str
    position: StreamPosition
    lag: int


@dataclass(frozen=True, slots=True)
class FacadeStatus:
    """The façade of a control plane. ``url``: where it listens, without a path; None if it is off."""

    url: str | None
    sessions: tuple[FacadeSessionStatus, ...]
