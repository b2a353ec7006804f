"""Show all processes of `discorder serve --processes N` as one: status, metrics, health, and the operator commands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus

import aiohttp
from aiohttp import hdrs, web

from discorder.group.board import GroupBoard
from discorder.group.member import Member, MemberAbsent, MemberAnswer
from discorder.group.metrics import merge_metrics
from discorder.http.answers import JSON, RequestRefused, answer, compressed
from discorder.http.health import HealthChecks
from discorder.http.routes import PAGE, HttpRoute, RouteAccess
from discorder.http.security import HttpSecurity
from discorder.http.shard_range import wanted_shards, with_shards
from discorder.http.site import page_response
from discorder.http.stream import EventStreams
from discorder.http.verbs import MOVES, SHARD_COMMANDS, read_body, read_shutdown
from discorder.logs import logger
from discorder.status.document import ProcessPart
from discorder.status.feed import encode

PLAIN_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class GroupSite:
    """The routes of the supervising process. ``stop`` begins the end of all; it raises `RequestRefused` if it cannot."""

    def __init__(
        self, members: Sequence[Member], process: Callable[[], ProcessPart], stop: Callable[[bool], None]
    ) -> None:
        self._members = members
        self._stop = stop
        self._board = GroupBoard(members, process)
        self._streams = EventStreams(self._board.listen)
        self._session: aiohttp.ClientSession | None = None
        self._security: HttpSecurity | None = None

    def start(self, security: HttpSecurity) -> list[HttpRoute]:
        """Begin to reach the processes; return the routes."""
        self._security = security
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            headers={hdrs.ACCEPT_ENCODING: "identity"},  # compressing costs more than loopback
        )
        for member in self._members:
            member.session = self._session
        self._board.start()
        health = HealthChecks(security, status=self._board.read, problems=self._problems)
        return [
            HttpRoute("GET", PAGE, RouteAccess.READER, self._page),
            HttpRoute("GET", "/livez", RouteAccess.OPEN, health.live),
            HttpRoute("GET", "/readyz", RouteAccess.OPEN, health.ready),
            HttpRoute("GET", "/status.json", RouteAccess.READER, self._status),
            HttpRoute("GET", "/metrics", RouteAccess.READER, self._scrape),
            HttpRoute("GET", "/events", RouteAccess.READER, self._events),
            HttpRoute("POST", SHARD_COMMANDS, RouteAccess.OPERATOR, self._command),
            HttpRoute("POST", "/shutdown", RouteAccess.OPERATOR, self._shutdown),
        ]

    async def close(self) -> None:
        """End the streams, and the connections to the processes."""
        self._board.close()
        await self._streams.close()
        if self._session is not None:
            await self._session.close()

    # ---------------------------------------------------------------- reading

    async def _page(self, request: web.Request) -> web.Response:
        return await page_response(request, encode(await self._board.read()))

    async def _status(self, request: web.Request) -> web.Response:
        wanted = wanted_shards(request)
        return await compressed(request, encode(with_shards(await self._board.read(), wanted)), JSON)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        await self._board.read()  # a stream begins with the whole document
        return await self._streams.get(request)

    async def _scrape(self, request: web.Request) -> web.Response:
        """Answer in the format that the client asks for. The shards of a process that does not answer are not ready."""
        accept: dict[str, str] = {hdrs.ACCEPT: request.headers.get(hdrs.ACCEPT, "")}
        answers = await self._ask("/metrics", accept)
        scrapes = [(member.number, one) for member, one in answers if isinstance(one, MemberAnswer)]
        absent = [member for member, one in answers if not isinstance(one, MemberAnswer)]
        body = merge_metrics([(number, one.body.decode()) for number, one in scrapes], absent)
        response = await compressed(request, body, "text/plain")
        response.headers[hdrs.CONTENT_TYPE] = scrapes[0][1].content_type if scrapes else PLAIN_TEXT
        response.headers[hdrs.VARY] = f"{hdrs.ACCEPT}, {hdrs.ACCEPT_ENCODING}"
        return response

    async def _problems(self) -> list[str]:
        """Return why a process is not alive. One that starts, or is started again, is in good hands already."""
        problems = []
        for member, one in await self._ask("/livez"):
            if isinstance(one, MemberAnswer):
                if one.status != HTTPStatus.OK:
                    problems.append(f"{member.name}: a state is past its deadline")
            elif member.url and not member.is_starting():
                problems.append(f"{member.name}: {one}")
        return problems

    async def _ask(
        self, path: str, headers: Mapping[str, str] | None = None
    ) -> list[tuple[Member, MemberAnswer | MemberAbsent]]:
        """Return what each process answers."""

        async def ask(member: Member) -> MemberAnswer | MemberAbsent:
            try:
                return await member.get(path, headers)
            except MemberAbsent as error:
                return error

        answers = await asyncio.gather(*(ask(member) for member in self._members))
        return list(zip(self._members, answers, strict=True))

    # ---------------------------------------------------------------- commands

    async def _command(self, request: web.Request) -> web.Response:
        """Pass a command on to the process that has the shard, and its answer back."""
        shard, verb = int(request.match_info["id"]), request.match_info["verb"]
        if verb in MOVES:
            raise RequestRefused(
                HTTPStatus.CONFLICT,
                f"{verb} has no effect: serve --processes divides the shards among its processes itself; "
                "start processes of their own to move shards between them",
            )
        member = next((one for one in self._members if shard in one.shards), None)
        if member is None:
            ids = sorted(one for every in self._members for one in every.shards)
            raise RequestRefused(
                HTTPStatus.NOT_FOUND,
                f"no process has a shard {shard}; there are {len(ids)}, from {ids[0]} to {ids[-1]}",
            )
        assert self._security is not None  # noqa: S101  # after start()
        body = await read_body(request)
        peer = self._security.client(request).address
        logger.info("Operator command", verb=verb, shard=shard, process=member.number, peer=peer)
        headers = {"Authorization": self._security.sign("POST", request.path, body), hdrs.CONTENT_TYPE: JSON}
        try:
            got = await member.post(request.path, headers, body)
        except MemberAbsent as error:
            raise RequestRefused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{member.name} has shard {shard}, and {error}; nothing was done, try again later",
            ) from error
        return web.Response(status=got.status, body=got.body, content_type=JSON)

    async def _shutdown(self, request: web.Request) -> web.Response:
        """Stop all processes; the answer still goes out."""
        wanted = await read_shutdown(request)
        assert self._security is not None  # noqa: S101  # after start()
        self._stop(wanted.goodbye)
        peer = self._security.client(request).address
        logger.info("Operator command", verb="shutdown", goodbye=wanted.goodbye, peer=peer)
        kept = "the sessions end and the bot goes offline" if wanted.goodbye else "the next start resumes its sessions"
        return answer({"done": f"all {len(self._members)} processes shut down; {kept}"})
