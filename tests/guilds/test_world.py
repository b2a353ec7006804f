"""Folding the events of a random world gives the guilds that Discord would send now."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from discorder.guilds import GuildsSnapshot, ShardGuilds, unpack
from tests.guilds.world import ACTIONS, BOT, Guild, comparable, new_guild

IDS = (1000, 2000)
LARGE = 2000


@dataclass
class Stage:
    """A model world beside the state that is folded from its events."""

    state: ShardGuilds = field(default_factory=ShardGuilds)
    guilds: dict[int, Guild | None] = field(default_factory=dict)
    kept: list[tuple[GuildsSnapshot, dict[int, Any]]] = field(default_factory=list)

    def send(self, kind: str, d: Any) -> None:
        self.state.apply("session", kind, msgspec.json.encode(d))

    def begin(self) -> None:
        stubs = [{"id": str(i), "unavailable": True} for i in IDS]
        self.send("READY", {"user": {"id": str(BOT)}, "guilds": stubs, "session_id": "x"})
        self.guilds = dict.fromkeys(IDS)
        for guild_id in IDS:
            self.appear(guild_id)

    def appear(self, guild_id: int) -> None:
        guild = self.guilds[guild_id] = new_guild(guild_id, large=guild_id == LARGE)
        self.send("GUILD_CREATE", guild.create())

    def step(self, action: int, a: int, b: int) -> None:
        """Let one thing happen. Beside the actions of the world: outages, freezes, a restart from packed bytes."""
        guild_id = IDS[a % 2]
        guild = self.guilds.get(guild_id)
        if action < len(ACTIONS):
            if guild is not None:
                for kind, d in ACTIONS[action](guild, a // 2, b):
                    self.send(kind, d)
        elif action == len(ACTIONS):
            self.kept.append((self.frozen(), self.expected()))
        elif action == len(ACTIONS) + 1:
            packed = list(self.frozen().pack())
            self.state = ShardGuilds()
            self.state.load(packed)
        elif guild is None:
            self.appear(guild_id)
        elif b % 3 == 0:
            self.guilds[guild_id] = None
            self.send("GUILD_DELETE", {"id": str(guild_id), "unavailable": True})
        elif b % 3 == 1:
            del self.guilds[guild_id]
            self.send("GUILD_DELETE", {"id": str(guild_id)})
        else:
            self.send("GUILD_CREATE", guild.create())

    def frozen(self) -> GuildsSnapshot:
        snapshot = self.state.freeze()
        assert snapshot is not None
        return snapshot

    def expected(self) -> dict[int, Any]:
        return {i: None if guild is None else comparable(guild.create()) for i, guild in self.guilds.items()}


def shown(snapshot: GuildsSnapshot) -> dict[int, Any]:
    documents = dict.fromkeys(snapshot.guild_ids)
    for guild_id in snapshot.states:
        document = snapshot.document(guild_id)
        assert unpack(snapshot.packed(guild_id)) == document
        documents[guild_id] = comparable(msgspec.json.decode(document))
    return documents


def steps_of(text: bytes) -> list[tuple[int, int, int]]:
    """Return a step for every three bytes: hypothesis makes bytes much faster than tuples."""
    return [(text[i] % (len(ACTIONS) + 3), text[i + 1] % 16, text[i + 2] % 16) for i in range(0, len(text) - 2, 3)]


@given(st.binary(max_size=180))
def test_the_guilds_are_those_that_discord_would_send_after_each_event(text: bytes) -> None:
    stage = Stage()
    stage.begin()
    for step in steps_of(text):
        stage.step(*step)
        assert shown(stage.frozen()) == stage.expected()
    assert stage.state.oddities == 0
    in_voice = [i for i, guild in stage.guilds.items() if guild is not None and BOT in guild.lists["voice_states"]]
    assert sorted(stage.frozen().voice_guilds()) == sorted(in_voice)
    for snapshot, expected in stage.kept:
        assert shown(snapshot) == expected


@given(st.binary(min_size=180, max_size=750))
def test_a_state_that_nobody_looks_at_folds_its_changes_in_time(text: bytes) -> None:
    """Without a freeze no guild is copied: the same objects change all the time."""
    stage = Stage()
    stage.begin()
    for action, a, b in steps_of(text):
        stage.step(action if action not in (len(ACTIONS), len(ACTIONS) + 1) else 0, a, b)
    snapshot = stage.frozen()
    assert shown(snapshot) == stage.expected()
    assert all(len(snapshot.packed(guild_id)) < 30_000 for guild_id in snapshot.states)
