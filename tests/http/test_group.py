"""One HTTP server for two control planes, as `discorder serve --processes 2` has it, in one loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import aiohttp
import pytest

from discorder.clock import SystemClock
from discorder.config import load_config
from discorder.group.flows import merge_flows
from discorder.group.member import Member
from discorder.group.site import GroupSite
from discorder.http.server import HttpServer
from discorder.runtime.watchdog import LoopLag
from discorder.simulator import Simulator
from discorder.status.document import FlowsPart, LatencyPart, OutagePart
from discorder.status.process import ProcessState
from tests.http.conftest import FOREIGN, Answer, Serve, Served
from tests.metrics.scrapes import promtool
from tests.status.conftest import checked

Events = AsyncIterator[tuple[str, dict[str, Any]]]


class Group:
    """Two control planes with one shard each, and the server in front of them."""

    def __init__(self, planes: list[Served]) -> None:
        self.planes = planes
        self.members = [Member(number, (number,), lambda: False) for number in range(len(planes))]
        for member, plane in zip(self.members, planes, strict=True):
            member.started(plane.url, 1000 + member.number)
        self.stops: list[bool] = []
        own = ProcessState(SystemClock())
        site = GroupSite(self.members, lambda: own.describe("", LoopLag()), self.stops.append)
        settings = ["http.bind=127.0.0.1:0", f"http.operator_token_file={planes[0].token_file}"]
        self.server = HttpServer(load_config(None, settings), site)

    @property
    def url(self) -> str:
        assert self.server.url is not None
        return self.server.url.rstrip("/")

    async def ask(self, path: str, method: str = "GET", **more: Any) -> Answer:
        async with self.planes[0].session.request(method, f"{self.url}{path}", **more) as response:
            return Answer(response.status, response.headers, await response.read(), response.cookies)

    async def end(self, number: int) -> None:
        """The process ends, as by a signal that nothing catches."""
        await self.planes[number].stage.stop()
        self.members[number].ended("exit code -9")
        self.members[number].waits(30)

    async def events(self) -> Events:
        timeout = aiohttp.ClientTimeout(total=20)
        async with self.planes[0].session.get(f"{self.url}/events", timeout=timeout) as response:
            name = ""
            async for line in response.content:
                key, _, value = line.decode().rstrip().partition(": ")
                if key == "event":
                    name = value
                elif key == "data":
                    yield name, json.loads(value)


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(guilds=2, shards=2, identify_spacing=0.0, rate=0) as simulator:
        yield simulator


@pytest.fixture
async def group(serve: Serve) -> AsyncIterator[Group]:
    planes = [
        await serve(f"gateway.shards={{ids=[{number}],of=2}}", "publishers.one.kind=log", "gateway.intents=513")
        for number in range(2)
    ]
    made = Group(planes)
    await made.server.start()
    yield made
    await made.server.close()


# ---------------------------------------------------------------- reading


async def test_the_documents_are_one(group: Group) -> None:
    document = checked((await group.ask("/status.json")).body)
    assert document["verdict"]["headline"] == "Well: all 2 shards serve"
    assert [(shard["id"], shard["owner"]) for shard in document["shards"]] == [(0, "process 0"), (1, "process 1")]
    assert {one["process"] for one in document["publishers"]} == {0, 1}
    assert [(one["number"], one["pid"], one["shards"]) for one in document["process"]["processes"]] == [
        (0, 1000, 1),
        (1, 1001, 1),
    ]
    assert (
        document["verdict"]["shards"]["ready"] == document["sessions"]["held"] == document["totals"]["identifies"] == 2
    )
    assert {step["shard"] for step in document["transitions"]} == {0, 1}
    assert [step["at"] for step in document["transitions"]] == sorted(
        (step["at"] for step in document["transitions"]), reverse=True
    )
    part = checked((await group.ask("/status.json?shards=1")).body)
    assert ([shard["id"] for shard in part["shards"]], part["verdict"]) == ([1], document["verdict"])
    page = (await group.ask("/")).body.decode()
    assert " · 2 processes · up " in page
    assert "LogPublisher, process 1" in page
    assert ((await group.ask("/livez")).status, (await group.ask("/readyz")).document["ready"]) == (200, True)


async def test_a_process_that_has_ended_leaves_shards_that_do_not_serve(group: Group) -> None:
    await group.ask("/status.json")
    await group.end(1)
    document = checked((await group.ask("/status.json")).body)
    said = "it does not run: exit code -9"
    assert document["verdict"]["level"] == "impaired"
    assert document["verdict"]["headline"] == "Not well: 1 of 2 shards does not serve"
    assert document["verdict"]["reasons"] == [f"process 1: {said}"]
    assert (document["shards"][1]["healthy"], document["shards"][1]["cause"]) == (False, f"process 1: {said}")
    following = document["shards"][1]["next"]
    assert (following["kind"], following["action"]) == ("planned", "process")
    assert following["text"] == "Start of process 1, then RESUME"
    assert [one["headline"] for one in document["process"]["processes"]] == ["Well: the shard serves", said]
    ready = await group.ask("/readyz")
    assert (ready.status, ready.document["reasons"]) == (503, [f"process 1: {said}"])
    assert (await group.ask("/livez")).status == 200, "it is started again, which a restart of all would not do faster"
    scrape = (await group.ask("/metrics")).body.decode()
    assert 'discorder_ready{process="0"} 1.0' in scrape
    for sample in (
        'discorder_ready{process="1"} 0.0',
        'discorder_shards{process="1",state="Disconnected"} 1.0',
        'discorder_paused_shards{process="1"} 0.0',
        'discorder_shard_ready{process="1",shard="1"} 0.0',
    ):
        assert sample in scrape, "or no alert fires"
    await group.end(0)
    assert (await group.ask("/status.json")).document["verdict"]["level"] == "down"
    assert (await group.ask("/metrics")).status == 200


async def test_the_end_that_was_asked_for_is_no_failure(group: Group) -> None:
    for member in group.members:
        member.stops = True
    await group.end(1)
    verdict = (await group.ask("/status.json")).document["verdict"]
    assert (verdict["level"], verdict["headline"]) == ("stopping", "Stopping")


async def test_a_process_that_runs_and_does_not_answer_is_not_alive(group: Group) -> None:
    await group.planes[1].stage.stop()
    live = await group.ask("/livez")
    assert (live.status, live.document["reasons"]) == (503, ["process 1: it does not answer"])


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
async def test_metrics_have_the_process_as_a_label(group: Group, accept: str) -> None:
    answer = await group.ask("/metrics", headers={"Accept": accept, "Accept-Encoding": "gzip"})
    text = answer.body.decode()
    for number in range(2):
        assert f'discorder_shard_ready{{process="{number}",shard="{number}"}} 1.0' in text
        assert f'discorder_heartbeats_sent_total{{process="{number}"}} ' in text
    heads = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(heads) == len(set(heads))
    if accept:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert (text.count("# EOF"), text.endswith("# EOF\n")) == (1, True)
    else:
        assert promtool("check", "metrics", given=text) == ""


async def test_from_another_host_a_login_is_needed(group: Group) -> None:
    for path in ("/", "/status.json", "/metrics", "/events"):
        assert (await group.ask(path, headers=FOREIGN)).status == 401
    ready = await group.ask("/readyz", headers=FOREIGN)
    assert (ready.status, ready.document) == (200, {"ready": True})


# ---------------------------------------------------------------- the stream


async def test_the_events_of_all_processes_are_one_stream(group: Group, sim: Simulator) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []

    async def until(kind: str, wanted: Any) -> dict[str, Any]:
        async for name, data in events:
            seen.append((name, data))
            if name == kind and wanted(data):
                return data
        raise AssertionError(seen)

    async with asyncio.timeout(20), aclosing(group.events()) as events:  # type: ignore[type-var]  # an async generator
        whole = await until("status", lambda data: data["verdict"]["healthy"])
        assert len(whole["shards"]) == 2
        await until("flow", lambda data: len(data["process"]["processes"]) == 2)
        await sim.drop(shard=1)
        await until("transition", lambda data: data["transition"]["shard"] == 1)
        await until("shards", lambda data: data["shards"][0]["owner"] == "process 1")
        await until("verdict", lambda data: data["verdict"]["headline"] == "Not well: 1 of 2 shards does not serve")
        await until("verdict", lambda data: data["verdict"]["healthy"])
        await group.end(0)
        await until("status", lambda data: data["shards"][0]["cause"] == "process 0: it does not run: exit code -9")
    logged = [record for name, data in seen if name == "log" for record in data["log"]]
    assert any(record["fields"].get("process") == record["fields"].get("shard") == 1 for record in logged)


# ---------------------------------------------------------------- commands


async def test_a_command_reaches_the_process_that_has_the_shard(group: Group) -> None:
    bearer = group.planes[0].bearer
    assert (await group.ask("/shards/1/pause", "POST")).status == 401
    paused = await group.ask("/shards/1/pause", "POST", headers=bearer)
    assert (paused.status, "shard 1 is paused" in paused.document["done"]) == (200, True)
    shard = group.planes[1].stage.tracker.shards[0]
    assert shard.paused_since is not None
    async with asyncio.timeout(60):
        while shard.state != "Restarting":  # noqa: ASYNC110  # the answers below name the state
            await asyncio.sleep(0.01)
    again = await group.ask("/shards/1/pause", "POST", headers=bearer)
    direct = await group.planes[1].ask("/shards/1/pause", "POST", headers=bearer)
    assert (again.status, again.body) == (direct.status, direct.body)
    absent = await group.ask("/shards/7/restart", "POST", headers=bearer)
    assert (absent.status, absent.error) == (404, "no process has a shard 7; there are 2, from 0 to 1")
    await group.end(1)
    late = await group.ask("/shards/1/unpause", "POST", headers=bearer)
    assert (late.status, late.error) == (
        503,
        "process 1 has shard 1, and it does not run: exit code -9; nothing was done, try again later",
    )


async def test_no_shard_comes_or_goes_in_a_group(group: Group) -> None:
    """The supervising process knows by its configuration which process has which shard."""
    for verb in ("release", "start"):
        refused = await group.ask(f"/shards/1/{verb}", "POST", headers=group.planes[0].bearer)
        assert (refused.status, refused.error.partition(":")[0]) == (409, f"{verb} has no effect")
    assert [len(plane.stage.tracker.shards) for plane in group.planes] == [1, 1]


async def test_a_shutdown_is_for_all(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    bearer = group.planes[0].bearer
    assert (await group.ask("/shutdown", "POST")).status == 401
    assert (await group.ask("/shutdown", "POST", headers=bearer, data=b"{")).status == 400
    assert group.stops == []
    done = (await group.ask("/shutdown", "POST", headers=bearer, data=b'{"goodbye": true}')).document["done"]
    assert (group.stops, done) == ([True], "all 2 processes shut down; the sessions end and the bot goes offline")


# ---------------------------------------------------------------- flows


def flows(begin: int, step: int, **points: float) -> FlowsPart:
    """Flows that begin at a second of an hour. ``points``: the last ones, as p0, p1, ..., p0 the very last."""
    rates: list[float | None] = [None] * 180
    for name, rate in points.items():
        rates[-1 - int(name[1:])] = rate
    at = f"2026-01-01T00:{begin // 60:02d}:{begin % 60:02d}.000Z"
    latency = LatencyPart(median=list(rates), worst=list(rates))
    return FlowsPart(step_s=step, from_=at, events_per_s=rates, latency_s=latency, not_serving=[])


def test_rates_of_one_moment_are_added() -> None:
    merged = merge_flows([flows(10, 1, p0=5.0, p1=1.0, p2=2.0), flows(9, 1, p0=10.0, p1=20.0)], "")
    assert merged.events_per_s[-3:] == [22.0, 11.0, 5.0]
    assert merged.latency_s.worst[-3:] == [20.0, 10.0, 5.0]
    assert merged.latency_s.median[-3:] == [11.0, 5.5, 5.0]


def test_a_process_that_began_later_has_finer_points() -> None:
    """Five points of a second are one of five seconds; the wide points reach from 0 to 900 s, the fine ones from 720 s."""
    fine = flows(720, 1, **{f"p{place}": 4.0 for place in range(10)})
    merged = merge_flows([flows(0, 5, p0=1.0, p1=2.0, p2=3.0), fine], "")
    assert (merged.step_s, merged.events_per_s[-3:]) == (5, [3.0, 6.0, 5.0])


def test_an_outage_of_all_is_the_time_in_which_no_process_served() -> None:
    one, two = flows(0, 1), flows(0, 1)
    at = "2026-01-01T00:00:{:02d}.000Z".format
    one.not_serving = [OutagePart(from_=at(1), to=at(5)), OutagePart(from_=at(8), to=None)]
    two.not_serving = [OutagePart(from_=at(3), to=at(9)), OutagePart(from_=at(20), to=None)]
    merged = merge_flows([one, two], "")
    assert [(outage.from_, outage.to) for outage in merged.not_serving] == [
        (at(3), at(5)),
        (at(8), at(9)),
        (at(20), None),
    ]
