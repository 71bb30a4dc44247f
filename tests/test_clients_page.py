"""docs/clients.md says what the tests run."""

from __future__ import annotations

from tests.clients.clients import SDKS, sdk_row
from tests.clients.features import FEATURES
from tests.clients.page import PAGE, blocks
from tests.test_docs import rows


def test_the_tables_are_those_of_the_tests():
    assert rows(PAGE, "SDKs") == [sdk_row(sdk) for sdk in SDKS]
    meanings = [f"| {name} | {feature.meaning} |" for name, feature in FEATURES.items()]
    assert rows(PAGE, "Features") == meanings


def test_each_client_has_a_configuration():
    for client in SDKS:
        assert blocks(client.name)
