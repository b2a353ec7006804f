"""Hold the guilds of a simulator, as READY, GUILD_CREATE and REST show them.

Guild 0 is the main guild of the payloads; guild k is its copy with every id of the guild moved up by k << 22, so that
consecutive guilds fall on consecutive shards and every reference inside a guild still resolves.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from discorder import event_intents as intent
from discorder.simulator.payloads import load_payloads

_SNOWFLAKE = re.compile(rb"\d{17,20}")
_STEP = 1 << 22  # the low bits of a snowflake do not take part in sharding (docs/protocol.md#sharding)
_OWNED = ("channels", "threads", "roles", "emojis", "stickers", "stage_instances", "guild_scheduled_events")
_MADE_UP_MEMBERS = 1_346_000_000_000_000_000  # first user id of the members that `members` adds


class World:
    """The guilds. ``guilds``: how many; ``members``: made-up members added to the nine of each.

    ``approved_intents``: the privileged intents that are enabled for the application.
    """

    def __init__(self, guilds: int, members: int, approved_intents: int = intent.PRIVILEGED) -> None:
        payloads = load_payloads()
        self._guild: dict[str, Any] = msgspec.json.decode(payloads["GUILD_CREATE"].data)
        self._ready: dict[str, dict[str, Any]] = {
            name: msgspec.json.decode(payloads[name].data) for name in ("READY", "READY.no_shard_no_guilds")
        }
        for ready in self._ready.values():
            ready["application"]["flags"] = intent.application_flags(approved_intents)
        self._guild["members"] += [_make_up(self._guild["members"][3], number) for number in range(members)]
        self._guild["member_count"] = len(self._guild["members"])
        self._first = int(self._guild["id"])
        self._channels = [int(channel["id"]) for channel in self._guild["channels"] + self._guild["threads"]]
        owned = [item["id"] for key in _OWNED for item in self._guild[key]]
        owned += [sound["sound_id"] for sound in self._guild["soundboard_sounds"]]
        self._owned = frozenset(int(i) for i in [*owned, self._guild["id"]])
        self._encoded: dict[tuple[bool, bool], bytes] = {}
        self.count = guilds
        self.user: dict[str, Any] = self._ready["READY"]["user"]
        self.application: dict[str, Any] = self._ready["READY"]["application"]

    @property
    def members(self) -> list[dict[str, Any]]:
        """Member objects of guild 0; their role ids need `localise` for another guild."""
        members: list[dict[str, Any]] = self._guild["members"]
        return members

    @property
    def bot_member(self) -> dict[str, Any]:
        """The bot's own member object, in guild 0."""
        return self.members[0]

    def guild_id(self, index: int) -> int:
        return self._first + index * _STEP

    def find_guild(self, guild_id: int) -> int | None:
        """Return the index of a guild, None for an unknown id."""
        index, rest = divmod(guild_id - self._first, _STEP)
        return index if rest == 0 and 0 <= index < self.count else None

    def find_channel(self, channel_id: int) -> int | None:
        """Return the index of the guild that a channel or thread belongs to, None for an unknown one."""
        for channel in self._channels:
            index, rest = divmod(channel_id - channel, _STEP)
            if rest == 0 and 0 <= index < self.count:
                return index
        return None

    def shard_of(self, index: int, count: int) -> int:
        """(guild_id >> 22) % num_shards (docs/protocol.md#sharding)."""
        return (self.guild_id(index) >> 22) % count

    def guilds_of(self, shard_id: int, count: int) -> list[int]:
        """Return the indices of the guilds of one shard."""
        start = (shard_id - self.shard_of(0, count)) % count
        return list(range(start, self.count, count))

    def localise(self, data: bytes, index: int) -> bytes:
        """Turn JSON about guild 0 into JSON about guild ``index``."""
        if index == 0:
            return data
        shift = index * _STEP

        def move(match: re.Match[bytes]) -> bytes:
            number = int(match[0])
            return b"%d" % (number + shift) if number in self._owned else match[0]

        return _SNOWFLAKE.sub(move, data)

    def ready(
        self,
        *,
        session_id: str,
        shard: tuple[int, int] | None,
        guilds: list[int],
        version: int,
        resume_url: str,
        sample: str = "READY",
    ) -> bytes:
        """Return ``d`` of a session's READY (docs/protocol.md#ready); every guild is an unavailable stub.

        ``shard`` is echoed only if the client sent one. ``sample``: the name of the payload that it is made from.
        """
        stubs = [{"id": str(self.guild_id(index)), "unavailable": True} for index in guilds]
        ready = {**self._ready[sample], "v": version, "session_id": session_id, "guilds": stubs}
        ready["resume_gateway_url"] = resume_url
        ready.pop("shard", None)
        if shard is not None:
            ready["shard"] = list(shard)
        return msgspec.json.encode(ready)

    def guild_create(self, index: int, *, intents: int, large_threshold: int) -> bytes:
        """Return ``d`` of the GUILD_CREATE of a guild in READY: ``unavailable`` is false (docs/protocol.md#ready)."""
        kind = (bool(intents & intent.GUILD_PRESENCES), len(self.members) > large_threshold)
        if kind not in self._encoded:
            self._encoded[kind] = self._encode_guild(presences=kind[0], large=kind[1])
        data = self._encoded[kind]
        if index:
            name = msgspec.json.encode(self._guild["name"])
            data = data.replace(b'"name":' + name, b'"name":%b %d"' % (name[:-1], index), 1)
        return self.localise(data, index)

    def _encode_guild(self, *, presences: bool, large: bool) -> bytes:
        guild = {**self._guild, "large": large}
        if not presences:  # only the bot and who is in voice (docs/protocol.md#ready)
            seen = {self.user["id"]} | {state["user_id"] for state in guild["voice_states"]}
            guild["members"] = [member for member in guild["members"] if member["user"]["id"] in seen]
            guild["presences"] = []
        return msgspec.json.encode(guild)

    def guild(self, index: int) -> bytes:
        """Return the guild as ``GET /guilds/{id}`` shows it."""
        gateway_only = {"joined_at", "large", "unavailable", "lazy", "members", "channels", "threads", "presences"}
        gateway_only |= {"voice_states", "stage_instances", "guild_scheduled_events", "soundboard_sounds"}
        guild = {key: value for key, value in self._guild.items() if key not in gateway_only}
        return self.localise(msgspec.json.encode(guild), index)

    def channel(self, channel_id: int) -> bytes | None:
        """Return a channel or thread as ``GET /channels/{id}`` shows it, None for an unknown one."""
        index = self.find_channel(channel_id)
        if index is None:
            return None
        original = str(channel_id - index * _STEP)
        for channel in self._guild["channels"] + self._guild["threads"]:
            if channel["id"] == original:
                return self.localise(msgspec.json.encode({**channel, "guild_id": self._guild["id"]}), index)
        return None


def _make_up(pattern: dict[str, Any], number: int) -> dict[str, Any]:
    user = {
        **pattern["user"],
        "id": str(_MADE_UP_MEMBERS + number),
        "username": f"made_up_{number}",
        "global_name": None,
    }
    return {**pattern, "user": user}
