"""`discorder sessions`: what is stored, without a secret, and dropping it, but not under a process that uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from discorder.simulator import Simulator
from discorder.wire import session_label
from tests.commandline import Command
from tests.serving import Serve

pytestmark = pytest.mark.system


@pytest.mark.heavy
async def test_sessions_are_listed_and_dropped(
    sim: Simulator, serve: Serve, discorder: Command, tmp_path: Path
) -> None:
    store = ("--set", f"session.store={tmp_path / 'sessions.sqlite3'}")
    nothing = await discorder("sessions", "list", *store, token=sim.token)
    assert (nothing.code, "no session of this bot" in nothing.out) == (0, True), nothing.err

    plane = await serve()
    await plane.says("Control plane started")
    (session,) = sim.sessions
    refused = await discorder("sessions", "drop", "0", *store, token=sim.token)
    assert refused.code == 73
    assert f"process {plane.process.pid}" in refused.err
    assert "discorder shutdown" in refused.err
    assert "--take-over" not in refused.err
    plane.process.terminate()
    await plane.ends()

    listed = await discorder("sessions", "list", *store, token=sim.token)
    assert "0/1" in listed.out
    assert "127.0.0.1" in listed.out
    (row,) = json.loads((await discorder("sessions", "list", "--json", *store, token=sim.token)).out)["sessions"]
    assert row["label"] == session_label(session)
    assert row["seq"] > 0
    assert row["age_seconds"] < 60
    assert session not in listed.out
    assert sim.token not in listed.out

    for arguments, code in ((("7",), 2), ((), 2), (("0", "--all"), 2), (("0/1",), 0), (("--all",), 0)):
        outcome = await discorder("sessions", "drop", *arguments, *store, token=sim.token)
        assert outcome.code == code, outcome.err
        assert session not in outcome.out + outcome.err
    assert "no session of this bot" in (await discorder("sessions", "list", *store, token=sim.token)).out

    again = await serve()
    await again.says("Control plane started")
    assert (sim.identifies, sim.resumes) == (2, 0)


async def test_another_bots_sessions_stay(sim: Simulator, serve: Serve, discorder: Command, tmp_path: Path) -> None:
    plane = await serve()
    await plane.says("Control plane started")
    plane.process.terminate()
    await plane.ends()
    store = ("--set", f"session.store={tmp_path / 'sessions.sqlite3'}")
    assert (await discorder("sessions", "drop", "--all", *store, token="MTIz.of.another")).code == 0
    assert "0/1" in (await discorder("sessions", "list", *store, token=sim.token)).out


async def test_without_a_store_there_is_nothing(discorder: Command) -> None:
    for words in (("list",), ("drop", "--all")):
        outcome = await discorder("sessions", *words, "--set", "session.store=", token="MTIz.of.nobody")
        assert (outcome.code, "memory only" in outcome.out) == (0, True), outcome.err


async def test_a_file_that_is_no_store_is_left_alone(discorder: Command, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    for words in (("list",), ("drop", "--all")):
        outcome = await discorder("sessions", *words, "--set", f"session.store={path}", token="MTIz.of.nobody")
        assert outcome.code != 0
        assert "Traceback" not in outcome.err
        assert "notes.txt" in outcome.err
    assert path.read_text() == "mine"
