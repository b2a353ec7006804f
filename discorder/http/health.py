"""Answer the probes of supervisors: is the process alive, and do its shards serve."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from http import HTTPStatus

from aiohttp import web

from discorder.http.answers import answer
from discorder.http.security import HttpSecurity
from discorder.runtime.process_group import ProcessGroup
from discorder.status.board import Board

RECENT_SECONDS = 1.0  # that a verdict is kept for other hosts: however often they ask, it is made once in that time


class HealthChecks:
    """The handlers of ``/livez`` and ``/readyz``. Both are open to every host; reasons are for those who may read the status."""

    def __init__(
        self, board: Board, security: HttpSecurity, overdue: Callable[[], Sequence[str]], group: ProcessGroup | None
    ) -> None:
        """``overdue`` returns a sentence for each state that is past its deadline."""
        self._group = group
        self._board = board
        self._security = security
        self._overdue = overdue
        self._judged_at = -math.inf
        self._healthy = False

    async def live(self, request: web.Request) -> web.Response:
        """Answer 200 while the event loop turns and no state is past its deadline, as systemd's watchdog is fed.

        Discord's health does not count, since a restart would not mend it. One of several processes names its number.
        """
        overdue = self._overdue()
        document: dict[str, object] = {"live": not overdue}
        if self._group is not None:
            document |= {"process": self._group.number, "processes": self._group.count}
        if overdue and self._security.may_read(request, self._security.client(request)):
            document["reasons"] = list(overdue)
        return answer(document, status=HTTPStatus.SERVICE_UNAVAILABLE if overdue else HTTPStatus.OK)

    async def ready(self, request: web.Request) -> web.Response:
        """Answer 200 if every shard serves, 503 otherwise, in the words of the status document."""
        if not self._security.may_read(request, self._security.client(request)):
            return _readiness(self._recently_healthy(), {})
        status = self._board.status()
        verdict = status.verdict
        shards = [
            {"id": shard.id, "state": shard.state, "reasons": shard.reasons}
            for shard in status.shards
            if not shard.healthy
        ]
        words = {"level": verdict.level, "headline": verdict.headline, "detail": verdict.detail}
        return _readiness(verdict.healthy, {**words, "reasons": verdict.reasons, "shards": shards})

    def _recently_healthy(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._judged_at >= RECENT_SECONDS:
            self._judged_at, self._healthy = now, self._board.status().verdict.healthy
        return self._healthy


def _readiness(healthy: bool, words: dict[str, object]) -> web.Response:
    status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
    return answer({"ready": healthy, **words}, status=status)
