"""What the console costs while very much goes on: the daemon, and the page itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bench.answers import Spec
from bench.contenders import Contender, Unavailable
from bench.load import Received, connections
from bench.numbers import Measures
from bench.relay import close
from testing.chromium import ARGUMENTS, MISSING, find_chromium

COUNT = 1000
"""Requests under way."""

_RAMP = 5.0
_WINDOW = 12.0
_MEGABYTE = 1e6
# Browsers call a task long from 50 ms on.
_WATCH = """
window.longTasks = [];
new PerformanceObserver((list) => longTasks.push(...list.getEntries().map((one) => one.duration)))
  .observe({ type: "longtask" });
"""


async def measure(contender: Contender) -> Measures:
    """
    Slow streams, first without a page, and then with one that shows them.

    @raise Unavailable: there is no browser.
    """
    port = contender.target.port
    clients = await connections(port, COUNT)
    spec = Spec(int(_RAMP + 3 * _WINDOW), 40, 1000)
    request = contender.target.request(spec.model, True)
    asking: list[asyncio.Future[Received]] = []
    try:
        async with _browser() as browser:
            asking += (client.ask_only(request) for client in clients)
            await asyncio.sleep(_RAMP)
            without = await _share(contender)
            page = await browser.new_page()
            tools = await page.context.new_cdp_session(page)
            await tools.send("Performance.enable", {"timeDomain": "threadTicks"})
            await page.add_init_script(_WATCH)
            await page.goto(f"http://localhost:{port}/console#now")
            await page.get_by_text(f"{COUNT:,} requests under way").wait_for()
            # What is loaded once does not count, and nor does collecting garbage on demand.
            await asyncio.sleep(1)
            before = await _metrics(tools)
            await page.evaluate("longTasks.length = 0")
            share = await _share(contender)
            long_tasks = await page.evaluate("longTasks")
            after = await _metrics(tools)
    finally:
        close(clients)
        await asyncio.gather(*asking, return_exceptions=True)
    return {
        "requests": COUNT,
        "daemon_share": (share - without) * 100,
        "page_share": (after["TaskDuration"] - before["TaskDuration"]) / _WINDOW * 100,
        "long_tasks": len(long_tasks),
        "longest_ms": max(long_tasks, default=None),
        "heap_mb": after["JSHeapUsedSize"] / _MEGABYTE,
    }


async def _share(contender: Contender) -> float:
    """The share of a CPU that the daemon takes."""
    before = contender.process.cost().cpu
    await asyncio.sleep(_WINDOW)
    return (contender.process.cost().cpu - before) / _WINDOW


async def _metrics(tools: Any) -> dict[str, float]:
    await tools.send("HeapProfiler.collectGarbage")
    metrics = (await tools.send("Performance.getMetrics"))["metrics"]
    return {one["name"]: one["value"] for one in metrics}


@asynccontextmanager
async def _browser() -> AsyncIterator[Any]:
    path = find_chromium()
    if path is None:
        raise Unavailable(MISSING)
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        yield await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
