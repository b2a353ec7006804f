"""Rules of the guilds' state that a random world does not show."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from discorder.guilds import FOLDED, ShardGuilds, folds, unpack
from discorder.simulator.payloads import load_payloads

PAYLOADS = load_payloads()
SAMPLE = 1345192221523181594
BOT = 1345187989315256333
MEMBER = 1345196709629788206


def sample(name: str, **changes: Any) -> bytes:
    """Return the ``d`` of a sample frame with other values."""
    return msgspec.json.encode({**msgspec.json.decode(PAYLOADS[name].data), **changes})


@pytest.fixture
def guilds() -> ShardGuilds:
    """Return the state after the sample READY and GUILD_CREATE."""
    state = ShardGuilds()
    state.apply("session", "READY", PAYLOADS["READY"].data)
    state.apply("session", "GUILD_CREATE", PAYLOADS["GUILD_CREATE"].data)
    return state


def document(state: ShardGuilds, guild_id: int = SAMPLE) -> Any:
    """Return a guild as it is now."""
    snapshot = state.freeze()
    assert snapshot is not None
    return msgspec.json.decode(snapshot.document(guild_id))


def ids(items: list[dict[str, Any]]) -> set[str]:
    return {item["id"] for item in items}


def test_before_the_first_ready_there_is_nothing_to_show() -> None:
    state = ShardGuilds()
    state.apply("session", "GUILD_CREATE", PAYLOADS["GUILD_CREATE"].data)
    assert state.freeze() is None
    assert state.session is None


def test_guilds_of_ready_are_known_before_they_have_a_state(guilds: ShardGuilds) -> None:
    snapshot = guilds.freeze()
    assert snapshot is not None
    assert list(snapshot.guild_ids) == [SAMPLE, 1345192477421862945, 1345192733320544296]
    assert list(snapshot.states) == [SAMPLE]
    assert (snapshot.session, snapshot.user_id) == ("session", BOT)
    assert snapshot.ready == PAYLOADS["READY"].data
    with pytest.raises(LookupError, match="1345192477421862945: it is unavailable"):
        snapshot.document(1345192477421862945)
    with pytest.raises(LookupError, match="guild 7: the bot is not in it"):
        snapshot.packed(7)


def test_a_guild_that_nothing_changed_is_returned_byte_for_byte(guilds: ShardGuilds) -> None:
    snapshot = guilds.freeze()
    assert snapshot is not None
    assert snapshot.document(SAMPLE) == PAYLOADS["GUILD_CREATE"].data
    assert unpack(snapshot.packed(SAMPLE)) == PAYLOADS["GUILD_CREATE"].data


def test_a_new_session_forgets_the_guilds_and_a_repeated_ready_does_not(guilds: ShardGuilds) -> None:
    guilds.apply("session", "READY", PAYLOADS["READY.no_shard_no_guilds"].data)
    assert document(guilds)["name"] == "Sample Guild α"
    guilds.apply("another", "READY", PAYLOADS["READY.no_shard_no_guilds"].data)
    snapshot = guilds.freeze()
    assert snapshot is not None
    assert list(snapshot.guild_ids) == []
    assert guilds.session == "another"


def test_events_of_another_session_change_nothing(guilds: ShardGuilds) -> None:
    guilds.apply("before", "GUILD_DELETE", PAYLOADS["GUILD_DELETE"].data)
    assert document(guilds)["name"] == "Sample Guild α"


def test_an_outage_keeps_the_guild_known_and_a_removal_forgets_it(guilds: ShardGuilds) -> None:
    guilds.apply("session", "GUILD_DELETE", PAYLOADS["GUILD_DELETE.outage"].data)
    snapshot = guilds.freeze()
    assert snapshot is not None
    assert SAMPLE in snapshot.guild_ids
    assert SAMPLE not in snapshot.states
    guilds.apply("session", "GUILD_CREATE", PAYLOADS["GUILD_CREATE"].data)
    guilds.apply("session", "GUILD_DELETE", PAYLOADS["GUILD_DELETE"].data)
    snapshot = guilds.freeze()
    assert snapshot is not None
    assert SAMPLE not in snapshot.guild_ids


def test_a_guild_that_was_joined_is_shown_as_available(guilds: ShardGuilds) -> None:
    """Its GUILD_CREATE has no ``unavailable``, which says "just joined" to discord.py."""
    guilds.apply("session", "GUILD_CREATE", PAYLOADS["GUILD_CREATE.joined_minimal"].data)
    assert "unavailable" not in msgspec.json.decode(PAYLOADS["GUILD_CREATE.joined_minimal"].data)
    assert document(guilds, 1345192733320544296)["unavailable"] is False


def test_the_bots_user_changes_in_ready(guilds: ShardGuilds) -> None:
    guilds.apply("session", "USER_UPDATE", b'{"username":"renamed","field_of_tomorrow":1}')
    snapshot = guilds.freeze()
    assert snapshot is not None
    ready = msgspec.json.decode(snapshot.ready)
    assert ready["user"]["username"] == "renamed"
    assert ready["user"]["field_of_tomorrow"] == 1
    assert ready["user"]["id"] == str(BOT)
    assert ready["application"] == msgspec.json.decode(PAYLOADS["READY"].data)["application"]


def test_presences_can_be_left_out() -> None:
    state = ShardGuilds(presences=False)
    state.apply("session", "READY", PAYLOADS["READY"].data)
    state.apply("session", "GUILD_CREATE", PAYLOADS["GUILD_CREATE"].data)
    state.apply("session", "PRESENCE_UPDATE", PAYLOADS["PRESENCE_UPDATE"].data)
    assert document(state)["presences"] == []


def test_presences_of_a_loaded_state_are_left_out(guilds: ShardGuilds) -> None:
    snapshot = guilds.freeze()
    assert snapshot is not None
    state = ShardGuilds(presences=False)
    state.load(snapshot.pack())
    assert document(guilds)["presences"]
    assert document(state)["presences"] == []


def test_the_member_of_a_voice_state_is_kept_in_a_large_guild() -> None:
    """hikari raises KeyError for a voice state whose member it does not know."""
    state = ShardGuilds()
    state.apply("session", "READY", PAYLOADS["READY"].data)
    state.apply("session", "GUILD_CREATE", sample("GUILD_CREATE", large=True, members=[]))
    state.apply("session", "GUILD_MEMBER_ADD", PAYLOADS["GUILD_MEMBER_ADD"].data)
    state.apply("session", "VOICE_STATE_UPDATE", PAYLOADS["VOICE_STATE_UPDATE"].data)
    guild = document(state)
    user = msgspec.json.decode(PAYLOADS["VOICE_STATE_UPDATE"].data)["user_id"]
    assert [member["user"]["id"] for member in guild["members"]] == [user]
    assert guild["member_count"] == 10


def test_the_bot_in_a_voice_channel_is_known_after_each_event(guilds: ShardGuilds) -> None:
    def voice_guilds() -> list[int]:
        snapshot = guilds.freeze()
        assert snapshot is not None
        return list(snapshot.voice_guilds())

    state = {"user_id": str(BOT), "channel_id": "1", "session_id": "x"}
    assert voice_guilds() == []
    guilds.apply("session", "VOICE_STATE_UPDATE", sample("VOICE_STATE_UPDATE", user_id=str(BOT)))
    assert voice_guilds() == [SAMPLE]
    guilds.apply("session", "VOICE_STATE_UPDATE", sample("VOICE_STATE_UPDATE", user_id=str(BOT), channel_id=None))
    assert voice_guilds() == []
    guilds.apply("session", "GUILD_CREATE", sample("GUILD_CREATE", voice_states=[state]))
    assert voice_guilds() == [SAMPLE]


def test_a_repeated_join_is_counted_once(guilds: ShardGuilds) -> None:
    """Discord sends GUILD_MEMBER_ADD for members too."""
    new = PAYLOADS["GUILD_MEMBER_ADD"].data
    known = sample("GUILD_MEMBER_ADD", user={"id": str(MEMBER), "username": "ember_otter"})
    for event in (new, new, known, known):
        guilds.apply("session", "GUILD_MEMBER_ADD", event)
    assert document(guilds)["member_count"] == 10


def test_each_of_many_joins_is_counted(guilds: ShardGuilds) -> None:
    for user in range(200):
        guilds.apply("session", "GUILD_MEMBER_ADD", sample("GUILD_MEMBER_ADD", user={"id": str(user), "username": "x"}))
    guild = document(guilds)
    assert guild["member_count"] == len(guild["members"]) == 209


def test_a_private_thread_is_gone_once_the_bot_is_removed_from_it(guilds: ShardGuilds) -> None:
    private = msgspec.json.decode(PAYLOADS["THREAD_CREATE.added_to_private"].data)
    public = "1345209150354882638"
    guilds.apply("session", "THREAD_CREATE", PAYLOADS["THREAD_CREATE.added_to_private"].data)
    assert private["id"] in ids(document(guilds)["threads"])
    for thread in (private["id"], public):
        removal = {"id": thread, "guild_id": str(SAMPLE), "member_count": 1, "removed_member_ids": [str(BOT)]}
        guilds.apply("session", "THREAD_MEMBERS_UPDATE", msgspec.json.encode(removal))
    threads = {thread["id"]: thread for thread in document(guilds)["threads"]}
    assert private["id"] not in threads
    assert "member" not in threads[public]
    assert threads[public]["member_count"] == 1


def test_odd_data_is_counted_and_changes_nothing(guilds: ShardGuilds) -> None:
    before = document(guilds)
    odd = [b"", b"null", b"[]", b"{}", b'{"id":[],"guild_id":{}}', b'{"id":"x"}', b'{"id":"-1"}', b"\xff", b"[" * 3000]
    for count, data in enumerate(odd * len(FOLDED - {"READY"}), start=1):
        kind = sorted(FOLDED - {"READY"})[count % len(FOLDED - {"READY"})]
        guilds.apply("session", kind, data)
    assert guilds.oddities > 100
    after = document(guilds)
    assert after == before


def test_an_odd_ready_begins_a_session_without_guilds(guilds: ShardGuilds) -> None:
    guilds.apply("another", "READY", b'{"user":null}')
    snapshot = guilds.freeze()
    assert snapshot is not None
    assert (snapshot.session, snapshot.ready, snapshot.user_id) == ("another", b"{}", 0)
    assert list(snapshot.guild_ids) == []
    assert guilds.oddities == 1


def test_a_lone_surrogate_loses_no_event(guilds: ShardGuilds) -> None:
    """Strict JSON parsers refuse it, so the state has U+FFFD in its place. A pair, and an escaped backslash, stay."""
    data = rb'{"id":"1","guild_id":"1345192221523181594","type":0,"name":"a\ud800b","topic":"\ud83d\udc4d","icon":"\\ud800"}'
    guilds.apply("session", "CHANNEL_CREATE", data)
    channel = next(item for item in document(guilds)["channels"] if item["id"] == "1")
    assert (channel["name"], channel["topic"], channel["icon"]) == ("a\ufffdb", "👍", r"\ud800")
    assert guilds.oddities == 0


@pytest.mark.parametrize(
    "packed", [[], [b""], [b"\x95\x02\xa1s\x01\x90\xc4\x00"], [b"\x95\x01\xa1s\x01\x90\xc4\x00", b"x"]]
)
def test_other_bytes_than_a_packed_state_are_refused_and_change_nothing(
    guilds: ShardGuilds, packed: list[bytes]
) -> None:
    with pytest.raises(ValueError, match=r".+"):
        guilds.load(packed)
    assert document(guilds)["name"] == "Sample Guild α"


def test_types_that_are_not_folded_are_named_by_nothing() -> None:
    assert folds("GUILD_CREATE")
    assert not folds("MESSAGE_CREATE")
    assert not folds("DISCORDER_EVENTS_LOST")


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_all_sample_frames_raises_nothing(seed: int) -> None:
    order = random.Random(seed)
    payloads = list(PAYLOADS.values()) * 3
    order.shuffle(payloads)
    state = ShardGuilds()
    for number, payload in enumerate(payloads):
        state.apply("session" if number < 200 else "another", payload.type, payload.data)
        if (snapshot := state.freeze()) is not None and order.random() < 0.1:
            for guild_id in snapshot.states:
                shown = snapshot.document(guild_id)
                assert msgspec.json.decode(shown)["unavailable"] is False
                assert unpack(snapshot.packed(guild_id)) == shown
    assert state.oddities == 0
