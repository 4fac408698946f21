"""A Chromium for tests of the page, and what is looked at in it."""

import os
import shutil
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import async_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SHOTS = os.environ.get("HIMARI_SHOTS", "")
"""Folder for pictures of each state; "" makes none."""
QUIET_S = 60.0


def chromium():
    """Return the path of a Chromium; skip loudly without one, and fail in CI."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        reason = "the page in a browser: no chromium on the path (apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@asynccontextmanager
async def browser():
    """Run a Chromium without a window."""
    async with async_playwright() as play:
        found = await play.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield found
        finally:
            await found.close()


class Tab:
    """One tab at the page, and all that it complained of."""

    def __init__(self, page):
        self.page, self.complaints = page, []
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    async def text(self, selector):
        return (await self.page.locator(selector).inner_text()).strip()

    async def until(self, script, *values):
        """Wait until a script is true in the tab."""
        await self.page.wait_for_function(script, arg=list(values), timeout=1000 * QUIET_S)

    async def state(self, word):
        """Wait until the page is in a state: connecting, live, stale or disconnected."""
        await self.until("([word]) => document.documentElement.dataset.state === word", word)

    async def shot(self, name, *, whole=False):
        if SHOTS:
            await self.page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), full_page=whole)

    async def findings(self):
        """Return what axe finds, one line each."""
        found = await Axe().run(self.page)
        return [
            f"{each['id']}: {node['target']} {node.get('failureSummary', '')}"
            for each in found.response["violations"]
            for node in each["nodes"]
        ]


@asynccontextmanager
async def tab(browser, url, *, theme="dark", width=1440, height=900, motion="no-preference"):
    """Open the page in a tab of its own and wait until it is live."""
    context = await browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion=motion
    )
    try:
        opened = Tab(await context.new_page())
        await opened.page.goto(url)
        yield opened
    finally:
        await context.close()
