"""RESUME, replay, the life of a session without a socket, and the verbs that end or break connections."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from discorder.clock import FakeClock
from discorder.simulator import Close, Simulator

Start = Callable[..., Awaitable[Simulator]]
Make = Callable[[Simulator], Any]


async def test_a_resume_replays_what_was_missed_then_goes_on(start_simulator: Start, make_client: Make) -> None:
    """Missed dispatches come in order with their own seq, then RESUMED with the next one and an object for `d`."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    session = (await client.identify())["session_id"]
    last = client.seq
    await client.close(4000)
    await sim.wait_for(lambda: sim.closes)
    for number in range(500):
        await sim.dispatch("MISSED", {"number": number})
    client = await make_client(sim).dial(sim.resume_url)
    await client.resume(session, last)
    frames = [await client.frame() for _ in range(501)]
    assert [(f["t"], f["s"], f["d"]) for f in frames[:500]] == [
        ("MISSED", last + 1 + n, {"number": n}) for n in range(500)
    ]
    assert (frames[500]["t"], frames[500]["s"]) == ("RESUMED", last + 501)
    assert "_trace" in frames[500]["d"]
    await sim.dispatch("LIVE", None)
    assert (await client.frame())["s"] == last + 502
    assert (sim.identifies, sim.resumes, sim.resumed) == (1, 1, 1)


async def test_living_guilds_go_on_while_the_client_is_away(start_simulator: Start, make_client: Make) -> None:
    """Events are collected at the rate of the world; none is missing after the resume."""
    sim = await start_simulator(rate=1000)
    client = await make_client(sim).dial()
    session = (await client.identify())["session_id"]
    await client.close(4000)
    last = client.seq
    await sim.wait_for(lambda: sim.sent[-1][1] > last + 100)
    client = await make_client(sim).dial()
    await client.resume(session, last)
    seqs = [(await client.frame())["s"] for _ in range(100)]
    assert seqs == list(range(last + 1, last + 101))


async def test_an_unknown_session_gets_op_9_and_the_connection_stays_usable(
    start_simulator: Start, make_client: Make
) -> None:
    """Op 9 false, then IDENTIFY on the same socket."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    await client.resume("nobody", 3)
    assert (await client.frame()) == {"t": None, "s": None, "op": 9, "d": False}
    await client.send(2, client.identity())
    await client.until("READY")


async def test_a_session_expires_without_a_socket(start_simulator: Start, make_client: Make) -> None:
    """It is kept for `session_ttl` seconds of the clock, and not while it is connected."""
    clock = FakeClock()
    sim = await start_simulator(clock=clock, session_ttl=100, missed_heartbeats=0)
    client = await make_client(sim).dial()
    session = (await client.identify())["session_id"]
    await clock.advance(1000)
    await client.close(4000)
    await sim.wait_for(lambda: sim.closes)
    await clock.advance(99)
    assert sim.sessions == [session]
    await clock.advance(1)
    assert sim.sessions == []
    client = await make_client(sim).dial()
    await client.resume(session, 1)
    assert await client.until_op(9) is False


async def test_an_overflowed_replay_buffer_ends_the_session(start_simulator: Start, make_client: Make) -> None:
    """What is no longer there cannot be replayed: op 9 false. The last seq of all still resumes."""
    sim = await start_simulator(replay_buffer=5)
    client = await make_client(sim).dial()
    session = (await client.identify())["session_id"]
    last = client.seq
    await client.close(4000)
    await sim.wait_for(lambda: sim.closes)
    for _ in range(5):
        await sim.dispatch("MISSED", {})
    client = await make_client(sim).dial()
    await client.resume(session, last)
    await client.until("RESUMED")
    await client.close(4000)
    await sim.wait_for(lambda: len(sim.closes) == 2)
    client = await make_client(sim).dial()
    await client.resume(session, last)
    assert await client.until_op(9) is False
    assert sim.sessions == []


@pytest.mark.parametrize(
    ("changes", "code", "kept"),
    [({"seq": 999}, 4007, False), ({"seq": None}, 4007, True), ({"seq": -1}, 4007, True), ({"token": "x"}, 4004, True)],
)
async def test_a_resume_that_is_refused(
    start_simulator: Start, make_client: Make, changes: dict[str, Any], code: int, kept: bool
) -> None:
    """A seq from the future ends the session; what is no RESUME at all leaves it alone."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    session = (await client.identify())["session_id"]
    await client.close(4000)
    client = await make_client(sim).dial()
    await client.resume(session, changes.pop("seq", 1), **changes)
    assert await client.close_code() == code
    assert sim.sessions == ([session] if kept else [])


async def test_a_resume_takes_the_session_from_an_older_connection(start_simulator: Start, make_client: Make) -> None:
    """The old socket is closed, and its end does not touch the session."""
    sim = await start_simulator()
    old, new = await make_client(sim).dial(), await make_client(sim).dial()
    session = (await old.identify())["session_id"]
    await new.resume(session, old.seq)
    await new.until("RESUMED")
    assert await old.close_code() == 4000
    await sim.dispatch("LIVE", {})
    await new.until("LIVE")
    assert sim.sessions == [session]


@pytest.mark.parametrize(("code", "kept"), [(4000, True), (4008, True), (1000, True), (4007, False), (4009, False)])
async def test_the_answer_to_a_close_never_ends_a_session(
    start_simulator: Start, make_client: Make, code: int, kept: bool
) -> None:
    """A client that answers with 1000 has not said goodbye; after 4007 and 4009 a RESUME gets op 9 false."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    session = (await client.identify())["session_id"]
    await sim.close(code)
    message = await client.message()
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, code)
    await client.websocket.close(code=1000)
    await sim.wait_for(lambda: sim.closes)
    assert sim.closes == [Close(session, 0, code, "server", answer=1000)]
    assert sim.sessions == ([session] if kept else [])


async def test_op_7_and_other_ops_reach_the_shard_that_was_named(start_simulator: Start, make_client: Make) -> None:
    """`shard=` picks; None means all, those that have not identified included."""
    sim = await start_simulator()
    clients = [await make_client(sim).dial() for _ in range(3)]
    for shard in range(2):
        await clients[shard].identify(shard=[shard, 2])
    await clients[2].frame()
    await sim.reconnect(shard=1)
    assert (await clients[1].frame())["op"] == 7
    await sim.send_op(1, shard=None)
    assert [(await client.frame())["op"] for client in clients] == [1, 1, 1]
    await sim.dispatch("HERE", {"a": [1, None]}, shard=0)
    assert (await clients[0].frame())["d"] == {"a": [1, None]}
    await sim.close(4000, shard=0)
    assert await clients[0].close_code() == 4000
    await sim.send_op(99, {"x": 1})
    assert (await clients[1].frame()) == {"t": None, "s": None, "op": 99, "d": {"x": 1}}


@pytest.mark.parametrize("resumable", [True, False])
async def test_invalidate(start_simulator: Start, make_client: Make, resumable: bool) -> None:
    """Op 9 true: the session can be resumed on the same socket. False: it is gone, commands are refused."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    session = (await client.identify())["session_id"]
    await sim.invalidate(resumable)
    assert await client.until_op(9) is resumable
    if resumable:
        await client.send(6, {"token": sim.token, "session_id": session, "seq": client.seq})
        await client.until("RESUMED")
    else:
        assert sim.sessions == []
        await client.send(3, {})
        assert await client.close_code() == 4003


async def test_drop_cuts_the_connection_without_a_close_frame(start_simulator: Start, make_client: Make) -> None:
    """The session stays."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    session = (await client.identify())["session_id"]
    await sim.drop()
    assert (await client.message()).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
    await sim.wait_for(lambda: sim.closes)
    assert sim.closes == [Close(session, 0, None, "server")]
    assert sim.sessions == [session]


async def test_a_stalled_socket_is_silent_until_healed(start_simulator: Start, make_client: Make) -> None:
    """No ACK, no event, no pong, no end; new connections work; what was held comes after `heal`."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    session = (await client.identify())["session_id"]
    await sim.stall()
    await client.send(1, 1)
    await client.websocket.ping()
    await sim.dispatch("HELD", {})
    with pytest.raises(TimeoutError):
        await client.websocket.receive(timeout=0.05)
    other = await make_client(sim).dial()
    await other.frame()
    await sim.heal()
    assert {(await client.frame())["op"] for _ in range(2)} == {0, 11}
    await sim.stall()
    await other.send(1)
    await sim.drop()
    third = await make_client(sim).dial()
    await third.resume(session, client.seq)
    await third.until("RESUMED")


async def test_acks_are_swallowed_until_healed(start_simulator: Start, make_client: Make) -> None:
    """Of one shard or of all, on later connections too; events still come."""
    sim = await start_simulator()
    clients = [await make_client(sim).dial() for _ in range(2)]
    for shard, client in enumerate(clients):
        await client.identify(shard=[shard, 2])
    await sim.swallow_acks(shard=0)
    for client in clients:
        await client.send(1, 1)
    assert (await clients[1].frame())["op"] == 11
    await sim.wait_for(lambda: sim.frames_received == 4)
    await sim.dispatch("EVENT", {}, shard=0)
    assert (await clients[0].frame())["t"] == "EVENT"
    await sim.swallow_acks()
    late = await make_client(sim).dial()
    await late.frame()
    await late.send(1)
    await sim.wait_for(lambda: sim.frames_received == 5)
    await sim.heal()
    await late.send(1)
    assert (await late.frame())["op"] == 11
    with pytest.raises(TimeoutError):
        await late.websocket.receive(timeout=0.02)


async def test_one_shard_can_be_healed_alone(start_simulator: Start, make_client: Make) -> None:
    """The other one stays stalled."""
    sim = await start_simulator()
    clients = [await make_client(sim).dial() for _ in range(2)]
    for shard, client in enumerate(clients):
        await client.identify(shard=[shard, 2])
    await sim.stall()
    await sim.swallow_acks(shard=1)
    await sim.heal(shard=1)
    for client in clients:
        await client.send(1, 1)
    assert (await clients[1].frame())["op"] == 11
    with pytest.raises(TimeoutError):
        await clients[0].websocket.receive(timeout=0.02)


async def test_hello_is_withheld_until_healed(start_simulator: Start, make_client: Make) -> None:
    """Upgrades succeed; HELLO comes late but comes."""
    sim = await start_simulator()
    await sim.withhold_hello()
    client = await make_client(sim).dial()
    with pytest.raises(TimeoutError):
        await client.websocket.receive(timeout=0.02)
    await sim.reconnect()
    assert (await client.frame())["op"] == 7  # op 7 may come instead of HELLO (docs/protocol.md#reconnect)
    await sim.heal()
    assert (await client.frame())["op"] == 10


async def test_each_host_can_refuse_upgrades(start_simulator: Start, make_client: Make) -> None:
    """With the status that was chosen; REST goes on."""
    sim = await start_simulator()
    await sim.refuse_upgrades(503, "resume")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await make_client(sim).dial(sim.resume_url)
    assert refused.value.status == 503
    await (await make_client(sim).dial()).identify()
    await sim.refuse_upgrades(429)
    for url in (sim.gateway_url, sim.resume_url):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await make_client(sim).dial(url)
        assert refused.value.status == 429
    assert (sim.connects, sim.refused_upgrades) == (1, 3)
    await sim.heal()
    await (await make_client(sim).dial(sim.resume_url)).frame()


async def test_a_client_that_does_not_read_is_cut_off(start_simulator: Start, make_client: Make) -> None:
    """What waits for it is bounded; others are not held up and the session is kept."""
    sim = await start_simulator(guilds=1, max_backlog=1_000_000)
    slow, quick = await make_client(sim).dial(), await make_client(sim).dial()
    session = (await slow.identify(shard=[0, 1]))["session_id"]
    await quick.identify(shard=[0, 1])
    data = b'"' + b"x" * 100_000 + b'"'
    for _ in range(200):
        await sim.dispatch_raw("BIG", data)
        await quick.frame()
        if sim.open_connections == 1:
            break
    assert sim.open_connections == 1
    assert session in sim.sessions


async def test_bytes_are_sent_untouched_and_can_be_kept(start_simulator: Start, make_client: Make) -> None:
    """`dispatch_raw` keeps spelling, spaces and key order; `keep_documents` records them."""
    sim = await start_simulator(guilds=0, keep_documents=True)
    client = await make_client(sim).dial()
    session = (await client.identify())["session_id"]
    data = b'{ "b":1.50, "a":"\\u00e9\\/" }'
    await sim.dispatch_raw("ODD", data)
    await client.frame()
    assert client.raw[-1].data == '{"t":"ODD","s":2,"op":0,"d":' + data.decode() + "}"
    assert sim.sent_documents[-1] == (session, 2, "ODD", data)
    await sim.send_payload(b"garbage")
    assert (await client.message()).data == "garbage"
    await sim.send_binary(b"\x00\x01")
    assert (await client.message()).data == b"\x00\x01"


async def test_resumes_can_be_refused(start_simulator: Start, make_client: Make) -> None:
    """With a code; the session is kept, and resumed after `heal`. (1005 and 1006, which no frame can carry: fault case 19.)"""
    sim = await start_simulator()
    first = await make_client(sim).dial()
    session = (await first.identify())["session_id"]
    await first.close()
    await sim.refuse_resumes(4321)
    refused = await make_client(sim).dial()
    await refused.resume(session, first.seq)
    assert await refused.close_code() == 4321
    await sim.heal()
    client = await make_client(sim).dial()
    await client.resume(session, first.seq)
    await client.until("RESUMED")


async def test_openings_can_be_ignored(start_simulator: Start, make_client: Make) -> None:
    """IDENTIFY and RESUME are counted and never answered; heartbeats are."""
    sim = await start_simulator()
    await sim.ignore_openings()
    client = await make_client(sim).dial()
    await client.frame()
    await client.send(2, client.identity())
    await client.send(6, {"token": sim.token, "session_id": "x", "seq": 1})
    await client.send(1, None)
    assert (await client.frame())["op"] == 11
    assert (sim.identifies, sim.resumes, sim.sessions) == (1, 1, [])
    await sim.heal()
    await client.send(2, client.identity())
    await client.until("READY")


async def test_sessions_can_be_forgotten(start_simulator: Start, make_client: Make) -> None:
    """The connection hears nothing of it; a RESUME is answered by op 9 false."""
    sim = await start_simulator()
    first = await make_client(sim).dial()
    session = (await first.identify())["session_id"]
    await sim.forget_sessions()
    assert sim.sessions == []
    await first.send(1, first.seq)
    assert (await first.frame())["op"] == 11
    client = await make_client(sim).dial()
    await client.resume(session, first.seq)
    assert await client.until_op(9) is False
