"""Cases 31, 33, 42 and 49: look-ups that Discord does not answer, hosts that must not get the token, waits, and wild numbers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from discorder import diagnose
from discorder.clock import FakeClock
from discorder.errors import AuthenticationFailed, GatewayUnreachable
from discorder.simulator import Simulator
from discorder.statemachine import State
from tests.edge import Answer, Edge, blocked, document, login_page, page, refused
from tests.faults.fault import FREE, Fault, say, told
from tests.faults.table import Case
from tests.harness import Stage, StartStage

Start = Callable[..., Awaitable[Simulator]]


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"session.store={tmp_path / 'sessions.sqlite3'}"


async def leave_a_session(sim: Simulator, start_stage: StartStage, store: str) -> Stage:
    """Live once, so that the store holds a session."""
    stage = start_stage(sim, store)
    await stage.ready()
    await stage.stop()
    return stage


# ---------------------------------------------------------------- 31

NOT_DISCORDS: dict[str, Answer] = {
    "a login page": login_page,
    "other JSON": document('{"status":"ok"}'),
    "a list": document("[]"),
    "null": document("null"),
    "no url": document(
        '{"shards":1,"session_start_limit":{"total":1,"remaining":1,"reset_after":0,"max_concurrency":1}}'
    ),
    "no limit": document('{"url":"ws://127.0.0.1:9","shards":1}'),
    "half of the JSON": document('{"url":"ws://127.0'),
    "an empty 200": document(""),
    "no bytes of text": page("\0\1\2"),
    "204": page("", 204),
    "302 to a login page": page("", 302, Location="http://127.0.0.1:9/login"),
    "307 to itself": page("", 307, Location="/api/gateway/bot"),
    "400": document('{"message":"bad request","code":0}', 400),
    "401 of a proxy": page("<html>who are you?</html>", 401),
    "401 of another API": document('{"error":"unauthorized"}', 401),
    "403 of a firewall": page("<html>blocked</html>", 403),
    "403 of the edge": blocked,
    "404 of a web server": page("<html>not here</html>", 404),
    "404 in Discord's words": document('{"message":"404: Not Found","code":0}', 404),
    "407": page("", 407),
    "408": page("", 408),
    "418": page("", 418),
    "451": page("<html>not in this country</html>", 451),
    "500": page("<html>oops</html>", 500),
    "502": page("<html>bad gateway</html>", 502),
}


@pytest.mark.parametrize("answer", NOT_DISCORDS.values(), ids=NOT_DISCORDS.keys())
async def test_31_a_cold_start_whose_look_up_something_else_answers(
    case: Case, sim: Simulator, edge: Edge, start_stage: StartStage, answer: Answer
) -> None:
    """The control plane retries and reports it, and dials nothing; then it starts."""
    edge.instead = answer
    stage = start_stage(sim, f"gateway.api={edge.api}")
    stage.stride = 0.5
    await stage.until(lambda: edge.asked >= 3, within=300.0)
    reasons = diagnose(stage.tracker).reasons
    assert any(reason.startswith("looking up the gateway failed ") for reason in reasons), reasons
    assert sim.connects == 0
    fault = Fault(case, sim, stage)
    edge.instead = None
    await fault.recovered(within=120.0)
    assert diagnose(stage.tracker).reasons == ()
    assert (await fault.cost()) == (1, 0, 0)


@pytest.mark.parametrize("answer", [*NOT_DISCORDS.values(), refused], ids=[*NOT_DISCORDS.keys(), "401 of Discord"])
async def test_31_a_stored_session_whose_look_up_something_else_answers(
    case: Case, sim: Simulator, edge: Edge, start_stage: StartStage, store: str, answer: Answer
) -> None:
    """The session is resumed at once and goes on, also where attempts are limited. Had Discord refused the token, it would have
    closed the connection.
    """
    first = await leave_a_session(sim, start_stage, store)
    edge.instead = answer
    limits = ("gateway.max_attempts=2", "gateway.fail_on_error=true", "gateway.shards=1")
    stage = start_stage(sim, store, f"gateway.api={edge.api}", *limits)
    fault = Fault(case, sim, stage, [first.recorder, stage.recorder])
    await fault.recovered(1)
    stage.stride = 2.0
    await stage.spend(400.0)
    assert stage.tracker.state is State.READY
    verdict = diagnose(stage.tracker)
    assert verdict.healthy
    assert "looking up the gateway failed" in verdict.notes[0]
    await say(sim)
    await sim.reconnect()
    await stage.ready(2)
    assert await fault.cost() == FREE
    assert sim.resumed == 2
    if answer is not refused:  # whose client asks no more
        edge.instead = None
        await stage.until(lambda: diagnose(stage.tracker).notes == (), within=300.0)


async def test_31_only_discords_own_401_ends_a_cold_start(
    case: Case, sim: Simulator, edge: Edge, start_stage: StartStage
) -> None:
    """At once: asking again would not help."""
    edge.instead = refused
    error = await start_stage(sim, f"gateway.api={edge.api}").end()
    assert isinstance(error, AuthenticationFailed)
    assert (edge.asked, sim.connects) == (1, 0)
    case.note(note=f"a refused token: exit code {error.exit_code}")


# ---------------------------------------------------------------- 33


@asynccontextmanager
async def redirecting(status: int, target: str) -> AsyncIterator[str]:
    """A host that answers every upgrade with a redirect to ``target``; yields its websocket URL."""

    async def redirect(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": target})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", redirect)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("host", ["main", "resume"])
async def test_33_an_upgrade_is_answered_by_a_redirect(
    case: Case, sim: Simulator, start_simulator: Start, start_stage: StartStage, host: str, status: int
) -> None:
    """The target of the redirect gets no request, and the session goes on at the main host."""
    elsewhere = await start_simulator()
    async with redirecting(status, elsewhere.gateway_url.replace("ws:", "http:")) as url:
        sim.advertise(*(url, sim.resume_url) if host == "main" else (sim.gateway_url, url))
        stage = start_stage(sim)
        if host == "main":
            await stage.in_state(State.RESTARTING)
            assert "a redirect: it is not followed" in diagnose(stage.tracker).reasons[0]
            await stage.spend(30.0)
            case.note(identifies=sim.identifies)
        else:
            await stage.ready()
            await say(sim)
            fault = Fault(case, sim, stage)
            await sim.drop()
            await fault.recovered(3)
            assert await fault.cost() == FREE
        assert (elsewhere.connects, elsewhere.refused_upgrades, elsewhere.rest_requests) == (0, 0, [])
        await stage.stop()


ELSEWHERE = [
    "ws://xn--/",
    "ws://10.255.255.1:9/",
    "wss://gateway.example/",
    "ws://user@127.0.0.1/",
    "http://127.0.0.1:1/",
    "ws://[::1/",
    "ws://127.0.0.1:99999/",
    "//127.0.0.1/",
    "wss://\u202e/",
]


@pytest.mark.parametrize("url", ELSEWHERE)
async def test_33_a_resume_host_elsewhere_is_neither_dialled_nor_stored(
    case: Case, sim: Simulator, start_stage: StartStage, store: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """RESUME goes to the main host, in this process and in the next."""
    sim.advertise(sim.gateway_url, url)
    first = start_stage(sim, store)
    tracker = await first.ready()
    assert "The resume host is not dialled" in capsys.readouterr().err
    assert tracker.session is not None
    assert tracker.session.resume_url == ""
    fault = Fault(case, sim, first)
    await sim.drop()
    await fault.recovered(2)
    await first.stop()
    second = start_stage(sim, store, "gateway.shards=1")
    await second.ready()
    assert (sim.identifies, sim.resumed) == (1, 2)
    case.note(identifies=sim.identifies - 1)


@pytest.mark.parametrize(
    "url", ["ws://gateway.example/", "ws://10.255.255.1/", "http://127.0.0.1/", "gateway.discord.gg", ""]
)
async def test_33_a_look_up_that_names_what_is_not_dialled_has_failed(
    case: Case, sim: Simulator, start_stage: StartStage, url: str
) -> None:
    """No IDENTIFY goes to another machine in clear text, nor to what is no address of a gateway."""
    sim.advertise(url, sim.resume_url)
    error = await start_stage(sim, "gateway.max_attempts=2").end(within=60.0)
    assert isinstance(error, GatewayUnreachable)
    assert sim.connects == 0
    case.note(note=f"a look-up of such a host: exit code {error.exit_code}")


# ---------------------------------------------------------------- 42


async def test_42_a_refused_upgrade_asks_for_a_pause(
    case: Case, start_simulator: Start, start_stage: StartStage, clock: FakeClock
) -> None:
    """HTTP 429 is about our address: a shard that dials meanwhile would prolong it."""
    sim = await start_simulator(shards=3, max_concurrency=3, guilds=3)
    stage = start_stage(sim, clock=clock)
    await stage.until(lambda: len(sim.connected_shards) == 3)
    await say(sim)
    await sim.refuse_upgrades(429, retry_after=60)
    fault = Fault(case, sim, stage)
    await sim.drop(shard=0)
    await stage.until(lambda: sim.refused_upgrades == 1)
    refused_at = clock.monotonic()
    assert "asks not to be dialled for 60 s" in diagnose(stage.tracker).reasons[0]
    await sim.drop()
    await say(sim)
    await stage.spend(59.0)
    assert sim.refused_upgrades == 1
    await sim.heal()
    await stage.until(lambda: sim.resumed == 3)
    assert clock.monotonic() - refused_at >= 60.0
    fault.over()
    await stage.until(lambda: len(stage.recorder.seen) == len(sim.sent))
    assert sorted(stage.recorder.seen, key=str) == sorted(told(sim), key=str)
    fault.paid(FREE)
    assert sim.identifies == 3


# ---------------------------------------------------------------- 49

LIMIT: dict[str, object] = {"total": 1000, "remaining": 1000, "reset_after": 0, "max_concurrency": 1}
WILD: dict[str, dict[str, object]] = {
    "4,097 shards": {"shards": 4097},
    "10**9 shards": {"shards": 10**9},
    "10**30 shards": {"shards": 10**30},
    "no shard": {"shards": 0},
    "-1 shards": {"shards": -1},
    "half a shard": {"shards": 1.5},
    "max_concurrency 0": {"session_start_limit": LIMIT | {"max_concurrency": 0}},
    "max_concurrency 10**30": {"session_start_limit": LIMIT | {"max_concurrency": 10**30}},
    "total 10**30": {"session_start_limit": LIMIT | {"total": 10**30}},
    "remaining 10**30": {"session_start_limit": LIMIT | {"remaining": 10**30}},
    "remaining -1": {"session_start_limit": LIMIT | {"remaining": -1}},
    "reset_after 10**30": {"session_start_limit": LIMIT | {"reset_after": 10**30}},
    "reset_after -1": {"session_start_limit": LIMIT | {"reset_after": -1}},
    "reset_after of a text": {"session_start_limit": LIMIT | {"reset_after": "soon"}},
}


@pytest.mark.parametrize("odd", WILD.values(), ids=WILD.keys())
async def test_49_a_look_up_with_numbers_past_all_reason(
    case: Case, sim: Simulator, edge: Edge, start_stage: StartStage, odd: dict[str, object]
) -> None:
    """It is no answer: asked again, until one can be used."""
    edge.instead = document(json.dumps({"url": sim.gateway_url, "shards": 1, "session_start_limit": LIMIT} | odd))
    stage = start_stage(sim, f"gateway.api={edge.api}")
    stage.stride = 0.5
    await stage.until(lambda: edge.asked >= 2, within=120.0)
    assert sim.connects == 0
    fault = Fault(case, sim, stage)
    edge.instead = None
    await fault.recovered(within=120.0)
    assert await fault.cost() == (1, 0, 0)


@pytest.mark.parametrize("seconds", ["1e9", "1e999", "-1", "null", '"soon"', "[]"])
async def test_49_a_look_up_whose_retry_after_is_past_all_reason(
    case: Case, sim: Simulator, edge: Edge, start_stage: StartStage, seconds: str
) -> None:
    """A rate limit is waited out for an hour at most."""
    text = f'{{"message":"You are being rate limited.","retry_after":{seconds},"global":false}}'
    edge.instead = document(text, 429)
    stage = start_stage(sim, f"gateway.api={edge.api}")
    stage.stride = 10.0
    await stage.until(lambda: edge.asked == 1)
    edge.instead = None
    fault = Fault(case, sim, stage)
    assert await fault.recovered(within=3_700.0) <= 3_660.0
