"""Errors in every spelling of upstreams, mostly inside a 200: their message and their status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol

from gemproxy.openai.errors import error_of, is_error
from testing.fake_newapi import DONE, answer, chunk, document, event, events, usage_chunk
from testing.processes import free_port
from testing.tls import make_certificate
from tests.support import Relay, gpt, running_relay
from tests.tables import each

both_modes = pytest.mark.parametrize("wanted", [True, False])
SAID = "The very words."


def inside(**fields: Any) -> dict[str, Any]:
    return {"error": {"message": SAID} | fields}


# What is said, and the status that it tells.
SPELLINGS: list[tuple[Any, int]] = [
    (inside(), 502),
    (inside(status_code=429), 429),
    (inside(status_code="503"), 503),
    (inside(code=401), 401),
    (inside(code="418"), 418),
    (inside(status=413, code="x"), 413),
    (inside(code=200), 502),
    (inside(code=True), 502),
    (inside(type="insufficient_quota"), 429),
    (inside(code="insufficient_quota", type="x"), 429),
    (inside(code="rate_limit_exceeded"), 429),
    (inside(type="rate_limit_error"), 429),
    (inside(type="invalid_request_error", code="invalid_api_key"), 401),
    (inside(type="authentication_error"), 401),
    (inside(code="context_length_exceeded"), 400),
    (inside(type="invalid_request_error"), 400),
    (inside(type="permission_error"), 403),
    (inside(code="model_not_found"), 404),
    (inside(type="overloaded_error"), 503),
    (inside(type="server_error"), 500),
    (inside(type="RateLimitError"), 429),
    (inside(type="litellm.BadRequestError"), 400),
    (inside(status="RESOURCE_EXHAUSTED"), 429),
    (inside(status="UNAVAILABLE"), 503),
    (inside(code="1302"), 429),
    ([inside(code=400, status="INVALID_ARGUMENT")], 400),
    (inside() | {"status_code": 429}, 429),
    (inside(type="new_api_error"), 502),
    ({"error": SAID}, 502),
    ({"error": SAID, "code": 429}, 429),
    ({"error": True, "message": SAID}, 502),
    ({"type": "error", "error": {"type": "overloaded_error", "message": SAID}}, 503),
    ({"object": "error", "message": SAID, "code": 42901}, 429),
    ({"object": "error", "message": SAID, "code": 40303}, 400),
    ({"object": "error", "message": SAID, "type": "NotFoundError", "code": 404}, 404),
    ({"object": "error", "message": SAID, "type": "BadRequestError", "code": None}, 400),
    ({"success": False, "message": SAID}, 502),
    ({"success": False, "errors": [{"code": 403, "message": SAID}]}, 403),
    ({"code": 401, "msg": SAID}, 401),
    ({"code": "InvalidParameter", "message": SAID, "request_id": "r"}, 400),
    ({"code": "Throttling.RateQuota", "message": SAID}, 429),
    ({"detail": SAID}, 502),
    ({"detail": [{"loc": ["body"], "msg": SAID}]}, 502),
    ({"base_resp": {"status_code": 1002, "status_msg": SAID}}, 429),
    ({"base_resp": {"status_code": 1004, "status_msg": SAID}, "choices": None}, 401),
    ({"error_code": 18, "error_msg": SAID}, 502),
]


@each(("payload", "status"), SPELLINGS)
def test_an_error_keeps_its_words_and_gets_the_status_that_it_tells(
    payload: Any, status: int
) -> None:
    assert is_error(payload)
    error = error_of(payload, json.dumps(payload).encode())
    assert (error.status, error.message) == (status, SAID)
    assert error.payload()["error"]["message"] == SAID


@each(
    "payload",
    [
        {},
        [],
        3,
        None,
        {"choices": [], "message": SAID, "code": 5},
        {"choices": None},
        chunk("One", error=None, base_resp={"status_code": 0, "status_msg": ""}),
        usage_chunk() | {"success": True, "code": 200, "message": "ok"},
        {"status": "queued", "message": "Wait."},
        {"type": "ping"},
        {"code": 0, "msg": "ok"},
    ],
)
def test_what_is_no_error_is_none(payload: Any) -> None:
    assert not is_error(payload)


@pytest.mark.parametrize(("payload", "status"), [*SPELLINGS[1:3], *SPELLINGS[25:]])
@both_modes
@ensureDeferred
async def test_every_spelling_is_an_error_in_every_place(
    relay: Relay, wanted: bool, payload: Any, status: int
) -> None:
    line = json.dumps(payload).encode()
    relay.upstream.play(
        document(payload),
        document(payload, headers=[("Content-Type", "text/plain")]),
        events(event(payload)),
        events(b"event: error\n", event(payload)),
        events(b"event:error\n:HTTP_STATUS/400\ndata:" + line + b"\n\n"),
    )
    for _ in range(5):
        reply = await relay.ask(gpt(stream=wanted))
        assert (reply.status, reply.error["message"]) == (status, SAID)
        assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"])
@both_modes
@ensureDeferred
async def test_a_line_of_json_after_pings_is_an_error(
    relay: Relay, wanted: bool, end: bytes
) -> None:
    pretty = json.dumps(inside(code=429), indent=2).encode()
    for line in (json.dumps(inside(code=429)).encode(), pretty):
        relay.upstream.play(events(b": PING\n\n", b": PING\n\n", line + end, cuts=range(999)))
        reply = await relay.ask(gpt(stream=wanted))
        assert (reply.status, reply.json) == (429, inside(code=429))


@ensureDeferred
async def test_a_line_of_json_in_mid_answer_is_an_error_event(relay: Relay) -> None:
    relay.upstream.play(events(event("One"), json.dumps(inside()).encode()))
    reply = await relay.ask(gpt(stream=True))
    assert reply.data == [chunk("One"), inside()]


@both_modes
@pytest.mark.parametrize("status", [200, 404, 405])
@ensureDeferred
async def test_a_page_says_that_the_address_is_wrong(
    relay: Relay, wanted: bool, status: int
) -> None:
    page = b"\n<!doctype html><html><title>New API</title></html>"
    relay.upstream.play(document(page, status, [("Content-Type", "text/html")]))
    reply = await relay.ask(gpt(stream=wanted))
    assert reply.status == (502 if status == 200 else status)
    assert "UPSTREAM_URL" in reply.error["message"]
    if status == 200:
        assert reply.headers["x-should-retry"] == "false"


@ensureDeferred
async def test_a_used_up_quota_is_not_worth_another_try(relay: Relay) -> None:
    relay.upstream.play(document(inside(code="insufficient_quota")), document(inside(code=429)))
    assert (await relay.ask(gpt())).headers["x-should-retry"] == "false"
    assert "x-should-retry" not in (await relay.ask(gpt())).headers


@both_modes
@pytest.mark.parametrize(
    ("status", "type", "code"),
    [
        (400, "invalid_request_error", None),
        (401, "invalid_request_error", "invalid_api_key"),
        (403, "permission_error", "permission_denied"),
        (404, "invalid_request_error", "not_found"),
        (429, "rate_limit_error", "rate_limit_exceeded"),
        (500, "server_error", "upstream_error"),
    ],
)
@ensureDeferred
async def test_a_status_without_a_body_has_its_type_and_code(
    relay: Relay, wanted: bool, status: int, type: str, code: str | None
) -> None:
    relay.upstream.play(document(b"", status, headers=()))
    reply = await relay.ask(gpt(stream=wanted))
    assert reply.status == status
    assert (reply.error["type"], reply.error["code"]) == (type, code)
    assert reply.headers["content-type"] == "application/json"


@both_modes
@ensureDeferred
async def test_json_is_called_json(relay: Relay, wanted: bool) -> None:
    for given in ("text/plain", "text/html; charset=utf-8", "text/event-stream", None):
        headers = [] if given is None else [("Content-Type", given)]
        body = json.dumps(inside(), indent=2).encode()
        relay.upstream.play(document(body, 400, headers))
        reply = await relay.ask(gpt(stream=wanted))
        assert (reply.headers["content-type"], reply.body) == ("application/json", body)


@both_modes
@ensureDeferred
async def test_an_error_as_a_stream_of_events_is_a_document(relay: Relay, wanted: bool) -> None:
    line = json.dumps({"code": "InvalidParameter", "message": SAID})
    body = f"id:1\nevent:error\n:HTTP_STATUS/400\ndata:{line}\n\n".encode()
    relay.upstream.play(document(body, 400, [("Content-Type", "text/event-stream")]))
    reply = await relay.ask(gpt(stream=wanted))
    assert (reply.status, reply.reason) == (400, SAID)
    assert reply.headers["content-type"] == "application/json"
    assert (reply.error["message"], reply.error["code"]) == (SAID, "InvalidParameter")


@both_modes
@ensureDeferred
async def test_an_upstream_that_is_not_there_is_named(wanted: bool) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with running_relay(UPSTREAM_URL=url + "/v1") as relay:
        message = (await relay.ask(gpt(stream=wanted))).error["message"]
        assert f"{url} (UPSTREAM_URL) cannot be reached" in message
        reply = await relay.get("/v1/files")
        assert url in reply.error["message"]


@ensureDeferred
async def test_a_certificate_that_is_not_trusted_says_so(tmp_path: Path) -> None:
    endpoint = f"ssl:0:interface=127.0.0.1:privateKey={make_certificate(tmp_path)}"
    port = await serverFromString(reactor, endpoint).listen(Factory.forProtocol(Protocol))
    url = f"https://localhost:{port.getHost().port}"
    try:
        async with running_relay(UPSTREAM_URL=url) as relay:
            reply = await relay.ask(gpt())
    finally:
        await port.stopListening()
    assert reply.status == 502
    for word in (url, "UPSTREAM_URL", "certificate", "not trusted"):
        assert word in reply.error["message"]
    assert reply.headers["x-should-retry"] == "false"


@ensureDeferred
async def test_a_redirect_points_to_the_setting(relay: Relay) -> None:
    relay.upstream.play(document(b"", 308, [("Location", "https://a.example/")]))
    assert "UPSTREAM_URL" in (await relay.ask(gpt())).error["message"]


@ensureDeferred
async def test_the_log_line_has_the_reason(relay: Relay) -> None:
    secret = "sk-a-very-secret-key"  # noqa: S105 - a made-up key
    words = f'Two\nlines, "quoted", of {secret}. ' + "x" * 1000
    relay.upstream.play(document({"error": {"message": words}}, 400), events(*answer("One"), DONE))
    await relay.ask(gpt(), Authorization=f"Bearer {secret}")
    await relay.ask(gpt())
    failed, good = [e["line"] for e in relay.logged if e.get("line", "").startswith("request=")]
    _, _, reason = failed.partition(" error=")
    assert "\n" not in failed
    assert len(reason) < 400
    said = json.loads(reason)
    assert said.startswith('400 invalid_request_error: Two lines, "quoted", of [secret]. xxx')
    assert " error=" not in good
