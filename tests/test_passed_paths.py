"""What New-API serves outside of /v1, and what is not served for Gemini's models there."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from testing.fake_newapi import document
from tests.support import Relay, running_relay
from tests.test_passthrough import BINARY, pass_through

OUTSIDE = [
    ("GET", "/dashboard/billing/subscription"),
    ("GET", "/dashboard/billing/usage?start_date=2026-11-01&end_date=2026-11-28"),
    ("GET", "/api/usage/token/"),
    ("GET", "/api/usage/token"),
    ("GET", "/v1beta/openai/models"),
    ("POST", "/v1beta/models/gpt-x:generateContent?alt=sse"),
    ("POST", "/v1beta/openai/chat/completions"),
    ("POST", "/mj/submit/imagine"),
    ("GET", "/mj/task/1/fetch"),
    ("POST", "/suno/submit/music"),
    ("GET", "/suno"),
]
OF_THE_API = [
    ("POST", "/v1/videos"),
    ("GET", "/v1/videos/1/content"),
    ("POST", "/v1/models/x:generateContent"),
    ("PUT", "/v1/models/x"),
    ("PATCH", "/v1/models/org/x"),
    ("GET", "/v1/dashboard/billing/usage"),
]


@pytest.mark.parametrize(("method", "target"), OUTSIDE + OF_THE_API)
@ensureDeferred
async def test_it_reaches_the_upstream_with_its_body(
    relay: Relay, method: str, target: str
) -> None:
    relay.upstream.always(document({"ok": True}))
    for body in (None,) if method == "GET" else (b'{"model": "gpt-x"}', BINARY):
        call, reply = await pass_through(
            relay, method, target, body, Content_Type="application/json"
        )
        assert (call.method, call.target) == (method, target)
        assert bytes(call.body) == (body or b"")
        assert reply.json == {"ok": True}


@ensureDeferred
async def test_the_path_of_the_base_url_is_for_the_api_alone() -> None:
    async with running_relay() as other:
        url = other.upstream.url + "/openai/v1"
        async with running_relay(UPSTREAM_URL=url) as relay:
            for method, target in (*OUTSIDE, *OF_THE_API):
                await (await relay.send(method, target)).reply()
                seen = other.upstream.calls[-1].target
                expected = "/openai" + target if (method, target) in OF_THE_API else target
                assert seen == expected


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard",
        "/dashboard/x",
        "/api/usage",
        "/api/user/self",
        "/api/usage/tokens",
        "/v1betas/models",
        "/v2/models",
        "/mjx",
        "/mj/%2e%2e/api/user",
        "/api/usage/token/../../user",
    ],
)
@ensureDeferred
async def test_everything_else_stays_unknown(relay: Relay, path: str) -> None:
    for method in ("GET", "POST"):
        reply = await (await relay.send(method, path, b"{}")).reply()
        assert reply.status in (400, 404)
        assert reply.error["type"] == "invalid_request_error"
    assert relay.upstream.calls == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1beta/openai/chat/completions", {"model": "gemini-2.5-flash"}),
        ("POST", "/v1beta/openai/embeddings", {"model": "gemini-embedding-001"}),
    ],
)
@ensureDeferred
async def test_what_is_not_served_for_gemini_says_what_is(
    relay: Relay, method: str, path: str, body: Any
) -> None:
    reply = await (await relay.send(method, path, body, Content_Type="application/json")).reply()
    assert (reply.status, reply.error["code"]) == (404, "unknown_url")
    assert reply.headers["x-should-retry"] == "false"
    assert "/v1/chat/completions" in reply.error["message"]
    assert relay.upstream.calls == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1beta/../api/user", 400),
        ("/v1beta/..;/api/user", 400),
        ("/v1beta/models/google%2FGemini-3%3Apredict", 404),
        ("/v1/models/gemini-2.5-flash:batchGenerateContent", 404),
    ],
)
@ensureDeferred
async def test_at_googles_paths_the_errors_are_of_googles_kind(
    relay: Relay, path: str, status: int
) -> None:
    reply = await (await relay.send("POST", path, b"{}")).reply()
    words = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND"}
    assert (reply.status, reply.error["code"]) == (status, status)
    assert reply.error["status"] == words[status]
    assert relay.upstream.calls == []
