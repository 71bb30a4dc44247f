"""What is no chat completion, on its way to New-API and back."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.task import deferLater

from gemproxy.service import Patience
from testing.fake_newapi import (
    DONE,
    EVENT_STREAM,
    Call,
    Script,
    document,
    event,
    events,
    hang,
    head,
    in_http_chunks,
    verbatim,
)
from testing.processes import free_port
from tests.support import Connection, Relay, Reply, deaf_port, running_relay
from tests.test_relay_flow import memory, quiet

MB = 1_000_000
BINARY = random.Random(1).randbytes(300_000)
OCTETS = ("Content-Type", "application/octet-stream")


async def pass_through(
    relay: Relay, method: str, path: str, body: Any = None, **headers: str
) -> tuple[Call, Reply]:
    number = len(relay.upstream.calls)
    reply = await (await relay.send(method, path, body, **headers)).reply()
    return await relay.upstream.when_asked(number), reply


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "e", "input": ["a", "ü"]}),
        ("/v1/embeddings", {"model": "e", "input": "gemini"}),
        ("/v1/images/generations", {"model": "i", "prompt": "a cat"}),
        ("/v1/audio/speech", {"model": "tts", "input": "a"}),
        ("/v1/responses", {"model": "gpt-x", "input": "a"}),
        ("/v1/completions", {"model": "gpt-x", "prompt": "a"}),
        ("/v1/moderations", {"input": "a"}),
        ("/v1/rerank", {"query": "a"}),
        ("/v1/some/thing/quite/new", {"a": 1}),
    ],
)
@ensureDeferred
async def test_every_other_path_is_passed_through(relay: Relay, path: str, body: Any) -> None:
    answer = json.dumps({"object": "list", "x": "ü"}, indent=3).encode()
    headers = [("Content-Type", "application/json; x=y"), ("X-Request-Id", "r1"), ("X-A", "1")]
    relay.upstream.play(document(answer, 200, headers, "As You Wish"))
    call, reply = await pass_through(
        relay, "POST", path, body, Content_Type="application/json", Authorization="Bearer k"
    )
    assert (call.method, call.target) == ("POST", path)
    assert call.json == body
    assert call.header("authorization") == "Bearer k"
    assert call.all_headers("content-type") == ["application/json"]
    assert (reply.status, reply.reason, reply.body) == (200, "As You Wish", answer)
    for name, value in headers:
        assert reply.headers[name.lower()] == value


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
@ensureDeferred
async def test_any_method_is_passed_through(relay: Relay, method: str) -> None:
    relay.upstream.always(document(b"done", 202, [("Content-Type", "text/plain")]))
    call, reply = await pass_through(relay, method, "/v1/files/file-1")
    assert (call.method, bytes(call.body)) == (method, b"")
    assert (reply.status, reply.body) == (202, b"done")
    call, reply = await pass_through(relay, method, "/v1/files/file-1", b"body")
    assert (call.method, bytes(call.body)) == (method, b"body")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat/completions/id/messages"])
@ensureDeferred
async def test_stored_chat_completions_are_passed_through(relay: Relay, path: str) -> None:
    relay.upstream.always(document({"data": []}))
    call, reply = await pass_through(relay, "GET", path + "?limit=2")
    assert (call.target, reply.status) == (path + "?limit=2", 200)


@ensureDeferred
async def test_head_is_answered_with_the_headers_of_the_upstream(relay: Relay) -> None:
    relay.upstream.play(verbatim(head(200, [("Content-Length", "1234"), ("ETag", "x")])))
    client = await relay.send("HEAD", "/v1/files/file-1")
    await client.until_received(b"\r\n\r\n")
    assert client.received.startswith(b"HTTP/1.1 200 Fine\r\n")
    assert b"etag: x" in client.received.lower()
    assert b"content-length: 1234" in client.received.lower()
    assert b"content-length: 0" not in client.received.lower()
    assert b"transfer-encoding" not in client.received.lower()


@pytest.mark.parametrize("status", [204, 304])
@ensureDeferred
async def test_a_status_without_a_body_has_none(relay: Relay, status: int) -> None:
    relay.upstream.play(verbatim(head(status, [("X-A", "1")])))
    client = await relay.send("DELETE", "/v1/files/file-1")
    await client.until_received(b"\r\n\r\n")
    assert f"HTTP/1.1 {status} Fine".encode() in client.received
    assert b"content-length" not in client.received.lower()
    client.received.clear()
    client.send("GET", "/health")
    assert (await client.reply()).status == 200


@pytest.mark.parametrize(
    "target",
    [
        "/v1/files?purpose=a%20b&x=%2F&x=1&empty=&y",
        "/v1/files/a%2Fb%3Fc",
        "/v1/files/%C3%A9",
        "/v1/files/a;b=c,d:e@f!$&'()*+",
        "/v1/files/a%2F%2Fb",
        "/v1/files/...",
    ],
)
@ensureDeferred
async def test_path_and_query_are_passed_as_they_are(relay: Relay, target: str) -> None:
    call, reply = await pass_through(relay, "GET", target)
    assert (reply.status, call.target) == (200, target)


@pytest.mark.parametrize(
    "target",
    [
        "/v1/../api/user",
        "/v1/files/../../api/user",
        "/v1/%2e%2e/api/user",
        "/v1/.%2E/api/user",
        "/v1/files/%2e%2e%2f%2e%2e%2fapi",
        "/v1/files/..%5c..%5capi",
        "/v1/./files",
        "/v1/files/..",
    ],
)
@ensureDeferred
async def test_a_path_that_leads_elsewhere_is_refused(relay: Relay, target: str) -> None:
    for method, body in (("GET", None), ("POST", b"x" * 10)):
        reply = await (await relay.send(method, target, body)).reply()
        assert reply.status in (400, 404)
        assert reply.error["type"] == "invalid_request_error"
    assert relay.upstream.calls == []


@pytest.mark.parametrize(
    "path",
    [
        "/embeddings",
        "//embeddings",
        "/v1//embeddings",
        "/v1/v1/embeddings",
        "/v1/embeddings/",
        "///v1/embeddings?a=b",
    ],
)
@ensureDeferred
async def test_sloppy_base_urls_lead_to_the_same_place(relay: Relay, path: str) -> None:
    call, _ = await pass_through(relay, "POST", path, {"input": "a"})
    query = "?a=b" if "?" in path else ""
    assert call.target == "/v1/embeddings" + query


@pytest.mark.parametrize("path", ["/", "/nothing", "/v1", "/api/user"])
@ensureDeferred
async def test_what_is_not_of_the_api_is_not_passed_through(relay: Relay, path: str) -> None:
    for method in ("GET", "POST"):
        reply = await (await relay.send(method, path)).reply()
        assert (reply.status, reply.error["code"]) == (404, "unknown_url")
    assert relay.upstream.calls == []


def multipart() -> tuple[str, bytes]:
    parts = [
        b'--X\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n',
        b'--X\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n'
        b"Content-Type: audio/mpeg\r\n\r\n" + BINARY + b"\r\n",
        b"--X--\r\n",
    ]
    return "multipart/form-data; boundary=X", b"".join(parts)


@ensureDeferred
async def test_an_upload_arrives_byte_for_byte(relay: Relay) -> None:
    kind, body = multipart()
    call, reply = await pass_through(
        relay, "POST", "/v1/audio/transcriptions", body, Content_Type=kind
    )
    assert reply.status == 200
    assert call.header("content-type") == kind
    assert call.all_headers("content-length") == [str(len(body))]
    assert bytes(call.body) == body


@ensureDeferred
async def test_an_upload_in_chunks_arrives_byte_for_byte(relay: Relay) -> None:
    client = await relay.connect()
    pieces = [BINARY[start : start + 9999] for start in range(0, len(BINARY), 9999)]
    client.transport.write(
        b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for piece in pieces:
        client.transport.write(in_http_chunks([piece]))
        await deferLater(reactor, 0)
    client.transport.write(b"0\r\n\r\n")
    assert (await client.reply()).status == 200
    assert bytes(relay.upstream.calls[0].body) == BINARY


@ensureDeferred
async def test_a_client_that_expects_100_continue_gets_it(relay: Relay) -> None:
    client = await relay.connect()
    client.transport.write(
        b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
        b"Expect: 100-continue\r\n\r\n"
    )
    await client.until_received(b"HTTP/1.1 100 Continue\r\n\r\n")
    client.received.clear()
    client.transport.write(b"body")
    assert (await client.reply()).status == 200
    assert bytes(relay.upstream.calls[0].body) == b"body"
    assert relay.upstream.calls[0].header("expect") is None


@ensureDeferred
async def test_an_upload_is_passed_on_as_it_comes(relay: Relay) -> None:
    client = await relay.connect()
    client.transport.write(
        b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\none"
    )
    call = await relay.upstream.when_asked()
    await call.when(lambda: bytes(call.body) == b"one")
    client.transport.write(b"two")
    await call.when(lambda: bytes(call.body) == b"onetwo")
    assert not call.complete
    client.transport.write(b"end")
    assert (await client.reply()).status == 200
    assert bytes(call.body) == b"onetwoend"


def reading_slowly() -> Script:
    async def script(call: Call) -> None:
        call.stop_reading()
        await call.when(lambda: call.complete, 60)
        await document({"size": len(call.body)})(call)

    return script


async def sent_by(client: Connection, piece: bytes, limit: int) -> int:
    """How much a client can send until nobody takes it any more."""
    paused: list[bool] = []

    class Sender:
        def pauseProducing(self) -> None:
            paused.append(True)

        def resumeProducing(self) -> None:
            paused.clear()

        def stopProducing(self) -> None:
            pass

    client.transport.registerProducer(Sender(), True)
    sent, since = 0, reactor.seconds()
    while reactor.seconds() - since < 0.4 and sent < limit:
        if not paused:
            client.transport.write(piece)
            sent, since = sent + len(piece), reactor.seconds()
        await deferLater(reactor, 0.01 if paused else 0)
    client.transport.unregisterProducer()
    return sent


@pytest.mark.slow
@ensureDeferred
async def test_a_slow_upstream_slows_the_upload_and_costs_no_memory() -> None:
    async with running_relay(MAX_BODY="100MB") as relay:
        relay.upstream.play(reading_slowly())
        client = await relay.connect()
        size = 80 * MB
        client.transport.write(
            f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        before = memory()
        piece = b"x" * 50_000
        sent = await sent_by(client, piece, size)
        assert sent < 30 * MB
        assert memory() - before < 20 * MB
        call = relay.upstream.calls[0]
        call.go_on_reading()
        client.transport.write(b"x" * (size - sent))
        assert (await client.reply()).json == {"size": size}


@ensureDeferred
async def test_an_upload_waits_for_the_connection_to_the_upstream() -> None:
    with deaf_port() as port:
        async with running_relay(UPSTREAM_URL=f"http://127.0.0.1:{port}") as relay:
            client = await relay.connect()
            client.transport.write(
                b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40000000\r\n\r\n"
            )
            before = memory()
            assert await sent_by(client, b"x" * 50_000, 40 * MB) < 20 * MB
            assert memory() - before < 10 * MB


@pytest.mark.slow
@ensureDeferred
async def test_an_upload_that_takes_its_time_is_no_silence_of_the_upstream() -> None:
    async with running_relay(TIMEOUT=0.5) as relay:
        client = await relay.connect()
        client.transport.write(
            b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"
        )
        for byte in b"body":
            await deferLater(reactor, 0.3)
            client.transport.write(bytes([byte]))
        assert (await client.reply()).status == 200


@ensureDeferred
async def test_an_upload_that_is_not_read_is_given_up() -> None:
    async with running_relay(TIMEOUT=0.5) as relay:
        relay.upstream.play(reading_slowly())
        client = await relay.send("POST", "/v1/files", b"x" * 20 * MB)
        reply = await client.reply()
        assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")
        relay.upstream.calls[0].go_on_reading()
        await relay.upstream.calls[0].when_closed()


@pytest.mark.parametrize("patience", [Patience(linger=0.1)])
@pytest.mark.parametrize("framing", ["chunked", "length"])
@ensureDeferred
async def test_an_answer_may_come_before_the_end_of_the_upload(relay: Relay, framing: str) -> None:
    error = {"error": {"message": "Not that.", "type": "x"}}

    async def script(call: Call) -> None:
        data = json.dumps(error).encode()
        if framing == "length":
            await call.send(head(415, [("Content-Length", str(len(data)))]) + data)
        else:
            start = head(415, [("Transfer-Encoding", "chunked")])
            await call.send(start + in_http_chunks([data]) + b"0\r\n\r\n")

    relay.upstream.play(script)
    client = await relay.connect()
    client.transport.write(
        b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30000000\r\n\r\nstart"
    )
    reply = await client.reply()
    assert (reply.status, reply.json) == (415, error)
    assert reply.headers["connection"] == "close"
    # There is no way to tell the client to stop, other than that.
    await client.when(lambda: client.closed, 5)
    await relay.upstream.calls[0].when_closed()


@ensureDeferred
async def test_the_upstream_is_closed_when_a_client_goes_while_it_uploads(relay: Relay) -> None:
    client = await relay.connect()
    client.transport.write(
        b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nstart"
    )
    call = await relay.upstream.when_asked()
    await call.when(lambda: call.body)
    client.drop()
    await call.when_closed(1)
    assert not call.complete


@pytest.mark.parametrize("chunked", [False, True])
@ensureDeferred
async def test_an_upload_that_is_too_large_is_refused(chunked: bool) -> None:
    async with running_relay(MAX_BODY="100kB") as relay:
        client = await relay.connect()
        length = "Transfer-Encoding: chunked" if chunked else "Content-Length: 200000"
        client.transport.write(
            f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n".encode()
        )
        body = b"x" * 200_000
        client.transport.write(in_http_chunks([body[:5], body[5:]]) if chunked else body)
        reply = await client.reply()
        assert reply.status == 413
        assert "100000 bytes" in reply.error["message"]
        for call in relay.upstream.calls:
            await call.when_closed(5)
            assert not call.complete


@ensureDeferred
async def test_an_upload_without_a_key_is_refused_before_it_is_sent() -> None:
    async with running_relay(PROXY_API_KEYS="sk-proxy") as relay:
        client = await relay.connect()
        client.transport.write(
            b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nstart"
        )
        assert (await client.reply()).status == 401
        assert relay.upstream.calls == []


@ensureDeferred
async def test_a_connection_is_used_again_after_an_upload(relay: Relay) -> None:
    client = await relay.connect()
    for number in range(3):
        client.received.clear()
        client.send("POST", "/v1/files", BINARY)
        assert (await client.reply()).status == 200
        assert bytes(relay.upstream.calls[number].body) == BINARY
    assert len({id(call.connection) for call in relay.upstream.calls}) == 1


@ensureDeferred
async def test_binary_answers_arrive_byte_for_byte(relay: Relay) -> None:
    relay.upstream.always(document(BINARY, headers=[("Content-Type", "audio/mpeg")]))
    _, reply = await pass_through(relay, "POST", "/v1/audio/speech", {"input": "a"})
    assert reply.body == BINARY
    assert reply.headers["content-length"] == str(len(BINARY))
    assert reply.headers["content-type"] == "audio/mpeg"


@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
@ensureDeferred
async def test_answers_in_any_framing_arrive_byte_for_byte(relay: Relay, framing: str) -> None:
    cuts = range(0, len(BINARY), 1234)
    relay.upstream.play(events(BINARY, framing=framing, cuts=cuts, headers=[OCTETS]))
    _, reply = await pass_through(relay, "GET", "/v1/files/file-1/content")
    assert reply.body == BINARY


@ensureDeferred
async def test_a_compressed_answer_stays_compressed(relay: Relay) -> None:
    relay.upstream.play(document({"a": "b" * 1000}, zipped=True))
    call, reply = await pass_through(relay, "GET", "/v1/files", Accept_Encoding="gzip, br")
    assert call.all_headers("accept-encoding") == ["gzip, br"]
    assert reply.headers["content-encoding"] == "gzip"
    assert len(reply.body) < 200


@ensureDeferred
async def test_headers_of_the_connection_are_not_passed_through(relay: Relay) -> None:
    relay.upstream.play(
        document(
            b"",
            headers=[("Keep-Alive", "timeout=5"), ("Set-Cookie", "a=1"), ("X-A", "1")],
        )
    )
    call, reply = await pass_through(
        relay, "GET", "/v1/files", Connection="X-Mine", X_Mine="1", Cookie="a=2", X_Yours="1"
    )
    assert call.header("x-mine") is None
    assert call.header("x-yours") == "1"
    assert call.header("cookie") == "a=2"
    assert "keep-alive" not in reply.headers
    assert (reply.headers["x-a"], reply.headers["set-cookie"]) == ("1", "a=1")
    call, _ = await pass_through(relay, "GET", "/v1/files")
    assert call.header("cookie") is None


@ensureDeferred
async def test_a_header_that_comes_twice_stays_two(relay: Relay) -> None:
    relay.upstream.play(document(b"", headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]))
    client = await relay.send("GET", "/v1/files")
    await client.reply()
    assert len(re.findall(rb"set-cookie: [ab]=", client.received, re.I)) == 2


@ensureDeferred
async def test_events_are_passed_through_as_they_come(relay: Relay) -> None:
    async def script(call: Call) -> None:
        await call.whole()
        await call.head(200, [EVENT_STREAM, ("Transfer-Encoding", "chunked")])
        await call.send(in_http_chunks([b"event: response.created\ndata: {}\n\n"]))
        await call.when(lambda: more)
        await call.send(in_http_chunks([DONE]) + b"0\r\n\r\n")
        call.end()

    more: list[bool] = []
    relay.upstream.play(script)
    client = await relay.send("POST", "/v1/responses", {"stream": True})
    await client.until_received(b"response.created")
    more.append(True)
    relay.upstream.calls[0].look()
    reply = await client.reply()
    assert reply.body == b"event: response.created\ndata: {}\n\n" + DONE
    assert reply.headers["content-type"] == EVENT_STREAM[1]


@pytest.mark.parametrize("status", [301, 400, 401, 404, 429, 500, 503])
@ensureDeferred
async def test_errors_of_the_upstream_arrive_as_themselves(relay: Relay, status: int) -> None:
    headers = [("Content-Type", "text/html"), ("Retry-After", "9"), ("Location", "/x")]
    relay.upstream.play(document(b"<html>No.</html>", status, headers, "No Way"))
    _, reply = await pass_through(relay, "POST", "/v1/embeddings", {"input": "a"})
    assert (reply.status, reply.reason, reply.body) == (status, "No Way", b"<html>No.</html>")
    assert reply.headers["retry-after"] == "9"
    assert reply.headers["location"] == "/x"


@ensureDeferred
async def test_an_upstream_that_is_not_there() -> None:
    async with running_relay(UPSTREAM_URL=f"http://127.0.0.1:{free_port()}") as relay:
        for body in (None, b"x", b"x" * 3 * MB):
            client = await relay.send("POST", "/v1/embeddings", body)
            reply = await client.reply()
            assert (reply.status, reply.error["code"]) == (502, "upstream_error")


@pytest.mark.parametrize("then", ["close", "reset"])
@ensureDeferred
async def test_an_upstream_that_goes_before_its_headers(relay: Relay, then: str) -> None:
    relay.upstream.play(verbatim(b"", then))
    reply = await (await relay.send("POST", "/v1/embeddings", b"{}")).reply()
    assert (reply.status, reply.error["code"]) == (502, "upstream_error")


@pytest.mark.slow
@ensureDeferred
async def test_a_silent_upstream_is_given_up() -> None:
    async with running_relay(TIMEOUT=0.5) as relay:
        relay.upstream.play(hang())
        _, reply = await pass_through(relay, "POST", "/v1/embeddings", b"{}")
        assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")
        await relay.upstream.calls[0].when_closed(1)
        relay.upstream.play(events(b"data: {}\n\n", then="hang"))
        _, reply = await pass_through(relay, "POST", "/v1/responses", b"{}")
        assert reply.data[0] == {}
        assert reply.data[-1]["error"]["code"] == "upstream_timeout"
        await relay.upstream.calls[1].when_closed(1)


@pytest.mark.parametrize("framing", ["chunked", "length"])
@ensureDeferred
async def test_an_answer_that_is_cut_does_not_look_whole(relay: Relay, framing: str) -> None:
    frame = {"chunked": ("Transfer-Encoding", "chunked"), "length": ("Content-Length", "9999")}
    body = in_http_chunks([b"half"]) if framing == "chunked" else b"half"
    relay.upstream.play(verbatim(head(200, [OCTETS, frame[framing]]) + body, "close"))
    client = await relay.send("GET", "/v1/files/file-1/content")
    await client.when(lambda: client.closed, 5)
    assert b"half" in client.received
    assert client._complete() is None


@pytest.mark.parametrize("half", [b'data: {"a": 1}\n\n', b'data: {"a": 1}\n\ndata: {"never": "ha'])
@pytest.mark.parametrize("framing", ["chunked", "length"])
@ensureDeferred
async def test_events_that_are_cut_end_with_an_error_event(
    relay: Relay, half: bytes, framing: str
) -> None:
    frame = {"chunked": ("Transfer-Encoding", "chunked"), "length": ("Content-Length", "9999")}
    body = in_http_chunks([half]) if framing == "chunked" else half
    relay.upstream.play(verbatim(head(200, [EVENT_STREAM, frame[framing]]) + body, "reset"))
    reply = await (await relay.send("POST", "/v1/responses", b"{}")).reply()
    first, *_, last = reply.body.decode().strip().split("\n\n")
    assert first == 'data: {"a": 1}'
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "upstream_error"


@ensureDeferred
async def test_the_upstream_is_closed_when_the_client_goes(relay: Relay) -> None:
    for script in (hang(), events(event("One"), then="hang")):
        relay.upstream.play(script)
        client = await relay.send("POST", "/v1/responses", {"stream": True})
        call = await relay.upstream.when_asked(len(relay.upstream.calls))
        await call.whole()
        if len(relay.upstream.calls) == 2:
            await client.until_received(b"One")
        client.drop()
        await call.when_closed(1)


@pytest.mark.slow
@ensureDeferred
async def test_a_stalled_client_stalls_the_upstream() -> None:
    async def script(call: Call) -> None:
        await call.whole()
        await call.head(200, [OCTETS, ("Content-Length", str(60 * MB))])
        for _ in range(600):
            await call.send(b"x" * 100_000)
        call.end()

    async with running_relay(TIMEOUT=0.5) as relay:
        relay.upstream.play(script)
        client = await relay.send("GET", "/v1/files/file-1/content")
        await client.until_received(b"xxx")
        client.transport.pauseProducing()
        call = relay.upstream.calls[0]
        before, taken = memory(), len(client.received)
        # That is longer than an upstream may be silent.
        assert await quiet(call, 1.0) - taken < 20 * MB
        assert memory() - before < 20 * MB
        client.transport.resumeProducing()
        assert len((await client.reply()).body) == 60 * MB


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "Trace", "TRACK", "post"])
@pytest.mark.parametrize("path", ["/v1/files", "/v1/chat/completions", "/health"])
@ensureDeferred
async def test_methods_that_show_what_is_sent_are_refused(
    relay: Relay, method: str, path: str
) -> None:
    reply = await (await relay.send(method, path)).reply()
    assert (reply.status, relay.upstream.calls) == (501, [])
    assert method in reply.error["message"]
