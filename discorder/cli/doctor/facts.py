"""Request what several checks need, each once: an answer of the API without the token, and Discord's answers with it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from yarl import URL

from discorder.cli.budget_report import Survey, survey
from discorder.clock import Clock, SystemClock
from discorder.config import Config
from discorder.daemon_thread import in_daemon_thread
from discorder.errors import ConfigError, DiscorderError
from discorder.plane.session_persistence import WHOLE_LAYOUT, Layout
from discorder.plane.shard_factory import configured_layout
from discorder.rest import BotClient, RateLimitMode
from discorder.rest.http import RequestFailed, open_connection
from discorder.rest.response import Response
from discorder.sessions import bot_key, store_path
from discorder.sessions.holder import Holder
from discorder.sessions.locks import find_holders, lock_directory

T = TypeVar("T")


class NoToken(DiscorderError):
    """There is no token that a request could be sent with."""


class NoApi(DiscorderError):
    """The API gives no answer of Discord's even without the token, so that the token is not sent there."""


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """The answer of ``GET /gateway``, which needs no token. ``seconds``: how long it took; ``at``: when it was half over."""

    response: Response
    seconds: float
    at: datetime

    @property
    def gateway_url(self) -> str | None:
        """Return the main host's URL; None if this is no answer of Discord's API."""
        url = (self.response.json_object() or {}).get("url") if self.response.succeeded else None
        return url if isinstance(url, str) else None


class DoctorFacts:
    """The facts of one examination, requested in the background. ``token`` is None without a usable one; ``limit`` in seconds.

    Its methods raise what the request raised. Use as an asynchronous context manager.
    """

    def __init__(self, config: Config, token: str | None, limit: float) -> None:
        self.config = config
        self.token = token
        self.limit = limit
        self.clock: Clock = SystemClock()
        self._tasks: dict[str, asyncio.Task[Any]] = {}

    async def __aenter__(self) -> DoctorFacts:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def api_answer(self) -> ApiAnswer:
        """Return the answer of the API. Raises RequestFailed, and ConfigError for an unusable proxy of the environment."""
        return await self._once("api", self._ask_api())

    async def survey(self) -> Survey:
        """Return the identify budget and the layout. Raises NoToken, and as `survey` does."""
        return await self._once("survey", survey(self.config, self._needed_token()))

    async def application(self) -> Mapping[str, Any]:
        """Return Discord's description of the application. Raises NoToken, NoApi, and as `BotClient.request` does."""
        return await self._once("application", self._get("/applications/@me"))

    async def user(self) -> Mapping[str, Any]:
        """Return Discord's description of the bot's user, whose refusal is about the token."""
        return await self._once("user", self._get("/users/@me"))

    async def holders(self) -> list[Holder]:
        """Return the processes that hold the shards of this configuration. Raises StoreLocked, OSError, NoToken, UnusableFile."""
        return await self._once("holders", self._find_holders())

    @property
    def store(self) -> Path | None:
        """The file of the session store, None for memory. Raises NoToken where its name depends on the bot, and UnusableFile."""
        setting = self.config.session.store
        return store_path(setting, bot_key(self._needed_token()) if setting == "auto" else "")

    @property
    def locks(self) -> Path | None:
        """The folder of the shards' locks."""
        store = self.store
        return None if store is None else lock_directory(store)

    async def layout(self) -> Layout | None:
        """Return the shards of a start; None where only Discord can say, and does not, or the configuration is wrong."""
        try:
            configured = configured_layout(self.config)
            if configured is not None:
                return configured
            found = await self.survey()
        except DiscorderError:
            return None
        return None if found.discord is None else found.layout

    async def _once(self, name: str, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work``, or the task of the first caller. One caller's time limit does not end it for the others."""
        task: asyncio.Task[T] | None = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = asyncio.create_task(work, name=name)
        else:
            work.close()
        return await asyncio.shield(task)

    async def _ask_api(self) -> ApiAnswer:
        connection = open_connection(self.config.gateway.proxies)
        try:
            began = self.clock.monotonic()
            url = URL(f"{self.config.gateway.api}/gateway")
            before = self.clock.now()
            response = await connection.send("GET", url, {}, None, self.limit)
            after = self.clock.now()
            return ApiAnswer(response, self.clock.monotonic() - began, before + (after - before) / 2)
        finally:
            await connection.session.close()

    async def _get(self, path: str) -> Mapping[str, Any]:
        gateway, token = self.config.gateway, self._needed_token()
        try:
            answer = await self.api_answer()
        except RequestFailed:
            answer = None
        if answer is None or answer.gateway_url is None:
            msg = "the API gives no answer of Discord's"
            raise NoApi(msg)
        client = BotClient(
            token,
            api=gateway.api,
            mode=RateLimitMode.RAISE,
            timeout=self.limit,
            proxy=gateway.proxy,
            trust_env=gateway.trust_env,
        )
        async with client:
            document = await client.request("GET", path)
        if not isinstance(document, dict):
            msg = f"GET {path}: the answer is not the object that Discord documents"
            raise DiscorderError(msg)
        return document

    async def _find_holders(self) -> list[Holder]:
        locks = self.locks
        if locks is None:
            return []
        try:
            layout = configured_layout(self.config)
        except ConfigError:
            layout = None
        shards = WHOLE_LAYOUT if layout is None else [(shard, layout[1]) for shard in layout[0]]
        bot = bot_key(self._needed_token())
        patience = self.limit / 2
        return await in_daemon_thread(lambda: find_holders(locks, bot, shards, patience=patience), "find-holders")

    def _needed_token(self) -> str:
        if self.token is None:
            msg = "there is no usable bot token"
            raise NoToken(msg)
        return self.token
