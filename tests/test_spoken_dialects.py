"""Upstreams that do not speak a client's dialect."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from gemproxy.config_file import DIALECT_NAMES
from gemproxy.dialects.registry import DIALECTS
from gemproxy.routing.spoken import MEMORY, SpokenDialects
from testing.fake_newapi import Script, document, stream
from tests.support import Relay, Reply

ASKED = b'{"model": "gpt-x",  "prompt": "Say"}'
# As New-API has it: service/error.go, relay/channel/*/adaptor.go
NOT_IMPLEMENTED = {
    "error": {
        "message": "not implemented",
        "type": "new_api_error",
        "code": "convert_request_failed",
    }
}


async def ask(relay: Relay) -> Reply:
    return await (await relay.send("POST", "/v1/completions", ASKED)).reply()


def asked(relay: Relay) -> list[str]:
    return [call.target for call in relay.upstream.calls]


def test_the_configuration_names_all_dialects():
    assert sorted(DIALECT_NAMES) == sorted(dialect.name for dialect in DIALECTS)


@ensureDeferred
async def test_what_the_upstream_speaks_passes_through(relay: Relay):
    relay.upstream.play(document(b'{"odd":  1}'))
    reply = await ask(relay)
    assert (reply.status, reply.body) == (200, b'{"odd":  1}')
    (call,) = relay.upstream.calls
    assert (call.target, bytes(call.body)) == ("/v1/completions", ASKED)


@pytest.mark.parametrize(
    "refusal",
    [
        document("404 page not found", 404),
        document({"error": {"message": "Method Not Allowed"}}, 405),
        document({}, 501),
        document(NOT_IMPLEMENTED, 500),
    ],
)
@ensureDeferred
async def test_what_it_does_not_speak_is_translated_from_then_on(relay: Relay, refusal: Script):
    relay.upstream.play(refusal, stream("Hello"), stream("again"))
    texts = [(await ask(relay)).json["choices"][0]["text"] for _ in range(2)]
    assert texts == ["Hello", "again"]
    assert asked(relay) == ["/v1/completions", "/v1/chat/completions", "/v1/chat/completions"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b'{"error": {"message": "database is locked"}}'),
        (400, b'{"error": {"message": "bad prompt"}}'),
        (429, b'{"error": {"message": "slow down"}}'),
        (500, b"x" * 100_000 + b"not implemented"),
    ],
)
@ensureDeferred
async def test_other_errors_are_the_answer(relay: Relay, status: int, body: bytes):
    relay.upstream.play(document(body, status), stream("no"))
    reply = await ask(relay)
    assert (reply.status, reply.body) == (status, body)
    assert asked(relay) == ["/v1/completions"]


def test_a_refusal_is_remembered_for_a_time():
    clock = Clock()
    spoken = SpokenDialects(clock)
    assert spoken.includes("messages", "m")
    spoken.refuse("messages", "m")
    assert not spoken.includes("messages", "m")
    assert spoken.includes("messages", "other")
    assert spoken.includes("responses", "m")
    clock.advance(MEMORY)
    assert spoken.includes("messages", "m")


def test_the_configuration_is_certain():
    spoken: Any = SpokenDialects(Clock(), ("messages",))
    assert spoken.includes("messages", "m")
    assert not spoken.includes("responses", "m")
    assert spoken.are_certain
    assert not SpokenDialects(Clock()).are_certain
