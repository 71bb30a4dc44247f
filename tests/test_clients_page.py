"""docs/clients.md says what the tests run."""

from __future__ import annotations

from tests.clients.clients import PROGRAMS, SDKS, program_row, sdk_row
from tests.clients.features import FEATURES
from tests.clients.page import PAGE, blocks
from tests.test_docs import rows


def test_the_tables_are_those_of_the_tests():
    assert rows(PAGE, "SDKs") == [sdk_row(sdk) for sdk in SDKS]
    assert rows(PAGE, "Programs") == [program_row(program) for program in PROGRAMS]
    meanings = [f"| {name} | {feature.meaning} |" for name, feature in FEATURES.items()]
    assert rows(PAGE, "Features") == meanings


def test_each_client_has_a_configuration():
    for client in (*SDKS, *PROGRAMS):
        assert blocks(client.name)
