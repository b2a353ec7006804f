"""Answer the probes of supervisors: is the process alive, and do its shards serve."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

from aiohttp import web

from discorder.http.answers import answer
from discorder.http.security import HttpSecurity
from discorder.status.document import StatusDocument

RECENT_SECONDS = 1.0  # that a verdict is kept for other hosts: however often they ask, it is made once in that time


class HealthChecks:
    """The handlers of ``/livez`` and ``/readyz``. Both are open to every host; reasons are for those who may read the status."""

    def __init__(
        self,
        security: HttpSecurity,
        *,
        status: Callable[[], Awaitable[StatusDocument]],
        problems: Callable[[], Awaitable[Sequence[str]]],
    ) -> None:
        """``problems`` returns a sentence for each thing that only a restart would mend."""
        self._security = security
        self._status = status
        self._problems = problems
        self._judged_at = -math.inf
        self._healthy = False

    async def live(self, request: web.Request) -> web.Response:
        """Answer 200 while the event loop turns and no state is past its deadline, as systemd's watchdog is fed.

        Discord's health does not count, since a restart would not mend it.
        """
        problems = await self._problems()
        document: dict[str, object] = {"live": not problems}
        if problems and self._security.may_read(request, self._security.client(request)):
            document["reasons"] = list(problems)
        return answer(document, status=HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK)

    async def ready(self, request: web.Request) -> web.Response:
        """Answer 200 if every shard serves, 503 otherwise, in the words of the status document."""
        if not self._security.may_read(request, self._security.client(request)):
            return _readiness(await self._recently_healthy(), {})
        status = await self._status()
        verdict = status.verdict
        shards = [
            {"id": shard.id, "state": shard.state, "reasons": shard.reasons}
            for shard in status.shards
            if not shard.healthy
        ]
        words = {"level": verdict.level, "headline": verdict.headline, "detail": verdict.detail}
        return _readiness(verdict.healthy, {**words, "reasons": verdict.reasons, "shards": shards})

    async def _recently_healthy(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._judged_at >= RECENT_SECONDS:
            self._judged_at, self._healthy = now, (await self._status()).verdict.healthy
        return self._healthy


def _readiness(healthy: bool, words: dict[str, object]) -> web.Response:
    status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
    return answer({"ready": healthy, **words}, status=status)
