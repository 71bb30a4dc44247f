"""Each SDK with each of its features against both ports, configured as docs/clients.md says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pytest_twisted import ensureDeferred

from tests.clients.clients import SDKS, Sdk
from tests.clients.conversation import Conversation
from tests.clients.features import FEATURES
from tests.support import Product

pytestmark = pytest.mark.sdk


@pytest.mark.parametrize(
    ("sdk", "feature"),
    [
        pytest.param(sdk, feature, id=f"{sdk.name}: {feature}")
        for sdk in SDKS
        for feature in sdk.features
    ],
)
@ensureDeferred
async def test_it_does_what_the_page_says(
    sdk: Sdk,
    feature: str,
    product: Product,
    port: int,
    speaking: Callable[[Sdk, int], Conversation],
):
    conversation = speaking(sdk, port)
    played = FEATURES[feature]
    product.api.play(*played.plays)
    result = await conversation.do(sdk.name, feature)
    played.check(result, product.asked)
