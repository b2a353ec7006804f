"""Sends requests to a control plane as NATS requests, to the subject that its publisher listens at."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from nats.aio.msg import Msg

from discorder.bot.nats.address import NatsAddress
from discorder.bot.nats.link import FAILURES, ApiError, Link, dial
from discorder.bot.nats.source import missing
from discorder.bot.nats.streams import find_stream
from discorder.errors import CommandRefused, ConfigError, DiscorderError, PublisherUnreachable
from discorder.nats_access import command_subject

VERSION = 1
AGAIN_EVERY = 0.25  # seconds before the next attempt, while nobody listens
OTHERS = 0.3  # seconds in which another process of the same bot may answer, which has the shard
NOBODY = "503"  # the status of a request without a listener

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class _Nobody(Exception):
    """Nobody has got the request, so it can be sent again."""


class NatsRequests:
    """See `Requests`. The connection is made at the first request and kept; a request is never sent twice."""

    def __init__(self, address: str) -> None:
        self._address = NatsAddress.parse(address)
        self._link: Link | None = None
        self._subject = command_subject(self._address.prefix) if self._address.prefix else ""
        self._inbox = ""
        self._ids = itertools.count(1)
        self._answers: asyncio.Queue[Msg | None] = asyncio.Queue()  # None: the connection is lost

    async def ask(self, op: str, fields: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """See `Requests`."""
        deadline, why = time.monotonic() + seconds, ""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        return await self._ask(op, fields, deadline)
                    except (_Nobody, PublisherUnreachable, ApiError) as error:
                        why = str(error)
                    except ConfigError as error:
                        raise CommandRefused("no_answer", str(error)) from None
                    await asyncio.sleep(AGAIN_EVERY)
        except TimeoutError:
            why = why or f"nobody answers at {self._subject or self._address.shown}"
            msg = f"no answer within {seconds:g} s: {why}; does the control plane run, with publishers.nats.commands = true?"
            raise CommandRefused("no_answer", msg) from None

    async def aclose(self) -> None:
        """See `Requests`."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _ask(self, op: str, fields: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        link = await self._connected()
        if not self._subject:
            try:
                stream = await find_stream(link, self._address)
            except FAILURES as error:
                raise _Nobody(str(error) or "no answer of JetStream") from None
            except DiscorderError as error:
                raise CommandRefused("no_answer", str(error)) from None
            if stream is None:
                raise _Nobody(missing(self._address))
            self._subject = command_subject(stream.prefix)
        reply = f"{self._inbox}.{next(self._ids)}"
        document = msgspec.json.encode({"v": VERSION, "id": 1, "op": op, **fields})
        try:
            await link.client.publish(self._subject, document, reply)
        except FAILURES as error:
            raise _Nobody(str(error)) from None
        return await self._best_answer(reply, deadline, OTHERS + fields.get("wait_s", 0.0))

    async def _best_answer(self, reply: str, deadline: float, others: float) -> dict[str, Any]:
        """Return the answer of the process that has the shard: each process of the bot gets the request.

        ``others``: seconds in which it may answer after one that has not.
        """
        refusal: dict[str, Any] | None = None
        while True:
            left = max(0.0, deadline - time.monotonic())
            if refusal is not None:
                left = min(left, others)
            try:
                async with asyncio.timeout(left):
                    message = await self._answers.get()
            except TimeoutError:
                if refusal is None:
                    raise
                return refusal
            if message is None:
                msg = f"the connection to {self._address.shown} was lost; the command may have been sent"
                raise CommandRefused("no_answer", msg)
            if message.subject != reply:
                continue  # of a request that was given up
            if (message.headers or {}).get("Status") == NOBODY:
                raise _Nobody(f"nobody listens at {self._subject}")
            answer = self._decoded(message)
            if answer.get("error") not in {"no_such_shard", "not_ready"}:
                return answer
            refusal = answer if refusal is None or answer.get("error") == "not_ready" else refusal

    def _decoded(self, message: Msg) -> dict[str, Any]:
        try:
            return _decode(message.data)
        except ValueError as error:
            msg = f"something else than a control plane answers at {self._subject}: {error}"
            raise CommandRefused("no_answer", msg) from error

    async def _connected(self) -> Link:
        link = self._link
        if link is not None and not link.client.is_closed:
            return link
        await self.aclose()
        self._answers = asyncio.Queue()
        answers = self._answers
        link = await dial(self._address.access, lambda: answers.put_nowait(None))
        self._inbox = link.client.new_inbox()
        await link.client.subscribe(f"{self._inbox}.*", cb=answers.put)
        self._link = link
        return link
