"""Hold the injected faults, which last until `Simulator.heal`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Host = Literal["main", "resume"]
HOSTS: tuple[Host, Host] = ("main", "resume")


@dataclass(slots=True)
class Faults:
    """``refused``: HTTP status per host, with ``retry_after`` seconds in a header. ``silent_shards``: shards whose
    heartbeats are not acknowledged; None in it = all.

    ``address_blocked``: REST requests are answered as those of an address that Discord has banned.

    ``resume_close``: the code with which the client sees a RESUME's connection end, None while RESUMEs are answered.
    """

    refused: dict[Host, int] = field(default_factory=dict)
    retry_after: int | None = None
    withhold_hello: bool = False
    ignore_openings: bool = False
    resume_close: int | None = None
    address_blocked: bool = False
    silent_shards: set[int | None] = field(default_factory=set)

    def acknowledges(self, shard: int | None) -> bool:
        return not (self.silent_shards & {None, shard}) if shard is not None else None not in self.silent_shards

    def clear(self) -> None:
        self.refused.clear()
        self.retry_after = None
        self.withhold_hello = False
        self.ignore_openings = False
        self.resume_close = None
        self.address_blocked = False
        self.silent_shards.clear()
