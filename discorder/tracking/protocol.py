"""Say what the tracker uses of the control plane, which `discorder.plane` implements: the tracker knows no more of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from discorder.guilds import GuildsSnapshot
from discorder.outbound.outbound import Outbound
from discorder.runtime.watchdog import LoopLag
from discorder.sessions import Budget, Health, IdentifyQueue, OtherUse, SavedSessions
from discorder.statemachine import Task
from discorder.statemachine.triggers import Verb
from discorder.tracking.facade_status import FacadeStatus
from discorder.tracking.startup import StartProgress
from discorder.transport import Compression


class CommandPlane(Protocol):
    """The part of the control plane that `GatewayCommands` uses."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    @property
    def outbound(self) -> Outbound: ...


class Plane(CommandPlane, Protocol):
    """The part of the control plane that the tracker uses. All but the coroutines are thread-safe."""

    @property
    def compression(self) -> Compression: ...

    @property
    def progress(self) -> StartProgress: ...

    @property
    def store_health(self) -> Health: ...

    @property
    def budget(self) -> Budget | None: ...

    @property
    def other_use(self) -> OtherUse | None: ...

    @property
    def look_up_trouble(self) -> str | None: ...

    @property
    def shards_without_guilds(self) -> Sequence[int]: ...

    @property
    def facade(self) -> FacadeStatus: ...

    @property
    def status_url(self) -> str | None: ...

    @property
    def loop_lag(self) -> LoopLag: ...

    @property
    def identify_queue(self) -> IdentifyQueue: ...

    @property
    def saved_sessions(self) -> SavedSessions: ...

    @property
    def is_stopping(self) -> bool: ...

    @property
    def ends_sessions(self) -> bool: ...

    def redact(self, text: str) -> str: ...

    def guilds_of(self, shard: int) -> GuildsSnapshot | None: ...

    def throw_to(self, shard: int, task: Task, error: BaseException) -> None: ...

    def request(self, shard: int, what: Verb) -> None: ...

    async def start_shard(self, shard: int) -> None: ...

    async def release_shard(self, shard: int) -> None: ...

    def on_loop(self, act: Callable[[], None]) -> None: ...

    def stop(self, *, goodbye: bool) -> None: ...

    def hurry(self) -> None: ...

    async def wait_ready(self) -> None: ...

    async def wait_stored(self) -> None: ...

    async def wait_ended(self) -> None: ...
