"""A journal that takes over the guilds of a shard from another one."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from discorder.errors import PublisherError
from discorder.guilds import pack_again
from discorder.guilds.feed import NotHeld
from discorder.publishers.journal import Journal
from discorder.publishers.journal.takeover import PackedGuilds
from discorder.wire import StreamPosition
from tests.publishers.journals import LATER, SESSION, event, guild, killed, messages, names, opened, opening, read_all


async def guilds_at(
    directory: Path, *, session: str = SESSION, count: int = 2, messages_after: int = 0
) -> PackedGuilds:
    """Return the guilds of another journal, as the bus sends them."""
    async with opened(directory) as other:
        await other.publish([*opening(count, session=session), *messages(count + 2, messages_after, session=session)])
        snapshot = other.snapshot(0)
        assert snapshot is not None
        place, taken = snapshot
        packed = pack_again(place.session, taken.ready, taken.guild_ids, [taken.packed(one) for one in taken.states])
        return PackedGuilds(place, list(packed))


async def reopened(directory: Path) -> tuple[dict[int, str], StreamPosition | None, list[int | None]]:
    """Return the guilds, the end and the events after the guilds, as another process finds them after a kill."""
    async with opened(killed(directory)) as journal:
        end = journal.end(0)
        assert end is not None
        return names(journal), end, read_all(journal, 13, session=end.session)


async def test_the_guilds_are_there_and_the_events_follow_also_after_a_kill(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        woken: list[int] = []
        journal.watch(woken.append)
        await journal.begin_with({(0, 1): await guilds_at(tmp_path / "other", messages_after=10)})
        assert woken == [0]
        assert journal.end(0) == (SESSION, 13)
        await journal.publish([*messages(14, 3), event(17, "GUILD_CREATE", guild(3))])
        assert await reopened(tmp_path / "j") == (
            {1: "guild 1", 2: "guild 2", 3: "guild 3"},
            (SESSION, 17),
            [14, 15, 16, 17],
        )
        snapshot = journal.snapshot(0)
        assert snapshot is not None
        assert (snapshot.guilds.user_id, msgspec.json.decode(snapshot.guilds.ready)["user"]) == (99, {"id": "99"})


async def test_events_before_a_hole_in_the_session_are_not_joined_to_those_after_it(tmp_path: Path) -> None:
    """The journal was at 5, and the events up to 13 are lost: a reader at 5 is told so, also after a kill."""
    async with opened(tmp_path / "j") as journal:
        await journal.publish([*opening(), *messages(4, 2)])
        await journal.begin_with({(0, 1): await guilds_at(tmp_path / "other", messages_after=10)})
        await journal.publish(messages(14, 3))
        async with opened(killed(tmp_path / "j")) as later:
            for one in (journal, later):
                with pytest.raises(NotHeld):
                    one.entries(0, StreamPosition(SESSION, 5), 1000)
                assert read_all(one, 13) == [14, 15, 16]


async def test_another_session_takes_the_place_of_one(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.publish([*opening(), *messages(4, 30)])
        await journal.begin_with(
            {(0, 1): await guilds_at(tmp_path / "other", session=LATER, count=1, messages_after=11)}
        )
        await journal.publish(messages(14, 2, session=LATER))
        assert await reopened(tmp_path / "j") == ({1: "guild 1"}, (LATER, 15), [14, 15])


async def test_guilds_that_cannot_be_written_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart would go on with the older ones."""
    taken = await guilds_at(tmp_path / "other", messages_after=10)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    async with opened(tmp_path / "j") as journal:
        await _twice(journal)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(PublisherError, match="cannot be written"):
                await journal.begin_with({(0, 1): taken})
        await journal.begin_with({(0, 1): taken})
        assert await reopened(tmp_path / "j") == ({1: "guild 1", 2: "guild 2"}, (SESSION, 13), [])


async def _twice(journal: Journal) -> None:
    """Leave a snapshot behind after which nothing came."""
    await journal.publish(opening())
    await journal.close()
    await journal.open()
