"""Send the commands of the bots to Discord: waiting, not refusing, as Discord's own gateway would."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol

from discorder.clock import Clock
from discorder.errors import CommandRateLimited, CommandRefused, ShardNotReady
from discorder.event_intents import ALL
from discorder.facade.member_requests import AllMembers
from discorder.facade.nonces import Nonces
from discorder.facade.session_id import FacadeSession
from discorder.logs import logger
from discorder.outbound.checks import COMMANDS, STATUSES, as_snowflake, check_command
from discorder.wire import Op, default_members_limit

MOST_JOINED = 10_000  # guilds
MOST_WAITING = 1000  # commands of one session
LINGER_SECONDS = 10.0  # that the commands of a bot may wait after its socket has closed
LOG_AGAIN_SECONDS = 60.0  # between two log lines about the same bot and subject
RETRY_SECONDS = 1.0  # between two attempts while the queue of the shard is full
COMMAND_OPS = frozenset(COMMANDS.values())


class LogLimit:
    """Limits how often the log repeats a line about a bot. ``now``: monotonic seconds. Keys are few: a bot and a kind of line."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._next: dict[Hashable, float] = {}
        self._unlogged: dict[Hashable, int] = {}

    def due(self, *key: Hashable) -> int | None:
        """Return how many lines with this key were left out since the last one; None if this one is left out, too."""
        if self._now() < self._next.get(key, 0.0):
            self._unlogged[key] = self._unlogged.get(key, 0) + 1
            return None
        self._next[key] = self._now() + LOG_AGAIN_SECONDS
        return self._unlogged.pop(key, 0)


SendAgain = Callable[[Sequence[int], str | None], None]  # sequences of chunks of members, and the nonce of the bot


class CommandTarget(Protocol):
    """Sends commands to Discord."""

    async def send(self, op: int, d: Any, *, shard: int | None = None, timeout: float | None = None) -> None:
        """Return once the command is written to the session of ``shard``. Raises `CommandRefused`."""
        ...


class CommandSender:
    """Sends the commands of all sessions. Of several presences of a shard the last one counts, whichever bot sets it."""

    def __init__(self, commands: CommandTarget, clock: Clock) -> None:
        self.nonces = Nonces()
        self.log_limit = LogLimit(clock.monotonic)
        self._commands = commands
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._presences: dict[int, tuple[dict[str, Any], asyncio.Task[None]]] = {}
        self._joined: OrderedDict[int, str] = OrderedDict()  # guild -> the bot that joined a voice channel last

    def monotonic(self) -> float:
        """Return seconds of a clock that is never set."""
        return self._clock.monotonic()

    def send(self, client: str, shard: int, op: int, d: Any) -> asyncio.Task[None]:
        """Begin to send a command; return the task that ends when Discord has it."""
        task = asyncio.create_task(self._send(client, shard, op, d), name="facade-command")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def note_refusal(self, client: str, shard: int, op: int, error: CommandRefused) -> None:
        """Log that a command is dropped, unless many are."""
        others = self.log_limit.due(client, "refused")
        if others is not None:
            logger.warning(
                "A bot sent a command that Discord would ignore or close the connection for; it was dropped",
                client=client,
                shard=shard,
                op=op,
                reason=str(error),
                others=others,
            )

    def show_presence(self, client: str, shard: int, presence: Mapping[str, Any]) -> None:
        """Set the presence of a shard, unless it is shown already, instead of one that waits."""
        d = {**presence, "activities": presence.get("activities") or [], "since": presence.get("since") or None}
        d["status"] = presence.get("status") if presence.get("status") in STATUSES else "online"
        d["afk"] = bool(presence.get("afk"))
        if shard in self._presences:
            shown, task = self._presences[shard]
            if shown == d and not (task.done() and (task.cancelled() or task.exception())):
                return
            task.cancel()
        self._presences[shard] = d, self.send(client, shard, Op.PRESENCE_UPDATE, d)

    def repeat_presences(self) -> None:
        """Send the presences again that are shown: another process of the control plane, with a new session, has none."""
        for shard, (d, task) in list(self._presences.items()):
            if task.done():
                self._presences[shard] = d, self.send("", shard, Op.PRESENCE_UPDATE, d)

    def note_voice(self, client: str, d: Any) -> None:
        """Note which bot joins or leaves a voice channel."""
        guild_id = as_snowflake(d.get("guild_id")) if isinstance(d, Mapping) else None
        if guild_id is None:
            return
        if d.get("channel_id") is None:
            self._joined.pop(guild_id, None)
        else:
            self._joined[guild_id] = client
            if len(self._joined) > MOST_JOINED:
                self._joined.popitem(last=False)

    def leave_voice(self, client: str, shard: int, guild_ids: list[int], *, alone: bool) -> None:
        """Leave the voice channels that an earlier life of ``client`` joined; ``alone``: also those of unknown bots."""
        for guild_id in guild_ids:
            if self._joined.get(guild_id, client if alone else "") == client:
                d = {"guild_id": str(guild_id), "channel_id": None, "self_mute": False, "self_deaf": False}
                self.send(client, shard, Op.VOICE_STATE_UPDATE, d)

    async def close(self) -> None:
        """Drop the commands that wait."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, client: str, shard: int, op: int, d: Any) -> None:
        while True:
            try:
                await self._commands.send(op, d, shard=shard)
            except CommandRateLimited:  # the queue of the shard is full
                await self._clock.sleep(RETRY_SECONDS)
            except ShardNotReady as error:
                logger.debug("A command of a bot was dropped", client=client, op=op, reason=str(error))
                return
            except CommandRefused as error:
                self.note_refusal(client, shard, op, error)
                return
            else:
                if op == Op.REQUEST_GUILD_MEMBERS:
                    self.nonces.members.note_sent(d["nonce"], self._clock.monotonic())
                return


class SessionCommands:
    """The commands of one session, at most `MOST_WAITING` of which wait."""

    def __init__(self, sender: CommandSender, client: str, session: FacadeSession, send_again: SendAgain) -> None:
        self._sender = sender
        self._client = client
        self._session = session
        self._shard = session.shard[0]
        self._send_again = send_again
        self._waiting: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        """Whether as many commands wait as may."""
        return len(self._waiting) >= MOST_WAITING

    async def room(self) -> None:
        """Wait until another command may be taken."""
        while self.is_full:
            await asyncio.wait(self._waiting, return_when=asyncio.FIRST_COMPLETED)

    def take(self, op: int, d: Any) -> None:
        """Send a command as soon as Discord's limits allow."""
        if op == Op.PRESENCE_UPDATE and isinstance(d, Mapping):
            self._sender.show_presence(self._client, self._shard, d)
            return
        asks_members = op == Op.REQUEST_GUILD_MEMBERS and isinstance(d, Mapping)
        usual = _usual(d) if asks_members else d
        try:  # the control plane checks the intents, and the nonce that we send
            check_command(
                op, {key: value for key, value in usual.items() if key != "nonce"} if asks_members else d, ALL
            )
        except CommandRefused as error:
            self._sender.note_refusal(self._client, self._shard, op, error)
            return
        if asks_members:
            question = _all_members(usual, self._session)
            if question is not None and self._join(question, usual):
                return
            d = self._sender.nonces.mark(self._session.tag, usual)
            if question is not None:
                self._sender.nonces.members.begin(question, d["nonce"])
        elif op == Op.VOICE_STATE_UPDATE:
            self._sender.note_voice(self._client, d)
        task = self._sender.send(self._client, self._shard, op, d)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    def _join(self, question: AllMembers, d: Mapping[str, Any]) -> bool:
        """Answer from the chunks of an earlier request; return False if there is none."""
        nonce = d.get("nonce") if isinstance(d.get("nonce"), str) else None
        members = self._sender.nonces.members
        chunks = members.join(question, self._session.tag, nonce, self._sender.monotonic())
        if chunks is None:
            return False
        self._send_again(chunks, nonce)
        return True

    def close(self, clock: Clock) -> None:
        """Give the commands that wait `LINGER_SECONDS` after the end of the connection."""
        left = list(self._waiting)
        if left:
            # no effect on a task that is done
            clock.call_later(LINGER_SECONDS, lambda: [task.cancel() for task in left])


def _all_members(d: Mapping[str, Any], session: FacadeSession) -> AllMembers | None:
    """Return what op 8's ``d`` asks for if it is all members of a guild."""
    if d.get("query") != "" or d.get("limit") or "user_ids" in d:
        return None
    return AllMembers(session.shard[0], session.label, str(d.get("guild_id")), bool(d.get("presences")))


def _usual(d: Mapping[str, Any]) -> dict[str, Any]:
    """Return op 8's ``d`` in the form that the checks take: one guild id, and user ids or a query."""
    usual = {key: value for key, value in d.items() if value is not None}
    guild_id = usual.get("guild_id")
    if isinstance(guild_id, list) and len(guild_id) == 1:  # discordgo
        usual["guild_id"] = guild_id[0]
    if "user_ids" in usual and not usual.get("query"):  # hikari sends an empty query beside them
        usual.pop("query", None)
        usual.pop("limit", None)
    elif isinstance(usual.get("query"), str) and not usual.get("limit"):
        usual["limit"] = default_members_limit(usual["query"])
    return usual
