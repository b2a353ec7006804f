"""Answer the commands that bots send as NATS requests, as the ROUTER of the bus does. It has a connection of its own."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from nats.aio.msg import Msg

from discorder.errors import ConfigError, PublisherUnreachable
from discorder.nats_access import ServerAccess, command_subject
from discorder.nats_client import FAILURES
from discorder.publishers.nats.connection import Connection, connect
from discorder.publishers.protocol import BusApi
from discorder.publishers.zeromq.protocol import (
    MAX_REQUEST_BYTES,
    BadRequest,
    CommandRequest,
    Frames,
    ReadyRequest,
    Request,
    parse,
    refusal,
)
from discorder.publishers.zeromq.running_commands import RunningCommands

FIRST_PAUSE = 0.1  # seconds before the next attempt to connect; doubled after each
LONGEST_PAUSE = 5.0
LOOK_EVERY = 1.0  # seconds between two looks whether the connection is lost

logger = logging.getLogger(__name__)


class CommandListener:
    """Takes requests at ``PREFIX.command`` from `start` to `stop`, through every loss of the connection."""

    def __init__(self, access: ServerAccess, prefix: str, bus_api: BusApi) -> None:
        self._access = access
        self._subject = command_subject(prefix)
        self._bus_api = bus_api
        self._commands = RunningCommands(bus_api)
        self._task: asyncio.Task[None] | None = None
        self._answers: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to listen, now or as soon as there is a server."""
        self._task = asyncio.create_task(self._run(), name="nats commands")

    async def stop(self) -> None:
        """Stop listening. Commands that were not sent to Discord are dropped."""
        tasks = [task for task in (self._task, *self._answers) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._commands.stop()

    async def _run(self) -> None:
        reason, pause = "", FIRST_PAUSE
        while True:
            try:
                connection = await connect(self._access)
            except (PublisherUnreachable, ConfigError) as error:
                why = str(error)
            else:
                if reason:
                    logger.info("NATS: commands are taken again at %s", self._subject)
                reason, pause = "", FIRST_PAUSE
                why = await self._listen(connection)
            if why != reason:
                logger.warning("NATS: no commands are taken at %s (%s); trying again", self._subject, why)
            reason = why
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _listen(self, connection: Connection) -> str:
        """Answer until the connection ends; return why it did."""
        try:
            await connection.client.subscribe(self._subject, cb=partial(self._take, connection))
            while not connection.is_spent:  # noqa: ASYNC110  # the connection tells only the one who waits for an answer
                await asyncio.sleep(LOOK_EVERY)
        except FAILURES as error:
            return str(error)
        finally:
            await connection.close()
        return "the connection was lost"

    async def _take(self, connection: Connection, message: Msg) -> None:
        if not message.reply:
            return  # nobody wants to know what comes of it: not a request
        try:
            if len(message.data) > MAX_REQUEST_BYTES:
                msg = f"a request has at most {MAX_REQUEST_BYTES} bytes, this one has {len(message.data)}"
                raise BadRequest(msg)
            self._serve(connection, message, parse([message.data]))
        except BadRequest as error:
            self._answer(connection, message.reply, refusal(error.id, error.error, str(error)))

    def _serve(self, connection: Connection, message: Msg, request: Request) -> None:
        send = partial(self._answer, connection, message.reply)
        match request:
            case CommandRequest():
                client = message.reply.rpartition(".")[
                    0
                ]  # NATS does not say who asks; a client has an inbox of its own
                self._commands.begin(client, request, send)
            case ReadyRequest():
                ready = self._bus_api.last_ready(request.shard)
                if ready is None:
                    text = f"shard {request.shard} had no READY yet, or is not here"
                    send(refusal(request.id_frame, "not_ready", text))
                else:
                    send((request.id_frame, b"", b'{"ok":true,"ready":%b}' % ready.document))
            case _:
                msg = "over NATS the operations are command and ready; for the others connect to the bus of ZeroMQ"
                raise BadRequest(msg, id=request.id_frame)

    def _answer(self, connection: Connection, reply: str, frames: Frames) -> None:
        task = asyncio.create_task(self._publish(connection, reply, frames[-1]), name="nats answer")
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _publish(self, connection: Connection, reply: str, document: bytes) -> None:
        try:
            await connection.client.publish(reply, document)
        except FAILURES as error:
            logger.warning("NATS: the answer to a command was not sent: %s", error)
