"""Generate the events of the simulated guilds from the sample payloads, and pace them."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from discorder import event_intents as intent
from discorder.clock import Clock
from discorder.simulator.payloads import load_payloads
from discorder.simulator.world import World

TICK = 0.005  # seconds: the shortest sleep; events due within one tick happen together
CATCH_UP = 1.0  # seconds: events overdue by more than this, after a pause of the process, are dropped
DISCORD_EPOCH_MS = 1_420_070_400_000  # 2015-01-01, where snowflakes start counting
_REMEMBERED = 50  # messages per guild that edits, reactions and deletions can refer to
_PHRASES = ("hello world", "has anybody seen my socket?", "résumé sent 📨", "brb", "日本語もどうぞ", "ship it", "+1")
_STATUSES = ("online", "idle", "dnd", "offline")
_EMOJIS = ("🔥", "👍", "🎉", "👀")


@dataclass(frozen=True, slots=True)
class WorldEvent:
    """One event of the world. ``guild`` is an index, None for a direct message."""

    type: str
    guild: int | None
    data: bytes
    redacted: bytes | None = None

    def visible_data(self, intents: int) -> bytes:
        """Return ``data``, without the contents of a message if MESSAGE_CONTENT is missing (docs/protocol.md#intents)."""
        return self.data if self.redacted is None or intents & intent.MESSAGE_CONTENT else self.redacted


class Snowflakes:
    """Generates ids: strictly growing, with the clock's time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0

    def next(self) -> str:
        milliseconds = int(self._clock.now().timestamp() * 1000) - DISCORD_EPOCH_MS
        self._last = max(self._last + 1, milliseconds << 22)
        return str(self._last)


class LiveStream:
    """Generates events without end, the same for the same seed except ids and times."""

    def __init__(self, world: World, clock: Clock, snowflakes: Snowflakes, seed: int) -> None:
        self._world = world
        self._clock = clock
        self._snowflakes = snowflakes
        self._random = random.Random(seed)
        self._number = itertools.count(1)
        self._messages: dict[int, deque[dict[str, Any]]] = {}
        self._people = [member for member in world.members[:9] if not member["user"].get("bot")]
        self._samples: dict[str, dict[str, Any]] = {
            name: msgspec.json.decode(payload.data) for name, payload in load_payloads().items()
        }
        kinds: list[tuple[int, Callable[[int], WorldEvent]]] = [
            (40, self._message),
            (16, self._typing),
            (12, self._presence),
            (10, self._reaction_add),
            (6, self._message_update),
            (4, self._message_delete),
            (3, self._reaction_remove),
            (3, self._member_update),
            (2, self._voice_state),
            (2, self._direct_message),
            (1, lambda guild: self._verbatim("WEBHOOKS_UPDATE", guild)),
            (1, lambda guild: self._verbatim("GUILD_EMOJIS_UPDATE", guild)),
            (1, lambda guild: self._verbatim("VOICE_CHANNEL_STATUS_UPDATE", guild)),
        ]
        self._kinds = [kind for _, kind in kinds]
        self._weights = list(itertools.accumulate(weight for weight, _ in kinds))

    def next(self) -> WorldEvent:
        """Return the next event, in a random guild. There must be a guild."""
        guild = self._random.randrange(self._world.count)
        kind = self._random.choices(self._kinds, cum_weights=self._weights)[0]
        return kind(guild)

    def new_id(self) -> str:
        """Return a new snowflake."""
        return self._snowflakes.next()

    def compose(self, guild: int | None, changes: dict[str, Any]) -> WorldEvent:
        """Return a MESSAGE_CREATE by the bot; ``changes`` are keys of its message object."""
        sample = self._samples["MESSAGE_CREATE" if guild is not None else "MESSAGE_CREATE.dm"]
        message = {**sample, "author": self._world.user, **self._fresh()}
        if guild is not None:
            message["member"] = _without_user(self._world.bot_member)
        data = self._world.localise(msgspec.json.encode(message), guild or 0)
        message = {**msgspec.json.decode(data), **changes}
        return WorldEvent("MESSAGE_CREATE", guild, msgspec.json.encode(message))

    def _fresh(self) -> dict[str, Any]:
        number = self._snowflakes.next()
        now = self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")
        return {"id": number, "timestamp": now, "nonce": number}

    def _event(self, event_type: str, guild: int, document: dict[str, Any]) -> WorldEvent:
        return WorldEvent(event_type, guild, self._world.localise(msgspec.json.encode(document), guild))

    def _verbatim(self, name: str, guild: int) -> WorldEvent:
        return self._event(name, guild, self._samples[name])

    def _message_event(self, event_type: str, guild: int, message: dict[str, Any]) -> WorldEvent:
        blank = {**message, "content": "", "embeds": [], "attachments": [], "components": []}
        redacted = self._world.localise(msgspec.json.encode(blank), guild)
        return WorldEvent(event_type, guild, self._world.localise(msgspec.json.encode(message), guild), redacted)

    def _message(self, guild: int) -> WorldEvent:
        person = self._random.choice(self._people)
        content = f"{self._random.choice(_PHRASES)} ({next(self._number)})"
        message = {**self._samples["MESSAGE_CREATE"], **self._fresh(), "author": person["user"], "content": content}
        message["member"] = _without_user(person)
        self._messages.setdefault(guild, deque(maxlen=_REMEMBERED)).append(message)
        return self._message_event("MESSAGE_CREATE", guild, message)

    def _message_update(self, guild: int) -> WorldEvent:
        known = self._messages.get(guild)
        if not known:
            return self._message(guild)
        message = self._random.choice(known)
        edited = {
            **message,
            "content": f"{message['content']} (edited)",
            "edited_timestamp": self._fresh()["timestamp"],
        }
        return self._message_event("MESSAGE_UPDATE", guild, edited)

    def _message_delete(self, guild: int) -> WorldEvent:
        known = self._messages.get(guild)
        if not known:
            return self._message(guild)
        message = known.popleft()
        return self._event("MESSAGE_DELETE", guild, {**self._samples["MESSAGE_DELETE"], "id": message["id"]})

    def _reaction_add(self, guild: int) -> WorldEvent:
        known = self._messages.get(guild)
        if not known:
            return self._message(guild)
        message, person = self._random.choice(known), self._random.choice(self._people)
        author = message["author"]["id"]
        changes = {"user_id": person["user"]["id"], "message_id": message["id"], "message_author_id": author}
        changes |= {"member": person, "emoji": {"id": None, "name": self._random.choice(_EMOJIS)}}
        return self._event("MESSAGE_REACTION_ADD", guild, self._samples["MESSAGE_REACTION_ADD"] | changes)

    def _reaction_remove(self, guild: int) -> WorldEvent:
        known = self._messages.get(guild)
        if not known:
            return self._message(guild)
        message, person = self._random.choice(known), self._random.choice(self._people)
        changes = {"user_id": person["user"]["id"], "message_id": message["id"]}
        changes["emoji"] = {"id": None, "name": self._random.choice(_EMOJIS)}
        return self._event("MESSAGE_REACTION_REMOVE", guild, self._samples["MESSAGE_REACTION_REMOVE"] | changes)

    def _typing(self, guild: int) -> WorldEvent:
        person = self._random.choice(self._people)
        changes = {"user_id": person["user"]["id"], "member": person, "timestamp": int(self._clock.now().timestamp())}
        return self._event("TYPING_START", guild, self._samples["TYPING_START"] | changes)

    def _presence(self, guild: int) -> WorldEvent:
        person, status = self._random.choice(self._people), self._random.choice(_STATUSES)
        client_status = {} if status == "offline" else {"desktop": status}
        changes = {"user": {"id": person["user"]["id"]}, "status": status, "client_status": client_status}
        changes["activities"] = []
        return self._event("PRESENCE_UPDATE", guild, self._samples["PRESENCE_UPDATE"] | changes)

    def _member_update(self, guild: int) -> WorldEvent:
        person = self._random.choice(self._people)
        nick = f"{person['user']['username']} {next(self._number)}"
        document = {**person, "nick": nick, "guild_id": self._samples["GUILD_MEMBER_UPDATE"]["guild_id"]}
        return self._event("GUILD_MEMBER_UPDATE", guild, document)

    def _voice_state(self, guild: int) -> WorldEvent:
        changes = {"self_mute": self._random.random() < 0.5, "self_deaf": self._random.random() < 0.5}
        return self._event("VOICE_STATE_UPDATE", guild, self._samples["VOICE_STATE_UPDATE"] | changes)

    def _direct_message(self, _guild: int) -> WorldEvent:
        message = {**self._samples["MESSAGE_CREATE.dm"], **self._fresh(), "content": self._random.choice(_PHRASES)}
        return WorldEvent("MESSAGE_CREATE", None, msgspec.json.encode(message))


def _without_user(member: dict[str, Any]) -> dict[str, Any]:
    """The ``member`` of a message has no ``user``."""
    return {key: value for key, value in member.items() if key != "user"}


async def pace(clock: Clock, rate: float, happen: Callable[[], None]) -> None:
    """Call ``happen`` ``rate`` times a second, for ever."""
    interval = 1 / rate
    due = clock.monotonic() + interval
    while True:
        await clock.sleep(max(TICK, due - clock.monotonic()))
        now = clock.monotonic()
        due = max(due, now - CATCH_UP)
        while due <= now:
            happen()
            due += interval
