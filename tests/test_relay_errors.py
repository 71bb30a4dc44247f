"""How whatever goes wrong at New-API, or on the way to it, is told to clients."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.task import deferLater

from testing.fake_newapi import (
    DONE,
    EVENT_STREAM,
    Call,
    Script,
    answer,
    chunk,
    document,
    event,
    events,
    hang,
    head,
    headers_and_hang,
    in_http_chunks,
    stream,
    usage_chunk,
    verbatim,
)
from testing.processes import free_port
from tests.support import Relay, Reply, deaf_port, gpt, running_relay

pytestmark = pytest.mark.slow

both_modes = pytest.mark.parametrize("wanted", [True, False])
TIMEOUT = 0.4
# Side by side, where an upstream takes its time.
IN_BOTH_MODES = (gpt(stream=True), gpt())


def assert_error(reply: Reply, status: int, code: str | None = None, *words: str) -> None:
    assert reply.status == status, reply
    assert reply.headers["content-type"].startswith("application/json")
    assert reply.error["type"] == "server_error"
    assert reply.error["code"] == code
    for word in words:
        assert word in reply.error["message"]
    assert reply.reason == reply.error["message"]


def assert_ended_with_error(reply: Reply, *words: str) -> dict[str, Any]:
    """The events end with an error, and the body as it should."""
    assert reply.status == 200
    assert "[DONE]" not in reply.data
    error = reply.data[-1]["error"]
    for word in words:
        assert word in error["message"]
    return error


ERRORS = [
    (400, {"message": "Bad temperature.", "type": "invalid_request_error", "param": "t"}, {}),
    (401, {"message": "Incorrect API key.", "type": "invalid_request_error", "code": "x"}, {}),
    (403, {"message": "No.", "type": "permission_error"}, {}),
    (404, {"message": "No such model: ü 🎉", "type": "invalid_request_error"}, {}),
    (413, {"message": "Too large."}, {}),
    (429, {"message": "Slow\r\ndown.", "type": "rate_limit"}, {"Retry-After": "17"}),
    (429, {"message": "Out.", "type": "insufficient_quota"}, {"x-should-retry": "false"}),
    (500, {"message": "Oops.", "type": "new_api_error", "code": "do_request_failed"}, {}),
    (503, {"message": "x" * 1000}, {"Retry-After": "Wed, 21 Oct 2037 07:28:00 GMT"}),
    (529, {"message": "Overloaded."}, {}),
]


@pytest.mark.parametrize(("status", "error", "headers"), ERRORS)
@both_modes
@ensureDeferred
async def test_an_error_response_arrives_as_itself(
    relay: Relay, wanted: bool, status: int, error: dict[str, Any], headers: dict[str, str]
) -> None:
    body = json.dumps({"error": error, "request_id": "r1"}, indent=2).encode()
    kind = ("Content-Type", "application/json; charset=utf-8")
    relay.upstream.play(document(body, status, [kind, *headers.items()], "Whatever"))
    reply = await relay.ask(gpt(stream=wanted))
    assert reply.status == status
    assert reply.body == body
    assert reply.headers["content-type"] == kind[1]
    for name, value in headers.items():
        assert reply.headers[name.lower()] == value
    readable = " ".join(error["message"].split())[:200]
    assert reply.reason == "".join(c if " " <= c <= "~" else "?" for c in readable)


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        ("text/html", b"<html>502 Bad Gateway</html>", "The upstream responded with status 502."),
        ("text/plain", b"upstream request timeout", "The upstream responded with status 502."),
        ("application/json", b'{"error": "a mere string"}', "a mere string"),
        ("application/json", b'{"detail": "Not here."}', "Not here."),
        ("application/json", b'{"message": "New-API says no."}', "New-API says no."),
        (
            "application/json",
            b'{"detail": [{"loc": ["body"]}]}',
            "The upstream responded with status 502.",
        ),
        (
            "application/json",
            b'{"error": {"message": null}}',
            "The upstream responded with status 502.",
        ),
        ("application/json", b"[]", "The upstream responded with status 502."),
        ("application/json", b"{broken", "The upstream responded with status 502."),
        ("application/octet-stream", b"\xff\x00", "The upstream responded with status 502."),
    ],
)
@both_modes
@ensureDeferred
async def test_an_error_in_any_other_words_arrives_as_itself(
    relay: Relay, wanted: bool, kind: str, body: bytes, reason: str
) -> None:
    relay.upstream.play(document(body, 502, [("Content-Type", kind)]))
    reply = await relay.ask(gpt(stream=wanted))
    assert (reply.status, reply.reason) == (502, reason)
    assert (reply.headers["content-type"], reply.body) == (kind, body)


@both_modes
@ensureDeferred
async def test_an_error_without_a_body_has_one(relay: Relay, wanted: bool) -> None:
    relay.upstream.play(document(b"", 503, [("Retry-After", "3")]))
    reply = await relay.ask(gpt(stream=wanted))
    assert reply.status == 503
    assert reply.headers["retry-after"] == "3"
    assert reply.error["message"] == reply.reason == "The upstream responded with status 503."


@ensureDeferred
async def test_a_compressed_error_is_readable(relay: Relay) -> None:
    error = {"error": {"message": "Bad.", "type": "x"}}
    relay.upstream.play(document(error, 400, zipped=True))
    reply = await relay.ask(gpt())
    assert reply.json == error
    assert "content-encoding" not in reply.headers


@pytest.mark.parametrize("status", [204, 205, 301, 302, 304])
@both_modes
@ensureDeferred
async def test_other_statuses_than_200_are_no_answer(
    relay: Relay, wanted: bool, status: int
) -> None:
    relay.upstream.play(document(b"", status, [("Location", "http://localhost:1/v1/x")]))
    assert_error(await relay.ask(gpt(stream=wanted)), 502, "upstream_error", str(status))
    assert len(relay.upstream.calls) == 1


@both_modes
@ensureDeferred
async def test_the_cut_body_of_an_error_does_not_hide_the_error(relay: Relay, wanted: bool) -> None:
    relay.upstream.play(
        verbatim(head(429, [("Content-Length", "100"), ("Retry-After", "5")]) + b"Half", "close")
    )
    reply = await relay.ask(gpt(stream=wanted))
    assert reply.status == 429
    assert reply.headers["retry-after"] == "5"


@both_modes
@ensureDeferred
async def test_an_error_that_goes_on_for_ever_is_still_that_error(wanted: bool) -> None:
    async with running_relay(TIMEOUT=TIMEOUT) as relay:
        relay.upstream.play(verbatim(head(429, [("Content-Length", "100")]) + b"Half"))
        reply = await relay.ask(gpt(stream=wanted))
        assert reply.status == 429
        await relay.upstream.calls[0].when_closed()


@both_modes
@ensureDeferred
async def test_an_upstream_that_is_not_there(wanted: bool) -> None:
    async with running_relay(UPSTREAM_URL=f"http://127.0.0.1:{free_port()}") as relay:
        reply = await relay.ask(gpt(stream=wanted))
        assert_error(reply, 502, "upstream_error", "reach", "refused")
        assert (await relay.get("/health")).status == 200


@both_modes
@ensureDeferred
async def test_an_upstream_whose_name_is_not_known(wanted: bool) -> None:
    async with running_relay(UPSTREAM_URL="http://nobody.invalid") as relay:
        assert_error(await relay.ask(gpt(stream=wanted)), 502, "upstream_error", "reach")


@ensureDeferred
async def test_an_upstream_that_does_not_even_take_the_connection() -> None:
    with deaf_port() as port:
        url = f"http://127.0.0.1:{port}"
        async with running_relay(UPSTREAM_URL=url, TIMEOUT=TIMEOUT) as relay:
            for reply in await relay.ask_all(IN_BOTH_MODES):
                assert_error(reply, 504, "upstream_timeout")


def cut_before_headers() -> list[Script]:
    return [
        verbatim(b"", "close"),
        verbatim(b"", "reset"),
        verbatim(b"HTTP/1.1 200 O", "close"),
        verbatim(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "close"),
        verbatim(b"\x15\x03\x01\x00\x02\x02\x50", "close"),
    ]


@pytest.mark.parametrize("number", range(len(cut_before_headers())))
@both_modes
@ensureDeferred
async def test_an_upstream_that_goes_before_its_headers(
    relay: Relay, wanted: bool, number: int
) -> None:
    relay.upstream.play(cut_before_headers()[number])
    assert_error(await relay.ask(gpt(stream=wanted)), 502, "upstream_error")
    assert (await relay.ask(gpt(stream=wanted))).content == "Hello"


@pytest.mark.parametrize("script", [hang, headers_and_hang], ids=["nothing", "headers"])
@ensureDeferred
async def test_a_silent_upstream_is_given_up(script: Any) -> None:
    async with running_relay(TIMEOUT=TIMEOUT) as relay:
        relay.upstream.always(script())
        began = reactor.seconds()
        replies = await relay.ask_all(IN_BOTH_MODES)
        # With the headers it said something, once.
        assert TIMEOUT <= reactor.seconds() - began < TIMEOUT + 3
        for reply in replies:
            assert_error(reply, 504, "upstream_timeout", f"{TIMEOUT} s")
        for call in relay.upstream.calls:
            await call.when_closed(1)


@ensureDeferred
async def test_an_upstream_that_does_not_read_is_given_up() -> None:
    async def script(call: Call) -> None:
        call.stop_reading()
        await call.when_closed(30)

    # A body of this size is read in another process, which has to start first.
    async with running_relay(TIMEOUT=2) as relay:
        relay.upstream.always(script)
        large = "x" * 12_000_000
        for reply in await relay.ask_all(gpt(large, stream=wanted) for wanted in (True, False)):
            assert_error(reply, 504, "upstream_timeout")
        for call in relay.upstream.calls:
            call.go_on_reading()


@ensureDeferred
async def test_an_upstream_that_falls_silent_in_mid_answer() -> None:
    async with running_relay(TIMEOUT=TIMEOUT) as relay:
        relay.upstream.always(events(event("One"), event(" two"), then="hang"))
        reply = await relay.ask(gpt(stream=True))
        error = assert_ended_with_error(reply, f"{TIMEOUT} s")
        assert (error["type"], error["code"]) == ("server_error", "upstream_timeout")
        texts = [item["choices"][0]["delta"]["content"] for item in reply.data[:-1]]
        assert texts == ["One", " two"]
        assert_error(await relay.ask(gpt()), 504, "upstream_timeout")
        for call in relay.upstream.calls:
            await call.when_closed(1)


@ensureDeferred
async def test_a_slow_upstream_is_not_given_up() -> None:
    async with running_relay(TIMEOUT=TIMEOUT) as relay:
        relay.upstream.always(stream("One", " two", pace=TIMEOUT * 0.6))
        assert [reply.content for reply in await relay.ask_all(IN_BOTH_MODES)] == ["One two"] * 2


@ensureDeferred
async def test_comments_of_the_upstream_are_signs_of_life() -> None:
    async with running_relay(TIMEOUT=TIMEOUT) as relay:
        pings = [b": PING\n\n"] * 3
        relay.upstream.always(events(*pings, *answer("One"), pace=TIMEOUT * 0.4))
        assert [reply.content for reply in await relay.ask_all(IN_BOTH_MODES)] == ["One"] * 2


def cuts() -> dict[str, Script]:
    half = [event("One"), event(" two")]
    in_event = [*half, event("never")[:-9]]
    size_too_large = b"40\r\n" + event("One")[:20]
    return {
        "closed": events(*half, then="cut"),
        "reset": events(*half, then="reset"),
        "in an event": events(*in_event, then="cut"),
        "in a chunk of HTTP": verbatim(
            head(200, [EVENT_STREAM, ("Transfer-Encoding", "chunked")])
            + in_http_chunks(half)
            + size_too_large,
            "close",
        ),
        "short of its length": verbatim(
            head(200, [EVENT_STREAM, ("Content-Length", "9999")]) + b"".join(half), "close"
        ),
        "chunks that are none": verbatim(
            head(200, [EVENT_STREAM, ("Transfer-Encoding", "chunked")])
            + in_http_chunks(half)
            + b"zzz\r\n"
        ),
        "ended without a finish reason": events(*half, DONE),
        "ended in mid-call": events(
            *half, event(chunk(delta={"tool_calls": [{"index": 0, "function": {"name": "f"}}]}))
        ),
        "ended in an event": events(*in_event),
        "closed without a length": events(*half, framing="close"),
        "half of the choices are finished": events(
            *half, event(chunk("B", index=1)), event(chunk(finish="stop"))
        ),
    }


@pytest.mark.parametrize("how", cuts())
@ensureDeferred
async def test_an_answer_that_is_cut_ends_with_an_error_event(relay: Relay, how: str) -> None:
    relay.upstream.play(cuts()[how])
    reply = await relay.ask(gpt(stream=True))
    error = assert_ended_with_error(reply, "upstream")
    assert (error["type"], error["code"]) == ("server_error", "upstream_error")
    assert b"never" not in reply.body
    texts = [item["choices"][0]["delta"].get("content") for item in reply.data[:2]]
    assert texts == ["One", " two"]


@pytest.mark.parametrize("how", cuts())
@ensureDeferred
async def test_an_answer_that_is_cut_is_502_for_a_client_that_does_not_stream(
    relay: Relay, how: str
) -> None:
    relay.upstream.play(cuts()[how])
    assert_error(await relay.ask(gpt()), 502, "upstream_error")


@pytest.mark.parametrize("then", ["cut", "reset", "end"])
@both_modes
@ensureDeferred
async def test_an_answer_with_its_finish_reason_is_complete(
    relay: Relay, wanted: bool, then: str
) -> None:
    relay.upstream.play(events(event("One"), event(chunk(finish="length")), then=then))
    reply = await relay.ask(gpt(stream=wanted))
    assert reply.status == 200
    assert reply.content == "One"
    if wanted:
        assert reply.data[-1] == "[DONE]"


@both_modes
@ensureDeferred
async def test_an_answer_that_is_cut_behind_its_end_is_complete(relay: Relay, wanted: bool) -> None:
    relay.upstream.play(events(*answer("One"), then="reset"))
    assert (await relay.ask(gpt(stream=wanted))).content == "One"


@pytest.mark.parametrize("framing", ["length", "close"])
@both_modes
@ensureDeferred
async def test_a_truncated_json_answer_is_an_error(
    relay: Relay, wanted: bool, framing: str
) -> None:
    length = [("Content-Length", "100")] if framing == "length" else []
    start = head(200, [("Content-Type", "application/json"), *length])
    relay.upstream.play(verbatim(start + b'{"choices": [{"message', "close"))
    assert_error(await relay.ask(gpt(stream=wanted)), 502, "upstream_error")


@ensureDeferred
async def test_an_error_event_is_passed_on(relay: Relay) -> None:
    error = {"error": {"message": "Mid-way.", "type": "x", "code": "y", "param": None, "z": 1}}
    given = [event("One"), event(error)]
    relay.upstream.play(events(*given, then="hang"), events(*given, DONE))
    for _ in range(2):
        reply = await relay.ask(gpt(stream=True))
        assert reply.data == [chunk("One"), error]
    await relay.upstream.calls[0].when_closed(1)


@ensureDeferred
async def test_an_error_event_is_the_error_of_a_client_that_does_not_stream(relay: Relay) -> None:
    error = {"error": {"message": "Too many.", "type": "rate_limit_error", "code": 429}}
    relay.upstream.play(events(event("One"), event(error)))
    reply = await relay.ask(gpt())
    assert (reply.status, reply.reason, reply.json) == (429, "Too many.", error)


@pytest.mark.parametrize(
    ("error", "status"), [("plain", 502), ({"message": "m", "code": "503"}, 503), ({"a": 1}, 502)]
)
@both_modes
@ensureDeferred
async def test_an_error_event_before_anything_else_is_an_error_response(
    relay: Relay, wanted: bool, error: Any, status: int
) -> None:
    relay.upstream.play(events(event({"error": error})))
    reply = await relay.ask(gpt(stream=wanted))
    assert reply.status == status
    if isinstance(error, dict):
        assert reply.error == error
    else:
        # SDKs look for the message in an object.
        assert reply.error["message"] == error


@pytest.mark.parametrize(
    ("data", "message"),
    [('{"message": "Named."}', "Named."), ("Named.", "Named."), ('{"error": "Named."}', "Named.")],
)
@ensureDeferred
async def test_an_event_that_is_called_an_error_is_one(
    relay: Relay, data: str, message: str
) -> None:
    named = f"event: error\ndata: {data}\n\n".encode()
    relay.upstream.always(events(event("One"), named, DONE))
    reply = await relay.ask(gpt(stream=True))
    error = reply.data[-1]["error"]
    assert (error if isinstance(error, str) else error["message"]) == message
    reply = await relay.ask(gpt())
    assert (reply.status, reply.reason) == (502, message)


BROKEN = [
    b"data: {broken\n\n",
    b"data: \xff\xfe\n\n",
    b'data: "text"\n\n',
    b"data: [1]\n\n",
    b'data: {"choices":[]}{\n\n',
    b"data: " + b'{"a":' * 300 + b"1" + b"}" * 300 + b"\n\n",
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: repr(broken[:30]))
@ensureDeferred
async def test_an_event_that_cannot_be_read_is_passed_on_as_it_is(
    relay: Relay, broken: bytes
) -> None:
    relay.upstream.play(events(event("One"), broken, broken, event(" two"), *answer(" three")))
    reply = await relay.ask(gpt(stream=True))
    assert reply.status == 200
    assert reply.body.count(broken) == 2
    rest = Reply(200, "", reply.headers, reply.body.replace(broken, b""))
    assert rest.content == "One two three"
    assert [text for text in relay.warnings if "gpt-x" in text and "2 events" in text]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: repr(broken[:30]))
@pytest.mark.parametrize("then", ["hang", "end"])
@ensureDeferred
async def test_an_event_that_cannot_be_read_is_no_hole_in_a_document(
    relay: Relay, broken: bytes, then: str
) -> None:
    rest = [event(" two"), *answer(" three")] if then == "end" else []
    relay.upstream.play(events(event("One"), broken, *rest, then=then))
    assert_error(await relay.ask(gpt()), 502, "upstream_error", "JSON object")
    await relay.upstream.calls[0].when_closed(1)


@pytest.mark.parametrize(
    "ping",
    [
        b"data:\n\n",
        b"data: ping\n\n",
        b"data: null\n\n",
        b"event: ping\ndata: 12:00\n\n",
        b'event: ping\ndata: {"type": "ping"}\n\n',
        b": PING\n\n",
    ],
)
@both_modes
@ensureDeferred
async def test_a_ping_is_no_part_of_an_answer(relay: Relay, wanted: bool, ping: bytes) -> None:
    relay.upstream.play(events(ping, event("One"), ping, *answer(" two")))
    reply = await relay.ask(gpt(stream=wanted))
    assert reply.content == "One two"
    assert b"ping" not in reply.body.lower()
    assert not relay.warnings


@pytest.mark.parametrize("between", [b"", b"data: ", b"data:", b"\ndata: ", b" data: "])
@both_modes
@ensureDeferred
async def test_events_that_were_run_together_are_told_apart(
    relay: Relay, wanted: bool, between: bytes
) -> None:
    one, two, three = (event(chunk(text)).strip()[6:] for text in ("{One", '"}{ two', " three"))
    end = event(chunk(finish="stop")).strip()[6:]
    both = [b"data: " + between.join([one, two]) + b"\n\n"]
    last = [b"data: " + between.join([three, end]) + b"\ndata: [DONE]\n\n"]
    relay.upstream.play(events(*both, *last))
    reply = await relay.ask(gpt(stream=wanted))
    assert reply.content == '{One"}{ two three'
    assert not relay.warnings


@both_modes
@ensureDeferred
async def test_numbers_and_bytes_that_are_no_json_are_read(relay: Relay, wanted: bool) -> None:
    odd = event(chunk("ODD")).replace(b"ODD", b"a\xffb").replace(b"null", b"-Infinity", 1)
    relay.upstream.play(events(odd, *answer("!")))
    reply = await relay.ask(gpt(stream=wanted))
    assert reply.status == 200
    if wanted:
        assert odd in reply.body
    else:
        assert reply.content == "a\ufffdb!"
        assert reply.json["choices"][0].get("logprobs") is None


@both_modes
@ensureDeferred
async def test_chunks_of_strange_shapes_do_no_harm(relay: Relay, wanted: bool) -> None:
    strange: list[Any] = [
        {},
        {"choices": None},
        {"choices": {}},
        {"choices": [None, 3, {}]},
        {"choices": [{"index": [1], "delta": None}]},
        {"choices": [{"index": 0, "delta": {"content": 3, "tool_calls": {}}, "logprobs": []}]},
        {"choices": [{"index": 0, "delta": {"x": 2**70, "role": None}}], "usage": 7},
        {"choices": [{"index": 0, "delta": "text"}]},
        {"choices": [], "id": None},
    ]
    relay.upstream.play(events(*[event(item) for item in strange], *answer("One")))
    reply = await relay.ask(gpt(stream=wanted))
    assert reply.status == 200
    if wanted:
        assert reply.data[: len(strange)] == strange
    else:
        assert "One" in reply.content


@ensureDeferred
async def test_an_event_without_an_end_is_not_collected_for_ever(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemproxy.openai.stream.SSEDecoder", _small_decoder)
    relay.upstream.always(events(b"data: " + b"x" * 5000, then="hang"))
    for wanted in (True, False):
        assert_error(await relay.ask(gpt(stream=wanted)), 502, "upstream_error", "event")
    for call in relay.upstream.calls:
        await call.when_closed(1)


def _small_decoder(**how: Any) -> Any:
    from gemproxy.chat.sse import SSEDecoder

    return SSEDecoder(1000, **how)


# After a heartbeat the status has gone out:

BEATS = {"HEARTBEAT_INTERVAL": 0.1, "JSON_HEARTBEAT_DELAY": 0.1}


def late(script: Script, seconds: float = 0.2) -> Script:
    async def wrapped(call: Call) -> None:
        await call.whole()
        await deferLater(reactor, seconds)
        await script(call)

    return wrapped


@ensureDeferred
async def test_an_error_after_a_heartbeat_is_in_the_body() -> None:
    error = {"error": {"message": "Late.", "type": "x"}}
    async with running_relay(**BEATS) as relay:
        relay.upstream.always(late(document(error, 429)))
        streamed, whole = await relay.ask_all(IN_BOTH_MODES)
        assert (streamed.status, whole.status) == (200, 200)
        assert streamed.comments
        assert streamed.data == [error]
        assert whole.body.startswith(b"\n")
        assert whole.json == error


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]"])
@ensureDeferred
async def test_an_error_without_words_after_a_heartbeat_has_some(body: bytes) -> None:
    async with running_relay(**BEATS) as relay:
        relay.upstream.always(late(document(body, 503)))
        streamed, whole = await relay.ask_all(IN_BOTH_MODES)
        for error in (streamed.data[-1]["error"], whole.error):
            assert error["message"] == "The upstream responded with status 503."


@pytest.mark.parametrize(
    ("script", "code"),
    [(hang(), "upstream_timeout"), (late(verbatim(b"", "reset")), "upstream_error")],
)
@ensureDeferred
async def test_silence_and_a_cut_after_a_heartbeat_are_in_the_body(
    script: Script, code: str
) -> None:
    async with running_relay(**BEATS, TIMEOUT=TIMEOUT) as relay:
        relay.upstream.always(script)
        streamed, whole = await relay.ask_all(IN_BOTH_MODES)
        assert (streamed.status, whole.status) == (200, 200)
        assert [streamed.data[-1]["error"]["code"], whole.error["code"]] == [code] * 2


@both_modes
@ensureDeferred
async def test_an_invalid_request_reaches_no_upstream(relay: Relay, wanted: bool) -> None:
    for body in (b"{broken", b"[]", b"", {"model": "", "messages": []}, {"messages": []}):
        reply = await relay.ask(body)
        assert reply.status == 400
        assert reply.error["type"] == "invalid_request_error"
    reply = await relay.ask(gpt(stream="yes"))
    assert (reply.status, reply.error["param"]) == (400, "stream")
    assert relay.upstream.calls == []


@ensureDeferred
async def test_an_answer_after_an_error_uses_the_connection_again(relay: Relay) -> None:
    relay.upstream.play(document({"error": {"message": "x"}}, 400), stream(usage_chunk()))
    assert (await relay.ask(gpt())).status == 400
    assert (await relay.ask(gpt())).status == 200
    assert relay.upstream.calls[0].connection is relay.upstream.calls[1].connection
