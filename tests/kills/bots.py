"""Bots behind the façade while the control plane is killed: what they get must be the stream, or op 9 must say that it is not."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec

from discorder.config import load_config
from discorder.facade.clients import make_token
from discorder.simulator import Simulator
from discorder.wire import Op
from tests.endurance.process import ChildProcess
from tests.ports import free_port

BOT_ID = 1345187989315256333
LONGEST_CONNECTION = 1.5  # seconds until a bot cuts its connection
HEARTBEAT_SECONDS = 0.1  # so that what is acknowledged is little behind
AGAIN_SECONDS = 0.1  # until the next dial, while nobody listens or a connection was cut
SHORTEST_LIFE, LONGEST_LIFE = 1.0, 8.0  # seconds, of a façade of its own
KILLED_WITHIN = 60.0  # for the first time
ALL_LINES = 1_000_000
AWAY_TOO_LONG = "away for longer than its events are kept"  # in the log
NO_SESSION = "op 9"  # among the events of a bot
NEW_SESSION = "READY"
WATCHED = "MESSAGE_CREATE"  # the simulator gives each an id of its own


class _Frame(msgspec.Struct):
    op: int
    d: msgspec.Raw
    s: int | None = None
    t: str | None = None


class _Ready(msgspec.Struct):
    session_id: str


class _Message(msgspec.Struct):
    id: str


_frame = msgspec.json.Decoder(_Frame).decode


class Bot:
    """Connects again and again, until it is stopped.

    ``forgets``: it begins each connection with IDENTIFY, as a bot that was killed does; otherwise with RESUME if it can.
    ``got``: ids of messages, `NO_SESSION` and `NEW_SESSION`, in their order.
    """

    def __init__(self, url: str, token: str, intents: int, *, forgets: bool, rng: random.Random) -> None:
        self.got: list[str] = []
        self.forgets = forgets
        self._url = url
        self._token = token
        self._intents = intents
        self._rng = rng
        self._session_id: str | None = None
        self._seq: int | None = None
        self._task = asyncio.create_task(self._run(), name="bot")

    def __str__(self) -> str:
        return "the bot that forgets" if self.forgets else "the bot that resumes"

    @property
    def newest(self) -> str:
        """The last message."""
        return next((one for one in reversed(self.got) if one not in {NO_SESSION, NEW_SESSION}), "")

    @property
    def told(self) -> bool:
        """Whether op 9 came after the last message: what was in its socket before may be lost."""
        return next((one == NO_SESSION for one in reversed(self.got) if one != NEW_SESSION), False)

    async def stop(self) -> None:
        """Cut its connection and let it end. Raises what has ended it before."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        async with aiohttp.ClientSession() as http:
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with http.ws_connect(self._url, max_msg_size=0, autoping=False) as websocket:
                        async with asyncio.timeout(self._rng.uniform(0.05, LONGEST_CONNECTION)):
                            await self._talk(websocket)
                await asyncio.sleep(AGAIN_SECONDS)

    async def _talk(self, websocket: aiohttp.ClientWebSocketResponse) -> None:
        beating: asyncio.Task[None] | None = None
        try:
            async for message in websocket:
                frame = _frame(message.data)
                match frame.op:
                    case Op.HELLO:
                        await self._open(websocket)
                        beating = asyncio.create_task(self._beat(websocket))
                    case Op.DISPATCH:
                        self._take(frame)
                    case Op.INVALID_SESSION:
                        self.got.append(NO_SESSION)
                        self._session_id = None
                        await self._open(websocket)
                    case Op.RECONNECT:
                        return
        finally:
            if beating is not None:
                beating.cancel()

    async def _open(self, websocket: aiohttp.ClientWebSocketResponse) -> None:
        if self._session_id is not None and not self.forgets:
            await _send(websocket, Op.RESUME, {"token": self._token, "session_id": self._session_id, "seq": self._seq})
            return
        self._seq = None
        d = {"token": self._token, "intents": self._intents, "properties": {"browser": "kills"}, "shard": [0, 1]}
        await _send(websocket, Op.IDENTIFY, d)

    async def _beat(self, websocket: aiohttp.ClientWebSocketResponse) -> None:
        with contextlib.suppress(ConnectionError):  # the reader sees the end
            while True:
                await asyncio.sleep(HEARTBEAT_SECONDS)
                await _send(websocket, Op.HEARTBEAT, self._seq)

    def _take(self, frame: _Frame) -> None:
        self._seq = frame.s
        if frame.t == "READY":
            self.got.append(NEW_SESSION)
            self._session_id = msgspec.json.decode(frame.d, type=_Ready).session_id
        elif frame.t == WATCHED:
            self.got.append(msgspec.json.decode(frame.d, type=_Message).id)


async def _send(websocket: aiohttp.ClientWebSocketResponse, op: int, d: object) -> None:
    await websocket.send_bytes(msgspec.json.encode({"op": op, "d": d}))


class Bots:
    """Two bots of one façade: one that resumes, and one that forgets its sessions.

    ``apart``: the façade is a process of its own, which is killed from time to time.
    """

    def __init__(self, folder: Path, sim: Simulator, *, apart: bool) -> None:
        self.all: list[Bot] = []
        self.kills = 0  # of a façade of its own
        self.bus = f"ipc://{folder}/bus" if apart else None
        self._spared, self._killed = asyncio.Event(), asyncio.Event()
        self._facade: ChildProcess | None = None
        self._killing: asyncio.Task[None] | None = None
        if apart:
            self._facade = ChildProcess(folder / "facade.log", {"DISCORD_BOT_TOKEN": sim.token, "NO_COLOR": "1"})
        self._tokens = {name: make_token(BOT_ID) for name in ("resumes", "forgets")}
        for name, token in self._tokens.items():
            (folder / f"{name}.token").write_text(token)
            (folder / f"{name}.token").chmod(0o600)
        self._address = f"127.0.0.1:{free_port()}"
        clients = "".join(
            f'[facade.clients.{name}]\ntoken_file = "{folder}/{name}.token"\ncatch_up = 3600\ncatch_up_from = "{source}"\n'
            for name, source in (("resumes", "written"), ("forgets", "heartbeat"))
        )
        bind = "" if apart else f'bind = "{self._address}"\n'
        self.config = f"{bind}{clients}"  # of the section [facade]

    def start(self, config: Path, rng: random.Random) -> None:
        """Let them connect. ``config``: the file of the control plane."""
        if self._facade is not None:
            self._killing = asyncio.create_task(self._kill_again_and_again(self._facade, config, rng), name="facade")
        intents = load_config(config, publishers=False).gateway.intents_value
        for name, token in self._tokens.items():
            self.all.append(Bot(f"ws://{self._address}", token, intents, forgets=name == "forgets", rng=rng))

    async def stop(self) -> None:
        """Let none of them run on."""
        for bot in self.all:
            await bot.stop()
        if self._killing is not None:
            self._killing.cancel()
            await asyncio.wait([self._killing])
        if self._facade is not None:
            await self._facade.clean_up()

    async def spare_facade(self) -> None:
        """Let a façade of its own live from now on, once it was killed for the first time. Raises TimeoutError."""
        if self._facade is not None:
            async with asyncio.timeout(KILLED_WITHIN):
                await self._killed.wait()
        self._spared.set()

    async def _kill_again_and_again(self, facade: ChildProcess, config: Path, rng: random.Random) -> None:
        spared = False
        while not spared:
            command = ("-m", "discorder", "facade", "-c", str(config), "--bus", f"{self.bus}", "--bind", self._address)
            await facade.begin(command)
            try:
                async with asyncio.timeout(rng.uniform(SHORTEST_LIFE, LONGEST_LIFE)):
                    spared = await self._spared.wait()
            except TimeoutError:
                self.kills += await facade.kill() == -signal.SIGKILL
                self._killed.set()

    def faults(self, sim: Simulator, plane_log: str) -> list[str]:
        """Return what is wrong with what they got. ``plane_log``: what the control plane has said."""
        log = plane_log if self._facade is None else self._facade.said(ALL_LINES)
        sent, faults = _messages(sim), list[str]()
        for bot in self.all:
            judged = _judge(bot, sent)
            faults += judged.faults
            said = log.count(AWAY_TOO_LONG) if bot.forgets else 0
            if judged.too_late > said:
                faults.append(
                    f"{bot}: messages are missing {judged.too_late} times after READY, and the log says so {said} times"
                )
        return faults

    def up_to_date(self, sim: Simulator) -> bool:
        """Return whether each has the last message, or was told that it may miss some."""
        last = _messages(sim)[-1:]
        return all([bot.newest] == last or bot.told for bot in self.all)


def _messages(sim: Simulator) -> list[str]:
    """Return the ids of all messages. One may have been sent in two sessions: in one that is lost, and in the one after it."""
    sent = (one.data for one in sim.sent_documents if one.type == WATCHED)
    return list(dict.fromkeys(msgspec.json.decode(data, type=_Message).id for data in sent))


@dataclass(slots=True)
class _Judged:
    """``too_late``: how often messages were missing after READY, since they were not kept any more."""

    faults: list[str] = field(default_factory=list)
    too_late: int = 0


def _judge(bot: Bot, sent: Sequence[str]) -> _Judged:
    """Each message must be the one after the last; after an IDENTIFY it may be an earlier one, after op 9 any."""
    places = {message: place for place, message in enumerate(sent)}
    judged = _Judged()
    last: int | None = None
    again = False
    for one in bot.got:
        if one == NO_SESSION:
            last = None
        elif one == NEW_SESSION:
            again = True
        elif one not in places:
            judged.faults.append(f"{bot} got a message that was never sent: {one}")
        else:
            place = places[one]
            if last is not None and place > last + 1 and again:
                judged.too_late += 1
            elif last is not None and (place > last + 1 or (place <= last and not again)):
                what = f"{place - last - 1} messages are missing" if place > last else "a message came again"
                judged.faults.append(f"{bot}: after message {last} of {len(sent)}, {what}")
            last, again = place, False
    if not places or (bot.newest != sent[-1] and not bot.told):
        judged.faults.append(f"{bot} has not got the last message")
    return judged
