"""Show which bots may connect to the façade, and which of them are connected."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from discorder.wire import StreamPosition


@dataclass(frozen=True, slots=True)
class FacadeSessionStatus:
    """One bot on one shard. ``library``: what it said of itself at its last IDENTIFY, empty if this façade has seen none.

    ``position``: up to where it has the events. ``lag``: how many events, by their sequence numbers, it has yet to get;
    ``lag_s``: the age of the oldest of them in seconds, 0.0 if there is none. ``since``: when its session began or was resumed
    on this connection (aware). ``identifies``, ``resumes``, ``invalid_sessions`` (op 9): how often on this shard since the
    façade was opened, over all connections of this bot. ``url``: of the façade that it is connected to.
    """

    client: str
    shard: int
    library: str
    position: StreamPosition
    lag: int
    lag_s: float
    since: datetime
    identifies: int
    resumes: int
    invalid_sessions: int
    url: str = ""


@dataclass(frozen=True, slots=True)
class FacadeClientStatus:
    """One bot that may connect. ``sessions``: how many it has now; ``lag`` and ``lag_s``: of the one that is furthest behind.

    ``seen_at``: when it last had a session on any shard (aware); None if that is not known. ``away_s``: for how many seconds it
    has had none, at most since the façade was opened; 0.0 while it has one. ``catch_up``: for how many seconds after ``seen_at``
    it gets the events that it missed. ``identifies``, ``resumes``, ``invalid_sessions`` (op 9): how often on all shards since
    the façade was opened. ``refused``: why its last IDENTIFY was refused; empty if it was not, or if it has had a session since.
    """

    name: str
    sessions: int
    lag: int
    lag_s: float
    seen_at: datetime | None
    away_s: float
    catch_up: float
    identifies: int
    resumes: int
    invalid_sessions: int
    refused: str = ""


@dataclass(frozen=True, slots=True)
class FacadeStatus:
    """The façade of a control plane, and those in processes of their own that report to it.

    ``url``: where it listens, without a path, or else the first other one; None if there is none.

    ``clients``: the bots that may connect; the one with the real token only if it has been connected. ``absent_s``: for how many
    seconds there has been none; 0.0 while there is one.
    """

    url: str | None
    sessions: tuple[FacadeSessionStatus, ...] = ()
    clients: tuple[FacadeClientStatus, ...] = ()
    absent_s: float = 0.0
