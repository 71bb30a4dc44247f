from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_twisted

from tests.clients.clients import Sdk
from tests.clients.conversation import Conversation, start
from tests.support import Product, shared_daemon

shared_product = shared_daemon("session", GEMINI_WORKERS=1)


@pytest.fixture(params=["3000", "3002"])
def port(request: pytest.FixtureRequest, product: Product) -> int:
    return product.port if request.param == "3000" else product.stream_port


@pytest_twisted.async_yield_fixture(scope="module")
async def speaking() -> AsyncIterator[Callable[[Sdk, int], Conversation]]:
    """Gives the program of an SDK, which runs until the module ends."""
    running: dict[tuple[str, str, int], Conversation] = {}

    def get(sdk: Sdk, port: int) -> Conversation:
        key = (sdk.program, sdk.place, port)
        if key not in running or running[key].ended.called:
            running[key] = start(*key)
        return running[key]

    yield get
    for conversation in running.values():
        await conversation.end()
