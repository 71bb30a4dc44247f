from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_twisted

from gemproxy.service import Patience
from tests.support import Product, Relay, running_relay, shared_daemon

shared_product = shared_daemon("session")


@pytest_twisted.async_yield_fixture
async def product(shared_product: Product) -> AsyncIterator[Product]:
    shared_product.begin_test()
    yield shared_product
    await shared_product.end_test()


@pytest.fixture
def patience() -> Patience:
    """What tests override by a parameter of this name."""
    return Patience()


@pytest_twisted.async_yield_fixture
async def relay(patience: Patience) -> AsyncIterator[Relay]:
    async with running_relay(patience) as relay:
        yield relay
