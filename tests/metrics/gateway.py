"""A gateway in memory that plays itself, on the clock of the test, with faults to switch on."""

from __future__ import annotations

from typing import Any

from discorder.clock import FakeClock
from discorder.errors import ConnectFailed
from discorder.rest import GatewayInfo, SessionStartLimit
from discorder.transport.protocol import Deliver
from discorder.wire import Op
from tests.harness import Exchange, Line


class Gateway(Exchange):
    """Accepts connections, opens a session for each IDENTIFY, resumes every session, answers every heartbeat."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.refuses: set[int] = set()  # shards whose connections it does not accept
        self.ack_after = 0.0  # seconds
        self.remaining = 1000  # of 1,000 IDENTIFYs
        self.spoiled = 0  # connections that get op 9 before Hello
        self.of_shard: dict[int, Line] = {}  # the last connection

    def dial(self, shard: tuple[int, int]) -> Line:
        """Make the connection of the next generation."""
        line = PlayedLine(self, shard[0])
        self.lines.append(line)
        self.of_shard[shard[0]] = line
        return line

    async def look_up(self) -> GatewayInfo:
        """Answer GET /gateway/bot."""
        limit = SessionStartLimit(total=1000, remaining=self.remaining, reset_after_ms=86_400_000, max_concurrency=1)
        return GatewayInfo(url=self.url, shards=1, session_start_limit=limit)


class PlayedLine(Line):
    """One connection of a `Gateway`."""

    def __init__(self, gateway: Gateway, shard: int) -> None:
        super().__init__()
        self._gateway = gateway
        self._shard = shard
        if gateway.spoiled:
            gateway.spoiled -= 1
            self.feed({"op": Op.INVALID_SESSION, "d": False})
        self.hello(10_000)

    async def connect(self, url: str, deliver: Deliver) -> None:
        """Accept the connection, or raise `ConnectFailed`."""
        if self._shard in self._gateway.refuses:
            msg = "connection refused"
            raise ConnectFailed(msg)
        await super().connect(url, deliver)

    async def send(self, data: bytes) -> None:
        """Answer a frame of the control plane."""
        await super().send(data)
        answers: dict[int, Any] = {
            Op.HEARTBEAT: self._answer_beat,
            Op.IDENTIFY: self._open_session,
            Op.RESUME: self._resume,
        }
        answers.get(self.sent[-1]["op"], lambda: None)()

    def _answer_beat(self) -> None:
        self._gateway.clock.call_later(self._gateway.ack_after, self.ack)

    def _open_session(self) -> None:
        self.ready(f"session-{len(self._gateway.lines)}")

    def _resume(self) -> None:
        self.goes_on_after(self.sent[-1]["d"]["seq"])
        self.feed(self.dispatched("RESUMED"))
