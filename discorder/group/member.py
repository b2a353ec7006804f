"""Reach the HTTP server of one process of the group, on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import aiohttp

from discorder.status.document import Moment, moment

ANSWER_SECONDS = 1.0  # until a process counts as one that does not answer; commands wait two seconds for the whole
COMMAND_SECONDS = 1.8  # for a command, which may wait for the disk
SILENCE_SECONDS = 3.0  # of an event stream, which sends something each second
LONGEST_LINE = 4 * 1024 * 1024  # bytes of an event; a document of 500 shards has a quarter of a megabyte


class MemberAbsent(Exception):
    """A process does not answer. Carries a sentence."""


@dataclass(frozen=True, slots=True)
class MemberAnswer:
    """The answer of one process."""

    status: int
    content_type: str
    body: bytes


@dataclass
class Member:
    """One process of the group. ``url``: of its HTTP server, "" while it does not run.

    ``is_starting`` returns whether it has not been ready since it began. ``problem``: why it does not run.
    ``again_at``: when it is started again. ``stops``: it was asked to end.
    """

    number: int
    shards: tuple[int, ...]
    is_starting: Callable[[], bool]
    url: str = ""
    pid: int | None = None
    problem: str = ""
    again_at: Moment | None = None
    stops: bool = False
    session: aiohttp.ClientSession | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """How sentences name it."""
        return f"process {self.number}"

    def started(self, url: str, pid: int) -> None:
        """Note that the process runs, with its HTTP server at ``url``."""
        self.url, self.pid, self.problem, self.again_at = url, pid, "", None

    def ended(self, problem: str) -> None:
        """Note that the process has ended, and why."""
        self.url, self.pid, self.problem = "", None, problem

    def waits(self, seconds: float) -> None:
        """Note that the process is started again in ``seconds``."""
        self.again_at = moment(datetime.now(UTC) + timedelta(seconds=seconds))

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> MemberAnswer:
        """Return the answer to GET. Raises `MemberAbsent`."""
        return await self._request("GET", path, headers, b"", ANSWER_SECONDS)

    async def post(self, path: str, headers: Mapping[str, str], body: bytes) -> MemberAnswer:
        """Return the answer to POST. Raises `MemberAbsent`."""
        return await self._request("POST", path, headers, body, COMMAND_SECONDS)

    async def events(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield name and data of each event. Raises `MemberAbsent` at the end, and when none comes."""
        session = self._session()
        limit = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_SECONDS, sock_read=SILENCE_SECONDS)
        try:
            async with session.get(f"{self.url}/events", timeout=limit, read_bufsize=LONGEST_LINE) as response:
                name = ""
                async for line in response.content:
                    key, _, value = line.rstrip(b"\n").partition(b": ")
                    if key == b"event":
                        name = value.decode()
                    elif key == b"data":
                        yield name, value
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise MemberAbsent(self._absence()) from error
        raise MemberAbsent(self._absence())

    async def _request(
        self, method: str, path: str, headers: Mapping[str, str] | None, body: bytes, seconds: float
    ) -> MemberAnswer:
        session = self._session()
        try:
            async with (
                asyncio.timeout(seconds),
                session.request(method, f"{self.url}{path}", headers=headers, data=body or None) as response,
            ):
                return MemberAnswer(response.status, response.headers.get("Content-Type", ""), await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise MemberAbsent(self._absence()) from error

    def _session(self) -> aiohttp.ClientSession:
        if self.session is None or not self.url:
            raise MemberAbsent(self._absence())
        return self.session

    def _absence(self) -> str:
        if not self.url:
            return f"it does not run{f': {self.problem}' if self.problem else ''}"
        return "it starts" if self.is_starting() else "it does not answer"
