"""Carry out operator commands: restart, pause, unpause, release or start a shard, shut down. Each is a line in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

import msgspec
from aiohttp import hdrs, web

from discorder.errors import DiscorderError, NotRunning
from discorder.http.answers import RequestRefused, answer
from discorder.http.security import HttpSecurity
from discorder.logs import logger
from discorder.tracking.tracker import GatewayTracker

STORE_SECONDS = (
    1.5  # for a pause to reach the disk, or a shard to be released; the commands wait two seconds for an answer
)
BODY_SECONDS = 5.0  # for a request's body to arrive

SHARD_COMMANDS = r"/shards/{id:[0-9]{1,18}}/{verb:restart|pause|unpause|release|start}"  # in aiohttp's notation
MOVES = frozenset({"release", "start"})

DONE = {
    "release": "shard {} is released: another process with this session store may start it",
    "start": "shard {} runs here: it resumes its session if it has one",
    "restart": "shard {} connects again, and resumes its session if it has one",
    "pause": "shard {} is paused, also after a restart of the process, until it is unpaused",
    "unpause": "shard {} is unpaused, and connects",
}
UNSTORED = {
    "pause": "shard {} is paused, but not stored: {}; a restart of the process unpauses it",
    "unpause": "shard {} is unpaused, but not stored: {}; a restart of the process may pause it again",
}
BEGUN = {
    "release": "shard {} is being released; the log says when another process may start it",
    "start": "shard {} is being started; the log says when it runs",
}


class ShutdownRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /shutdown``. ``goodbye``: end the sessions instead of keeping them for the next start."""

    goodbye: bool = False


class OperatorCommands:
    """The handlers of the operator commands of one control plane."""

    def __init__(self, tracker: GatewayTracker, security: HttpSecurity) -> None:
        self._tracker = tracker
        self._security = security
        self._shard_commands: dict[str, Callable[[int], None]] = {
            "restart": tracker.restart_shard,
            "pause": tracker.pause_shard,
            "unpause": tracker.unpause_shard,
        }
        self._moves = {"release": tracker.release_shard, "start": tracker.start_shard}
        self._moving: set[asyncio.Task[None]] = set()  # held here, since the loop does not

    async def shard(self, request: web.Request) -> web.Response:
        """Answer ``POST /shards/{id}/{verb}``; a pause is on the disk by then, and a release over if it does not take long."""
        verb, shard = request.match_info["verb"], int(request.match_info["id"])
        peer = self._security.client(request).address
        is_over = True
        try:
            if verb in MOVES:
                is_over = await self._move(verb, shard)
            else:
                self._shard_commands[verb](shard)
        except ValueError as error:
            raise RequestRefused(HTTPStatus.NOT_FOUND, str(error)) from error
        except DiscorderError as error:
            logger.info("Operator command refused", verb=verb, shard=shard, peer=peer, reason=str(error))
            raise RequestRefused(HTTPStatus.CONFLICT, str(error)) from error
        logger.info("Operator command", verb=verb, shard=shard, peer=peer)
        if not is_over:
            return answer({"done": BEGUN[verb].format(shard)})
        problem = await self._problem_of_store() if verb in UNSTORED else ""
        done = UNSTORED[verb].format(shard, problem) if problem else DONE[verb].format(shard)
        return answer({"done": done})

    async def _move(self, verb: str, shard: int) -> bool:
        """Start or release a shard. Return whether that is over already; if not, it goes on."""
        moving = asyncio.create_task(self._moves[verb](shard))
        self._moving.add(moving)
        moving.add_done_callback(self._moved)
        done, _ = await asyncio.wait([moving], timeout=STORE_SECONDS)
        if done:
            moving.result()
        return bool(done)

    def _moved(self, moving: asyncio.Task[None]) -> None:
        self._moving.discard(moving)
        if not moving.cancelled():
            moving.exception()  # the plane has logged it, if no answer tells of it

    async def _problem_of_store(self) -> str:
        """Wait until a pause or its end is stored. Return why it is not, "" if it is."""
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await self._tracker.wait_stored()
        except (TimeoutError, NotRunning):
            return f"the session store has not written it within {STORE_SECONDS:g} s"
        health = self._tracker.store
        return "" if health.durable else health.reason

    async def shutdown(self, request: web.Request) -> web.Response:
        """Answer ``POST /shutdown``; the stop begins at once and the answer still goes out."""
        wanted = await read_shutdown(request)
        peer, plane = self._security.client(request).address, self._tracker.plane
        if self._tracker.terminate_flag and plane.ends_sessions != wanted.goodbye:
            what = "its sessions end" if plane.ends_sessions else "the next start resumes its sessions"
            raise RequestRefused(
                HTTPStatus.CONFLICT,
                f"the control plane shuts down already; {what}, and that cannot be changed any more",
            )
        logger.info("Operator command", verb="shutdown", goodbye=wanted.goodbye, peer=peer)
        try:
            plane.stop(goodbye=wanted.goodbye)
        except NotRunning as error:
            raise RequestRefused(HTTPStatus.CONFLICT, str(error)) from error
        kept = "the sessions end and the bot goes offline" if wanted.goodbye else "the next start resumes its sessions"
        return answer({"done": f"the control plane shuts down; {kept}"})


async def read_shutdown(request: web.Request) -> ShutdownRequest:
    """Return what ``POST /shutdown`` asks for. Raises `RequestRefused` for another body."""
    body = await read_body(request)
    try:
        return msgspec.json.decode(body, type=ShutdownRequest) if body.strip() else ShutdownRequest()
    except msgspec.MsgspecError as error:
        raise RequestRefused(
            HTTPStatus.BAD_REQUEST, f'the body must be JSON such as {{"goodbye": false}}: {error}'
        ) from error


async def read_body(request: web.Request) -> bytes:
    """Return the body.

    Raises `RequestRefused` if it does not arrive in time, is compressed or malformed. aiohttp refuses one beyond the limit.
    """
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower() != "identity":
        raise RequestRefused(HTTPStatus.BAD_REQUEST, "the body must be sent as it is, without a Content-Encoding")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except web.RequestPayloadError as error:
        raise RequestRefused(HTTPStatus.BAD_REQUEST, "the body of the request is malformed") from error
    except TimeoutError:
        raise RequestRefused(
            HTTPStatus.REQUEST_TIMEOUT, f"the body of the request did not arrive within {BODY_SECONDS:g} s"
        ) from None
