"""A real Prometheus scrapes a control plane over HTTP and evaluates the alert rules."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml

from discorder.clock import SystemClock
from discorder.simulator import Simulator
from tests.metrics.alert_rules import ROOT, RULES, rules

if TYPE_CHECKING:
    from tests.harness import Stage, StartStage

Start = Callable[..., Awaitable[Simulator]]
pytestmark = [pytest.mark.system, pytest.mark.heavy]


class Prometheus:
    """A Prometheus that scrapes every half second, by its HTTP API."""

    def __init__(self, address: str, session: aiohttp.ClientSession) -> None:
        self._address = address
        self._session = session

    async def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer."""
        async with self._session.get(f"http://{self._address}/api/v1/{path}", params=parameters) as response:
            answer = await response.json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def query(self, expression: str) -> list[float]:
        """Return the values of an instant query."""
        return [float(one["value"][1]) for one in (await self.ask("query", query=expression))["result"]]

    async def until(self, expression: str, *values: float) -> None:
        """Wait until a query has these values."""
        async with asyncio.timeout(60):
            while await self.query(expression) != list(values):  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.1)


def expression(alert: str) -> str:
    return str(next(rule["expr"] for rule in rules() if rule["alert"] == alert))


@pytest.fixture
async def stage(start_simulator: Start, start_stage: StartStage, tmp_path: Path) -> Stage:
    """A plane on real time with an HTTP server."""
    settings = ("http.bind=127.0.0.1:0", f"http.operator_token_file={tmp_path / 'operator-token'}")
    stage = start_stage(await start_simulator(), *settings, clock=SystemClock())
    await stage.ready()
    return stage


@pytest.fixture
async def prometheus(stage: Stage, tmp_path: Path) -> AsyncIterator[Prometheus]:
    """A Prometheus with the sample configuration, which scrapes the plane."""
    if shutil.which("prometheus") is None and os.environ.get("CI") != "true":
        pytest.skip("prometheus is not installed")
    sample = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yaml").read_text())
    (job,) = sample["scrape_configs"]
    job["static_configs"] = [{"targets": [(stage.tracker.status_url or "").split("/")[2]]}]
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(RULES)],
        "scrape_configs": [job],
    }
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    process = await asyncio.create_subprocess_exec(
        *("prometheus", f"--config.file={tmp_path / 'prometheus.yaml'}", f"--storage.tsdb.path={tmp_path / 'data'}"),
        "--web.listen-address=127.0.0.1:0",
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    address = ""
    try:
        async with asyncio.timeout(60):
            async for line in process.stderr:
                if found := re.search(rb'"Listening on" address=(\S+)', line):
                    address = found[1].decode()
                if b"ready to receive web requests" in line:
                    break
        reading = asyncio.create_task(process.stderr.read())
        async with aiohttp.ClientSession() as session:
            yield Prometheus(address, session)
    finally:
        process.kill()
        await process.wait()
    await reading


async def test_prometheus_scrapes_a_plane_and_sees_it_fail_and_end(stage: Stage, prometheus: Prometheus) -> None:
    await prometheus.until('up{job="discorder"}', 1)
    await prometheus.until("discorder_ready", 1)
    targets = (await prometheus.ask("targets"))["activeTargets"]
    assert [target["lastError"] for target in targets] == [""]
    described = await prometheus.ask("metadata")
    assert described["discorder_shard_events"][0]["type"] == "counter"
    assert described["discorder_heartbeat_latency_seconds"][0]["type"] == "histogram"

    assert await prometheus.query(expression("DiscorderNoShardReady")) == []
    stage.tracker.throw_to("processor", OSError("the network is gone"))
    await prometheus.until("discorder_restarts_total", 1)
    await prometheus.until("discorder_resumes_total", 1)
    await prometheus.until('discorder_shards{state="Ready"}', 1)

    await stage.stop()
    await prometheus.until(expression("DiscorderDown"), 0)
    groups = (await prometheus.ask("rules"))["groups"]
    evaluated = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert {name: rule["lastError"] for name, rule in evaluated.items() if rule.get("lastError")} == {}
    assert len(evaluated) == len(rules())
    async with asyncio.timeout(60):
        while evaluated["DiscorderDown"]["state"] != "pending":  # it fires after a minute
            await asyncio.sleep(0.2)
            groups = (await prometheus.ask("rules"))["groups"]
            evaluated = {rule["name"]: rule for group in groups for rule in group["rules"]}
