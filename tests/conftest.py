from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator

import hypothesis
import pytest
import pytest_twisted
from twisted.internet import reactor

from gemproxy.http.agent import PersistentAgent, endpoints
from gemproxy.http.write_coalescer import WriteCoalescer
from gemproxy.service import Patience
from testing.fake_newapi import FakeNewApi
from tests.support import Product, Relay, no_failures, running_relay, shared_daemon

# An example takes long when the machine is busy, and that is no fault of the code. Where nobody
# watches, every run has the same examples: what fails there fails for the change at hand.
hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.register_profile("quick", deadline=None, print_blob=True, max_examples=20)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

shared_product = shared_daemon("session", has_twin=True)


@pytest_twisted.async_yield_fixture
async def product(shared_product: Product) -> AsyncIterator[Product]:
    with no_failures():
        shared_product.begin_test()
        yield shared_product
        await shared_product.end_test()


@pytest.fixture(params=["gemini", "stream"])
def port(request: pytest.FixtureRequest, product: Product) -> int:
    """That of each proxy, one after the other."""
    return product.port if request.param == "gemini" else product.stream_port


@pytest.fixture
def patience() -> Patience:
    """What tests override by a parameter of this name."""
    return Patience()


@pytest_twisted.async_yield_fixture
async def relay(patience: Patience) -> AsyncIterator[Relay]:
    async with running_relay(patience) as relay:
        yield relay


def pytest_configure() -> None:
    """What is imported and collected stays: to look for garbage in it costs seconds."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    A test whose daemon has workers runs the real CLI; others that do are marked by hand. With the
    engine that has none, those run that are marked so.
    """
    needless = []
    for item in items:
        engine = _engine_of(item)
        if engine == "cli":
            item.add_marker(pytest.mark.cli)
        elif engine is not None:
            of_both = item.get_closest_marker("both_engines")
            if of_both is None or item.get_closest_marker("of_workers"):
                needless.append(item)
            elif not of_both.kwargs.get("quick", True):
                item.add_marker(pytest.mark.slow)
    config.hook.pytest_deselected(items=needless)
    items[:] = [item for item in items if item not in needless]


def _engine_of(item: pytest.Item) -> str | None:
    """That of the daemon that a test shares."""
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("shared_product")


@pytest_twisted.async_yield_fixture
async def upstream() -> AsyncIterator[FakeNewApi]:
    fake = FakeNewApi()
    yield fake
    await fake.stop()


@pytest_twisted.async_yield_fixture
async def agent() -> AsyncIterator[PersistentAgent]:
    agent = PersistentAgent(reactor, WriteCoalescer(), endpoints(reactor, 10))
    yield agent
    await agent.close()
