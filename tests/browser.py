"""A real browser: Chromium, without a window, driven by Playwright in a thread of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from playwright.sync_api import Browser, Page, expect, sync_playwright
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThreadPool
from twisted.python.threadpool import ThreadPool

from testing.chromium import ARGUMENTS, MISSING, find_chromium
from tests.support import ROOT

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
# Playwright's objects may be used in the thread alone in which they were made.
_THREAD = ThreadPool(1, 1, "browser")
# Milliseconds until a test gives up on what it waits for.
PATIENCE = 15_000


def in_browser(test: Callable[..., None]) -> Callable[..., Any]:
    """
    A test that looks at a page, while the reactor runs.

    It is no coroutine function: each of its lines waits for the browser. It has the fixture
    C{page}, or makes pages of the fixture C{chromium}.
    """

    @wraps(test)
    async def run(**fixtures: Any) -> None:
        await deferToThreadPool(reactor, _THREAD, partial(test, **fixtures))

    return pytest.mark.browser(pytest_twisted.ensureDeferred(run))


def in_reactor(function: Callable[..., Any], *args: Any) -> Any:
    """What a function returns that is called where the daemon runs; it may be a coroutine."""

    async def call() -> Any:
        result = function(*args)
        return await result if hasattr(result, "__await__") else result

    return blockingCallFromThread(reactor, lambda: Deferred.fromCoroutine(call()))


def _in_thread(function: Callable[..., Any], *args: Any) -> Any:
    return pytest_twisted.blockon(deferToThreadPool(reactor, _THREAD, function, *args))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One for all tests; they are skipped where there is none."""
    path = find_chromium()
    if path is None:
        pytest.skip(MISSING)
    expect.set_options(timeout=PATIENCE)
    _THREAD.start()
    try:
        playwright = _in_thread(lambda: sync_playwright().start())
        launch = playwright.chromium.launch
        yield _in_thread(partial(launch, executable_path=path, args=ARGUMENTS))
        # It ends the browser too.
        _in_thread(playwright.stop)
    finally:
        _THREAD.stop()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """
    A page of nobody who has been here before. No test passes if a script of it fails, or anything
    breaks the page's policy.
    """
    made = _in_thread(lambda: new_page(chromium))
    yield made
    _in_thread(made.context.close)
    assert made.failures == []


def new_page(chromium: Browser, **options: Any) -> Any:
    page: Any = chromium.new_context(reduced_motion="reduce", **options).new_page()
    page.set_default_timeout(PATIENCE)
    page.failures = []
    page.on("pageerror", lambda error: page.failures.append(str(error)))
    page.on("console", lambda message: _look_at(message, page.failures))
    page.on("dialog", lambda dialog: page.failures.append(f"a dialog: {dialog.message}"))
    return page


def _look_at(message: Any, failures: list[str]) -> None:
    # A response that is an error is in the console too, and is none of the page.
    if message.type == "error" and "Failed to load resource" not in message.text:
        failures.append(message.text)


def open_view(page: Page, port: int, view: str = "now") -> None:
    """Go to a view of the console, and wait until it is there, or the key is asked for."""
    page.goto(f"http://localhost:{port}/console#{view}")
    page.wait_for_selector(f"main[data-shown='{view}'], main[data-shown='login']")


def picture(page: Page, name: str) -> None:
    """Keep what is seen now for the documentation: C{make screenshots}."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=Path(folder) / f"{name}.png")


def barriers(page: Page, *rules: str) -> list[str]:
    """
    What axe finds that keeps somebody from using the page as it is now.

    @param rules: those that are looked at; none for all.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text())
    options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
    found = page.evaluate("(options) => axe.run(document, options)", options)
    return [
        f"{violation['id']}: {node['html']} {node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]
