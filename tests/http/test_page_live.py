"""The page in a browser, beside a control plane whose connections a simulator breaks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright

from discorder.clock import SystemClock
from discorder.simulator import Simulator
from tests.commandline import Command
from tests.harness import StartStage
from tests.http.conftest import Serve, Served
from tests.http.page_browser import FLAGS, WAIT_SECONDS, chromium_path

pytestmark = [pytest.mark.heavy, pytest.mark.system]

Open = Callable[[str], Awaitable[Page]]


@pytest.fixture
async def open_page() -> AsyncIterator[Open]:
    """Open an address in a new browser. Its console must stay empty, apart from a stream that the server has ended."""
    console: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path(), args=list(FLAGS))

        async def open_page(url: str) -> Page:
            page = await browser.new_page(viewport={"width": 1280, "height": 900})
            page.on("console", lambda message: console.append(message.text))
            page.on("pageerror", lambda error: console.append(str(error)))
            await page.goto(url)
            await until(page, "document.getElementById('live-text').textContent.startsWith('Live')")
            return page

        yield open_page
        await browser.close()
    assert [line for line in console if "net::ERR" not in line] == []


async def until(page: Page, expression: str, *, within: float = WAIT_SECONDS) -> Any:
    """Wait until a JavaScript expression is true, and return its value."""
    async with asyncio.timeout(within):
        while not (value := await page.evaluate(expression)):  # noqa: ASYNC110  # the event is in the browser
            await asyncio.sleep(0.02)
        return value


LEVEL = "document.getElementById('verdict').dataset.level"
CURRENT = "document.querySelector('.lc .state.current')?.dataset.state"
WATCH = """window.sameDocument = true; window.walked = [];
const note = (dot) => window.walked.push(dot.getAttribute("class"));
new MutationObserver((all) => all.forEach((one) => one.addedNodes.forEach(note)))
  .observe(document.getElementById("lc-dots"), {childList: true});
window.answered = [];
const answers = document.getElementById("answers");
new MutationObserver(() => window.answered.push(answers.innerText))
  .observe(answers, {childList: true, characterData: true, subtree: true});"""


async def test_a_cut_connection_and_its_recovery_are_shown_live(serve: Serve, sim: Simulator, open_page: Open) -> None:
    served = await serve(rng=random.Random(7))
    page = await open_page(served.url)
    assert await page.title() == "Well · Discorder"
    await page.evaluate(WATCH)
    await sim.refuse_upgrades()
    await sim.drop()
    await until(page, f"{LEVEL} === 'down'")  # measured: 0.1 s
    await until(page, f"{CURRENT} === 'Restarting'")
    # shown, before the first attempt fails
    for words in (
        "Why\\nclosed: closed by network",
        "RESUME on the resume host",
    ):
        await until(page, f'window.answered.some((text) => text.includes("{words}"))')
    await until(page, "/^(in [0-9.]+ m?s|now)$/.test(document.querySelector('.lc .current .clock')?.textContent)")
    await until(page, "window.walked.length >= 2")
    assert (await page.evaluate("window.walked"))[:2] == ["dot failure", "dot recovery"]
    await sim.heal()
    await until(page, f"{LEVEL} === 'well'", within=30)
    assert await page.evaluate(CURRENT) == "Ready"
    assert await page.text_content(".lc .edge.lit .said") == "resumed"
    assert "Resuming → Ready" in await page.inner_text("#history-rows tr:first-child")
    assert await page.evaluate("window.sameDocument")


async def test_page_document_and_command_say_the_same_words(
    serve: Serve, sim: Simulator, open_page: Open, discorder: Command
) -> None:
    served = await serve(rng=random.Random(7))
    page = await open_page(served.url)
    await sim.refuse_upgrades(retry_after=30)
    await sim.drop()
    # both hosts were tried
    await until(page, "/ in 2.* s.*attempt 2/.test(document.getElementById('answers').textContent)")
    document = (await served.ask("/status.json")).document
    (shard,) = document["shards"]
    shown = await page.inner_text("main")
    said = (await discorder("status", "--url", served.url)).out
    for words in (document["verdict"]["headline"], shard["cause"], shard["next"]["text"]):
        assert words in shown
        assert set(words.split()) <= set(said.replace(",", " ").split())  # a cell of its table may be wrapped


async def test_a_control_plane_that_has_gone_is_not_called_well(serve: Serve, open_page: Open) -> None:
    served = await serve()
    page = await open_page(served.url)
    served.stage.task.cancel()
    await asyncio.gather(served.stage.task, return_exceptions=True)
    await until(page, f"{LEVEL} === 'unknown'", within=30)
    assert await page.title() == "Not known · Discorder"


async def test_one_of_64_shards_in_trouble_is_told_apart(start_stage: StartStage, open_page: Open) -> None:
    async with Simulator(guilds=64, shards=64, identify_spacing=0.0, max_concurrency=64) as sim:
        stage = start_stage(sim, "http.bind=127.0.0.1:0", "gateway.shards=64", clock=SystemClock())
        tracker = await stage.result(stage.ref.ready())
        assert tracker.status_url is not None
        page = await open_page(tracker.status_url)
        assert await page.locator("#tiles-ready .tile").count() == 64
        await sim.refuse_upgrades(retry_after=20)
        await sim.drop(shard=5)
        await until(page, f"{LEVEL} === 'impaired'")
        await until(page, "document.querySelectorAll('#tiles-ready .tile').length === 63")
        tile = "document.querySelector('#tiles-ill .tile')?.textContent"
        await until(page, f"{tile}?.startsWith('Shard 5 Restarting')")
        await until(page, "document.querySelector('.lc [data-state=Ready] .count.on text')?.textContent === '63'")
        assert (await page.inner_text("#problem-rows tr")).startswith("5")
        await page.dispatch_event("#problem-rows .link", "click")  # at once: the row is drawn anew each second
        await until(page, "document.querySelector('#picked h3')?.textContent === 'Shard 5'")
        stage.task.cancel()  # before the simulator ends; 64 shards that dial in vain are a minute of work
        await asyncio.gather(stage.task, return_exceptions=True)


async def test_nothing_secret_is_in_the_page(served: Served, sim: Simulator) -> None:
    body = (await served.ask("/")).body.decode()
    session = served.stage.tracker.shards[0].session
    assert session is not None
    for secret in (sim.token, served.token, session.session_id):
        assert secret not in body


async def test_the_page_comes_with_its_policy_and_compressed(served: Served) -> None:
    answer = await served.ask("/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Encoding"] == "gzip"
    policy = answer.headers["Content-Security-Policy"]
    assert "script-src 'sha256-" in policy
    assert "unsafe" not in policy
