"""The main host of the gateway: the look-up that names it, and which hosts may be dialled besides.

The look-up runs beside the shards. It ends the control plane only where no shard holds a session; until it has answered, a shard
that knows its resume host dials that one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from discorder.clock import Clock, within
from discorder.config import Config
from discorder.errors import AuthenticationFailed, ConnectFailed, RestError
from discorder.logs import logger
from discorder.plane.session_persistence import GatewayLookUp
from discorder.rest import BotClient, GatewayInfo, look_up
from discorder.rest.hosts import Hosts
from discorder.shard.dependencies import DialTarget
from discorder.statemachine.table import DIAL_SECONDS
from discorder.tracking.shard_tracker import ShardTracker
from discorder.transport import Compression, gateway_url, parse_address

TRIES_UNDER_FAIL_ON_ERROR = 5
LOOK_UP_PATIENCE = 2.0  # seconds that a dial waits for the look-up where it could dial the resume host instead
# seconds after which a dial gives up, with the reason, before its deadline gives none
UNKNOWN_WITHIN = DIAL_SECONDS - 1.0
MOST_SHARDS = 4096  # that one process runs: each is a socket, and an IDENTIFY every 5 s makes it six hours


class MainHost:
    """One control plane's look-up. ``asked`` replaces it in a replay or a test.

    ``judged``: whether hosts are held to `Hosts`; not where the dial itself is replaced. ``shards`` gives the present ones.
    """

    def __init__(
        self,
        config: Config,
        client: BotClient,
        clock: Clock,
        *,
        asked: GatewayLookUp | None,
        judged: bool,
        shards: Callable[[], Sequence[ShardTracker]],
    ) -> None:
        self.trouble: str | None = None  # why there is no answer yet, for `diagnose`
        self._config = config
        self._client = client
        self._clock = clock
        self._asked = asked
        self._shards = shards
        self._hosts = Hosts(client.base_url, insecure=config.gateway.insecure_api) if judged else None
        self._answer: asyncio.Future[GatewayInfo] = asyncio.get_running_loop().create_future()
        self._failing = asyncio.Event()
        # a substitute for the main host counts as a dial of it: there may never be an answer
        self._tried_enough = False
        self._held_until = float("-inf")  # monotonic: no dial before, our address is being limited

    @property
    def info(self) -> GatewayInfo:
        """The answer. Only once `ask` has returned."""
        return self._answer.result()

    async def ask(self) -> None:
        """Look up until there is an answer. Raises AuthenticationFailed and GatewayUnreachable where no session is held."""
        if self._asked is not None:
            info = await self._asked()
            self._check(info)
        else:
            info = await look_up(
                self._client,
                tries=self._tries(),
                clock=self._clock,
                on_retry=self._note_trouble,
                check=self._check,
                may_give_up=self._is_needed,
            )
        self.trouble = None
        self._answer.set_result(info)

    def resume_url(self, url: str) -> str:
        """``url`` of a resume host, or "" (the main host) where it must not be dialled, which is logged."""
        if not url:
            return ""
        objection = self._objection_to(url)
        if objection is None:
            return url
        logger.warning(
            "The resume host is not dialled", reason=objection, consequence="RESUME goes to the main host instead"
        )
        return ""

    def stored_url(self, url: str) -> str:
        """Like `resume_url`, for a session of the store: checked at the dial if that needs the look-up's answer."""
        if self._hosts is None or self._answer.done() or self._hosts.is_decidable(url):
            return self.resume_url(url)
        return url

    async def target(self, resume_url: str, known: str, compression: Compression) -> DialTarget:
        """Return what to dial: ``resume_url``, or the main host where that is "" or must not be dialled.

        ``known``: the resume host of the session that is held, dialled in place of a main host that nobody knows yet. Raises
        `ConnectFailed` where neither is known, or while Discord asks not to be dialled.
        """
        left = self._held_until - self._clock.monotonic()
        if left > 0:
            msg = "not dialled: another shard was refused with HTTP 429, and our address was asked to wait"
            raise ConnectFailed(msg, status=429, retry_after=left)
        if resume_url and self._hosts is not None and not self._hosts.is_decidable(resume_url):
            await self._main(None)
        url = self.resume_url(resume_url)
        if url:
            return DialTarget(gateway_url(url, compression))
        usable = (
            known and (self._hosts is None or self._hosts.is_decidable(known)) and self._objection_to(known) is None
        )
        url = await self._main(known if usable else None)
        substituted = not self._answer.done() and not self._tried_enough
        return DialTarget(gateway_url(url, compression), substituted)

    def hold_dials(self, seconds: float) -> None:
        """Discord limits our address: no shard dials for ``seconds``."""
        self._held_until = max(self._held_until, self._clock.monotonic() + seconds)

    def close(self) -> None:
        """Nobody waits for the answer any more."""
        self._answer.cancel()

    async def _main(self, instead: str | None) -> str:
        """The main host; ``instead`` where it is not known soon."""
        if not self._answer.done():
            limit = UNKNOWN_WITHIN if instead is None else LOOK_UP_PATIENCE
            await self._wait_for_answer(limit, or_failure=instead is not None)
        if self._answer.done():
            return self._answer.result().url
        if instead is None:
            why = self.trouble or "it has not been answered yet"
            msg = f"the main host is not known: GET /gateway/bot: {why}"
            raise ConnectFailed(msg)
        logger.info("The main host is not known yet: the resume host is dialled meanwhile", look_up=self.trouble or "")
        return instead

    async def _wait_for_answer(self, seconds: float, *, or_failure: bool) -> None:
        failing = asyncio.ensure_future(self._failing.wait())
        try:
            waited: set[asyncio.Future[Any]] = {self._answer, failing} if or_failure else {self._answer}
            await within(self._clock, seconds, asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED))
        except TimeoutError:
            pass
        finally:
            failing.cancel()

    def _tries(self) -> int | None:
        gateway = self._config.gateway
        limits = [gateway.max_attempts] if gateway.max_attempts else []
        if gateway.fail_on_error:
            limits.append(TRIES_UNDER_FAIL_ON_ERROR)
        return min(limits, default=None)

    def _is_needed(self) -> bool:
        """Whether the look-up may end the control plane: a session that is held needs none."""
        return all(shard.session is None for shard in self._shards())

    def _check(self, info: GatewayInfo) -> None:
        if self._hosts is not None:
            self._hosts.check_main(info.url)
        if self._config.gateway.shards == "auto" and info.shards > MOST_SHARDS:
            msg = (
                f"GET /gateway/bot: shards = {info.shards}, and one process runs {MOST_SHARDS} at most; "
                "share them among processes with gateway.shards = { ids = […], of = … }"
            )
            raise RestError(msg)

    def _note_trouble(self, tried: int, seconds: float, error: BaseException) -> None:
        refused = isinstance(error, AuthenticationFailed)
        then = "the sessions that are held go on without it" if refused else f"next try in {seconds:.0f} s"
        self.trouble = f"looking up the gateway failed {tried} times, {then}: {error}"
        tries = self._tries()
        self._tried_enough = tries is not None and tried >= tries
        self._failing.set()

    def _objection_to(self, url: str) -> str | None:
        if self._hosts is None:
            try:
                parse_address(url)
            except ValueError as error:
                return f"it is {error}"
            return None
        return self._hosts.objection_to(url, self._answer.result().url if self._answer.done() else None)
