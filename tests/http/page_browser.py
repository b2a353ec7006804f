"""Open pages in Debian's Chromium, without a screen and without any traffic of its own."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--disable-quic"),
)
WAIT_SECONDS = 60.0  # for anything that a test waits for
POLL_MS = 30


def chromium_path() -> str:
    """Return the browser's path. Skip the test without it, except in CI."""
    executable = shutil.which("chromium")
    if executable is None:
        reason = "Debian's chromium is not installed: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return executable


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser with a fresh profile."""
    executable = chromium_path()
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  # other tests do without it

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS), headless=True)
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The browser, shared by the tests of a module. Each test has a profile of its own."""
    with chromium() as started:
        yield started


@dataclass
class Watched:
    """A page, and what it wrote to the console: messages, failures of scripts, reports of the policy."""

    page: Page
    console: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        """Return the text of an element, as a reader sees it."""
        return self.page.locator(selector).inner_text()

    def until(self, expression: str) -> None:
        """Wait until a JavaScript expression is true. Playwright's own wait needs an eval that the page's policy forbids."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, f"not within {WAIT_SECONDS:g} s: {expression}"
            self.page.wait_for_timeout(POLL_MS)


OpenPage = Callable[..., Watched]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open an address in a new profile; keywords are those of Playwright's new_context. The console must stay empty."""
    opened: list[Watched] = []
    with ExitStack() as stack:

        def open_page(url: str, *, script: str = "", **options: Any) -> Watched:
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
            stack.callback(context.close)
            context.set_default_timeout(WAIT_SECONDS * 1000)
            page = context.new_page()
            watched = Watched(page)
            page.on("console", lambda message: watched.console.append(message.text))
            page.on("pageerror", lambda error: watched.console.append(str(error)))
            if script:
                page.add_init_script(script)
            page.goto(url)
            opened.append(watched)
            return watched

        yield open_page
        assert [line for watched in opened for line in watched.console] == []
