"""The stand-in for Google's API, over loopback sockets, and its pure parts."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import pytest_twisted
import treq
from attrs import define, evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import endpoints, reactor, tcp
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    HTTPConnectionPool,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
)

from gemproxy.demo.echo import word_chunks
from gemproxy.demo.samples import sample
from testing.google import scenarios
from testing.google.app import StandIn, echo
from testing.google.recorded_request import Closed, Once, ReceivedRequest
from testing.google.responses import ARRAY, SSE, merged
from testing.google.scenarios import answer, call, text, thought
from tests.strategies import json_values

BODY = {
    "contents": [
        {"role": "user", "parts": [{"text": "Good "}, {"text": "day"}]},
        {"role": "model", "parts": [{"text": "Yes?"}]},
        {"role": "user", "parts": [{"text": "Say it again"}]},
    ],
    "systemInstruction": {"parts": [{"text": "Be brief."}]},
    "generationConfig": {"temperature": 0.5},
}
STREAM = "v1beta/models/gemini-2.5-flash:streamGenerateContent"
WHOLE = "v1beta/models/gemini-2.5-flash:generateContent"


class Body(Protocol):
    """A response's body, as it comes."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.done: Once[Exception] = Once()
        self._waiters: list[tuple[Callable[[bytearray], bool], Deferred[None]]] = []

    def until(self, enough: Callable[[bytearray], bool]) -> Deferred[None]:
        waiter: Deferred[None] = Deferred()
        self._waiters.append((enough, waiter))
        self._look()
        return waiter

    def until_events(self, count: int) -> Deferred[None]:
        return self.until(lambda data: data.count(b"\r\n\r\n") >= count)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self._look()

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self.done.happen(reason.value)

    def abort(self) -> None:
        self.transport.loseConnection()

    def _look(self) -> None:
        waiting, self._waiters = self._waiters, []
        for enough, waiter in waiting:
            if enough(self.data):
                waiter.callback(None)
            else:
                self._waiters.append((enough, waiter))


@define
class Client:
    standin: StandIn
    base: str
    agent: Agent
    key: str | None = "k"

    def headers(self) -> dict[str, str]:
        return {} if self.key is None else {"x-goog-api-key": self.key}

    def post(self, path: str, body: Any = BODY, params: dict[str, str] | None = None) -> Any:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        http = treq.client.HTTPClient(self.agent)
        return http.post(
            self.base + path, data=data, headers=self.headers(), params=params, unbuffered=True
        )

    async def stream(self, *, sse: bool = True, body: Any = BODY) -> tuple[Any, Body]:
        response = await self.post(STREAM, body, {"alt": "sse"} if sse else None)
        received = Body()
        response.deliverBody(received)
        return response, received

    async def streamed(self, **options: Any) -> tuple[Any, bytes]:
        """The response and its whole body."""
        response, body = await self.stream(**options)
        assert isinstance(await body.done.wait(), ResponseDone)
        return response, bytes(body.data)

    async def events(self) -> list[Any]:
        _, data = await self.streamed()
        return parse_events(data)

    async def whole(self, path: str = WHOLE, body: Any = BODY) -> tuple[int, Any]:
        response = await self.post(path, body)
        return response.code, orjson.loads(await response.content())

    async def get(self, path: str) -> tuple[int, Any]:
        http = treq.client.HTTPClient(self.agent)
        response = await http.get(self.base + path, headers=self.headers())
        return response.code, orjson.loads(await response.content())


def parse_events(data: bytes) -> list[Any]:
    *events, rest = data.split(b"\r\n\r\n")
    assert rest == b""
    return [orjson.loads(event.removeprefix(b"data: ")) for event in events]


@asynccontextmanager
async def running(clock: Any = reactor, **options: Any) -> AsyncIterator[Client]:
    standin = StandIn(clock, **options)
    endpoint = endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    port = await endpoint.listen(standin.site())
    pool = HTTPConnectionPool(reactor)
    agent = Agent(reactor, pool=pool)
    try:
        yield Client(standin, f"http://127.0.0.1:{port.getHost().port}/", agent)
    finally:
        await port.stopListening()
        await standin.stop()
        await pool.closeCachedConnections()


def asked(message: str = "hi", **body: Any) -> ReceivedRequest:
    contents = [{"role": "user", "parts": [{"text": message}]}]
    return ReceivedRequest("streamGenerateContent", "m", body={"contents": contents, **body})


def played_text(play: scenarios.Scenario) -> str:
    parts = [part for chunk in play.chunks if not isinstance(chunk, bytes) for part in chunk]
    return "".join(part["text"] for part in parts if not part.get("thought"))


# --- The shapes of answers.


@pytest_twisted.ensureDeferred
async def test_a_stream_is_one_event_a_chunk():
    async with running() as client:
        client.standin.play(answer("Hello", " world"))
        response, data = await client.streamed()
    assert response.code == 200
    assert response.headers.getRawHeaders("content-type") == ["text/event-stream"]
    assert not response.headers.hasHeader("content-length")
    usage = {"totalTokenCount": 11, "promptTokenCount": 9, "candidatesTokenCount": 2}
    common = {"modelVersion": "gemini-2.5-flash", "responseId": "stand-in-0"}
    first, last = parse_events(data)
    assert first == {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "Hello"}]}, "index": 0}],
        "usageMetadata": usage,
        **common,
    }
    assert last["candidates"] == [
        {
            "content": {"role": "model", "parts": [{"text": " world"}]},
            "finishReason": "STOP",
            "index": 0,
        }
    ]
    assert last["usageMetadata"] == usage | {"totalTokenCount": 12, "candidatesTokenCount": 3}


@pytest_twisted.ensureDeferred
async def test_without_alt_sse_a_stream_is_an_array():
    async with running() as client:
        client.standin.play(
            answer("a", "b"), scenarios.empty(finish_reason=None), scenarios.error(500)
        )
        response, data = await client.streamed(sse=False)
        nothing = await client.streamed(sse=False)
        failed, error = await client.streamed(sse=False)
    assert response.headers.getRawHeaders("content-type") == ["application/json; charset=UTF-8"]
    texts = [r["candidates"][0]["content"]["parts"][0]["text"] for r in orjson.loads(data)]
    assert texts == ["a", "b"]
    assert orjson.loads(nothing[1]) == []
    assert failed.code == 500
    assert orjson.loads(error)[0]["error"]["status"] == "INTERNAL"


@pytest_twisted.ensureDeferred
async def test_generate_content_is_one_document():
    async with running() as client:
        client.standin.play(scenarios.thinking("Hm.", "a", "b", text("c")))
        status, response = await client.whole()
    assert status == 200
    [candidate] = response["candidates"]
    assert candidate["content"]["parts"] == [thought("Hm."), text("abc")]
    assert candidate["finishReason"] == "STOP"
    assert response["usageMetadata"]["thoughtsTokenCount"] == 1


@pytest_twisted.ensureDeferred
async def test_thoughts_calls_and_raw_parts():
    async with running() as client:
        client.standin.play(
            scenarios.thinking(["One.", "Two."], "Done"),
            scenarios.calls("now", ("weather", {"city": "Oslo"})),
            answer([text("a"), {"executableCode": {"code": "1"}}], finish_reason=None),
        )
        thoughts, called, raw = [await client.events() for _ in range(3)]
    parts = [event["candidates"][0]["content"]["parts"] for event in thoughts]
    assert parts == [[thought("One.")], [thought("Two.")], [text("Done")]]
    assert thoughts[-1]["usageMetadata"]["thoughtsTokenCount"] == 2
    [event] = called
    assert event["candidates"][0]["content"]["parts"] == [
        call("now"),
        call("weather", {"city": "Oslo"}),
    ]
    assert raw[0]["candidates"][0]["content"]["parts"][1] == {"executableCode": {"code": "1"}}
    assert "finishReason" not in raw[0]["candidates"][0]


@pytest_twisted.ensureDeferred
async def test_empty_and_blocked_answers():
    async with running() as client:
        client.standin.play(
            scenarios.empty(finish_reason="MAX_TOKENS"),
            scenarios.empty(finish_reason=None),
            scenarios.blocked("SAFETY"),
        )
        empty, nothing, blocked = [await client.events() for _ in range(3)]
    assert empty[0]["candidates"] == [
        {"content": {"role": "model"}, "finishReason": "MAX_TOKENS", "index": 0}
    ]
    assert nothing == []
    assert blocked[0]["promptFeedback"] == {"blockReason": "SAFETY"}
    assert "candidates" not in blocked[0]


@pytest_twisted.ensureDeferred
async def test_usage_is_rendered():
    told = {"promptTokenCount": 100, "cachedContentTokenCount": 90}
    async with running() as client:
        client.standin.play(answer("a", usage=told), answer("a", usage=None))
        [with_usage], [without] = [await client.events() for _ in range(2)]
    assert with_usage["usageMetadata"] == {
        "totalTokenCount": 101,
        "promptTokenCount": 100,
        "candidatesTokenCount": 1,
        "cachedContentTokenCount": 90,
    }
    assert "usageMetadata" not in without


@pytest_twisted.ensureDeferred
async def test_garbage_is_sent_as_it_is():
    async with running() as client:
        client.standin.play(scenarios.garbage("a", data=b"{not json"), scenarios.garbage())
        _, data = await client.streamed()
        response = await client.post(WHOLE)
        whole = await response.content()
    first, second, end = data.split(b"\r\n\r\n")
    assert orjson.loads(first.removeprefix(b"data: "))["candidates"]
    assert second == b"data: {not json"
    assert end == b""
    assert whole == b"<html>no JSON</html>"


# --- Errors.


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("play", "status", "name", "message", "details"),
    [
        (scenarios.error(503, "Overloaded."), 503, "UNAVAILABLE", "Overloaded.", []),
        (scenarios.error(418, name="TEAPOT"), 418, "TEAPOT", "told to fail", []),
        (scenarios.bare_rate_limited(), 429, "RESOURCE_EXHAUSTED", "(e.g. check quota).", []),
        (
            scenarios.rate_limited(36),
            429,
            "RESOURCE_EXHAUSTED",
            "retry in 36s",
            ["36s", "PerMinute"],
        ),
        (scenarios.daily_quota(), 429, "RESOURCE_EXHAUSTED", "quota", ["PerDayPerProjectPerModel"]),
        (
            scenarios.invalid_key(),
            400,
            "INVALID_ARGUMENT",
            "API key not valid",
            ["API_KEY_INVALID"],
        ),
    ],
)
async def test_errors(play: Any, status: int, name: str, message: str, details: list[str]):
    async with running() as client:
        client.standin.play(play)
        response, data = await client.streamed()
    assert response.code == status
    error = orjson.loads(data)["error"]
    assert error["code"] == status
    assert error["status"] == name
    assert message in error["message"]
    told = orjson.dumps(error.get("details", [])).decode()
    assert all(detail in told for detail in details)
    assert bool(details) == ("details" in error)


@pytest_twisted.ensureDeferred
async def test_an_error_may_have_headers():
    async with running() as client:
        client.standin.play(scenarios.error(503, headers={"Retry-After": "7"}))
        response, _ = await client.streamed()
    assert response.headers.getRawHeaders("retry-after") == ["7"]


@pytest_twisted.ensureDeferred
async def test_keys():
    async with running(keys=["good"]) as client:
        client.standin.play(answer("a"))
        client.key = None
        none, _ = await client.whole()
        listed, _ = await client.get("v1/models")
        in_query, _ = await client.whole(WHOLE + "?key=bad")
        client.key = "bad"
        wrong, error = await client.whole()
        client.key = "good"
        right, _ = await client.whole()
    assert (none, listed, in_query, wrong, right) == (403, 403, 400, 400, 200)
    assert error["error"]["details"][0]["reason"] == "API_KEY_INVALID"


@pytest_twisted.ensureDeferred
async def test_what_is_no_request():
    async with running() as client:
        bad, error = await client.whole(body=b"{")
        no_object, _ = await client.whole(body=b"[]")
        no_method, _ = await client.whole("v1/models/m:predict")
        no_path, told = await client.get("v2/models")
    assert (bad, no_object, no_method, no_path) == (400, 400, 404, 404)
    assert error["error"]["status"] == "INVALID_ARGUMENT"
    assert told["error"]["status"] == "NOT_FOUND"


@pytest_twisted.ensureDeferred
async def test_models_and_token_counts():
    async with running(models=["gemini-x"]) as client:
        client.standin.play(answer("not for these"))
        _, listed = await client.get("v1beta/models")
        found, model = await client.get("v1/models/gemini-x")
        missing, _ = await client.get("v1beta/models/gemini-y")
        _, count = await client.whole("v1beta/models/gemini-x:countTokens")
        _, played = await client.whole()
        methods = [request.method for request in client.standin.requests]
    assert [model["name"] for model in listed["models"]] == ["models/gemini-x"]
    assert "generateContent" in model["supportedGenerationMethods"]
    assert (found, missing) == (200, 404)
    assert count["totalTokens"] == 9
    assert played["candidates"][0]["content"]["parts"] == [text("not for these")]
    assert methods == ["list", "get", "get", "countTokens", "generateContent"]


# --- Time.


@pytest_twisted.ensureDeferred
async def test_the_pace_is_that_of_the_clock():
    clock = Clock()
    async with running(clock) as client:
        client.standin.play(answer("a", "b", delay=5, first_chunk_delay=3, pace=2))
        pending = client.post(STREAM, params={"alt": "sse"})
        request = await client.standin.when_request(0)
        clock.advance(4)
        assert request.first_byte_time is None
        clock.advance(1)
        assert request.first_byte_time == 5
        body = Body()
        (await pending).deliverBody(body)
        assert request.first_chunk_time is None
        clock.advance(3)
        await body.until_events(1)
        assert request.first_chunk_time == 8
        clock.advance(1)
        assert body.data.count(b"data: ") == 1
        clock.advance(1)
        await body.until_events(2)
        await body.done.wait()
        assert clock.seconds() == 10
        assert await request.when_closed() is Closed.COMPLETE


@pytest_twisted.ensureDeferred
async def test_chunks_without_pace_are_separate_writes(monkeypatch: pytest.MonkeyPatch):
    writes: list[bytes] = []
    write = tcp.Server.writeSomeData

    def writing(self: tcp.Server, data: bytes) -> Any:
        writes.append(bytes(data))
        return write(self, data)

    monkeypatch.setattr(tcp.Server, "writeSomeData", writing)
    async with running() as client:
        client.standin.play(answer("a", "b", "c"))
        await client.streamed()
    assert [data.count(b"data: ") for data in writes if b"data: " in data] == [1, 1, 1]


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_read_holds_the_stream_back():
    async with running() as client:
        client.standin.play(answer(*["x" * 200_000] * 200))
        response = await client.post(STREAM, params={"alt": "sse"})
        # Nothing takes the body, so its connection is not read.
        request = client.standin.requests[0]
        [performance] = client.standin._running
        paused: Deferred[None] = Deferred()
        pause = performance.pauseProducing
        performance.pauseProducing = lambda: (pause(), paused.callback(None))
        await paused
        body = Body()
        response.deliverBody(body)
        # It is paused again and again from here.
        performance.pauseProducing = pause
        assert isinstance(await body.done.wait(), ResponseDone)
        assert body.data.count(b"data: ") == 200
        assert request.closed is Closed.COMPLETE


# --- Faults.


@pytest_twisted.ensureDeferred
async def test_a_hang_before_the_headers_ends_with_the_client():
    async with running() as client:
        client.standin.play(scenarios.hang())
        pending = client.post(STREAM)
        request = await client.standin.when_request(0)
        several = [request.when_closed(), request.when_closed()]
        pending.addErrback(lambda failure: failure.trap(ResponseNeverReceived))
        pending.cancel()
        assert [await waiter for waiter in several] == [Closed.GONE, Closed.GONE]
        assert request.first_byte_time is None


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("after", [0, 2])
async def test_a_hang_after_chunks_ends_with_the_client(after: int):
    async with running() as client:
        client.standin.play(scenarios.hang("a", "b", "c", after=after))
        _, body = await client.stream()
        await body.until_events(after)
        request = client.standin.requests[0]
        assert request.closed is None
        assert client.standin._running
        body.abort()
        assert await request.when_closed() is Closed.GONE
        assert not client.standin._running
        assert body.data.count(b"data: ") == after


@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_ends_every_wait():
    clock = Clock()
    async with running(clock) as client:
        client.standin.play(answer("a", "b", pace=10))
        _, body = await client.stream()
        await body.until_events(1)
        body.abort()
        request = client.standin.requests[0]
        assert await request.when_closed() is Closed.GONE
        # What is left is the Site's own clock for its log.
        assert max(due.getTime() for due in clock.getDelayedCalls()) <= 1


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("after", [0, 2, 3])
async def test_a_cut_is_seen_as_a_cut(after: int, reset: bool):
    async with running() as client:
        client.standin.play(scenarios.cut("a", "b", "c", after=after, reset=reset))
        _, body = await client.stream()
        assert isinstance(await body.done.wait(), ResponseFailed)
        events = parse_events(bytes(body.data))
        assert len(events) == after
        assert not any("finishReason" in event["candidates"][0] for event in events)
        assert await client.standin.requests[0].when_closed() is Closed.CUT


@pytest_twisted.ensureDeferred
async def test_a_cut_before_the_headers():
    async with running() as client:
        for reset in (True, False):
            client.standin.play(scenarios.cut(reset=reset))
            with pytest.raises(ResponseFailed):
                await client.stream()
        closed = [await request.when_closed() for request in client.standin.requests]
    assert closed == [Closed.CUT, Closed.CUT]


@pytest_twisted.ensureDeferred
async def test_a_cut_in_one_document():
    async with running() as client:
        client.standin.play(scenarios.cut("a", after=1))
        response = await client.post(WHOLE)
        assert response.code == 200
        body = Body()
        response.deliverBody(body)
        assert isinstance(await body.done.wait(), ResponseFailed)
        assert body.data.startswith(b'{"candidates"')


def test_a_fault_must_be_reached():
    with pytest.raises(ValueError, match="after 3 of 2"):
        scenarios.cut("a", "b", after=3)


@pytest_twisted.ensureDeferred
async def test_stop_cuts_what_hangs():
    async with running() as client:
        client.standin.play(scenarios.hang(after=1), scenarios.hang())
        _, body = await client.stream()
        await body.until_events(1)
        pending = client.post(STREAM)
        await client.standin.when_request(1)
        await client.standin.stop()
        closed = [request.closed for request in client.standin.requests]
        assert closed == [Closed.CUT, Closed.CUT]
        assert isinstance(await body.done.wait(), ResponseFailed)
        with pytest.raises(ResponseFailed):
            await pending


# --- The record.


@pytest_twisted.ensureDeferred
async def test_requests_are_recorded():
    clock = Clock()
    clock.advance(7)
    async with running(clock) as client:
        client.standin.play(answer("a"))
        raw = orjson.dumps(BODY, option=orjson.OPT_INDENT_2)
        response = await client.post(WHOLE, raw, {"a": "b"})
        await response.content()
        [request] = client.standin.requests
    assert (request.method, request.model, request.version) == (
        "generateContent",
        "gemini-2.5-flash",
        "v1beta",
    )
    assert request.path == "/" + WHOLE
    assert request.query == {"a": "b"}
    assert request.headers["x-goog-api-key"] == "k"
    assert request.raw == raw
    assert request.body == BODY
    assert request.time == 7
    assert request.texts == [("user", "Good day"), ("model", "Yes?"), ("user", "Say it again")]
    assert request.system == "Be brief."
    assert request.generation_config == {"temperature": 0.5}
    assert "'k'" not in repr(request)


@pytest_twisted.ensureDeferred
async def test_only_the_last_requests_are_kept():
    async with running(chooser=lambda _: answer("a"), keep=2) as client:
        third = client.standin.when_request(2)
        for _ in range(3):
            await client.whole()
        assert [request.number for request in client.standin.requests] == [1, 2]
        assert (await client.standin.when_request(1)).number == 1
        assert await third is client.standin.requests[1]
        with pytest.raises(LookupError):
            await client.standin.when_request(0)


@pytest_twisted.ensureDeferred
async def test_queued_plays_win_over_the_chooser():
    async with running(chooser=lambda request: answer(f"chosen {request.number}")) as client:
        client.standin.play(answer("first"), answer("second"))
        texts = [(await client.events())[0]["candidates"][0]["content"]["parts"] for _ in range(3)]
    assert texts == [[text("first")], [text("second")], [text("chosen 2")]]


def test_a_waiter_may_be_cancelled():
    once: Once[int] = Once()
    impatient, patient = once.wait(), once.wait()
    seen: list[Any] = []
    impatient.addErrback(seen.append)
    patient.addCallback(seen.append)
    impatient.cancel()
    once.happen(3)
    once.wait().addCallback(seen.append)
    assert seen[0].check(CancelledError)
    assert seen[1:] == [3, 3]


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda v: (
            st.lists(v) | st.dictionaries(st.sampled_from(["parts", "text", "role", "type"]), v)
        ),
    )
)
def test_odd_bodies_are_no_trouble(value: Any):
    names = ("contents", "tools", "systemInstruction", "generationConfig")
    request = ReceivedRequest("generateContent", "m", body=dict.fromkeys(names, value))
    assert isinstance(echo(request), scenarios.Scenario)


# --- Pure parts.


@pytest.mark.parametrize("framing", [SSE, ARRAY])
def test_framings_end_what_they_begin(framing: Any):
    documents = [b'{"a":1}', b"2"]
    framed = b"".join(framing.document(*pair) for pair in enumerate(documents))
    whole = framed + framing.end(len(documents))
    assert whole in (b'data: {"a":1}\r\n\r\ndata: 2\r\n\r\n', b'[{"a":1}\r\n,\r\n2\r\n]\r\n')


def test_only_like_parts_are_merged():
    signed = {"text": "d", "thoughtSignature": "s"}
    parts = [thought("a"), thought("b"), text("c"), signed, call("f"), text("e")]
    assert merged(parts) == [thought("ab"), text("c"), signed, call("f"), text("e")]


# --- The demo.


@given(st.text())
def test_the_demo_echoes_the_last_message(message: str):
    play = echo(asked(message))
    assert played_text(play).endswith(message)
    assert "demo of gemproxy" in played_text(play)
    assert play.pace > 0


@given(st.text(), st.integers(1, 9))
def test_word_chunks_lose_nothing(words: str, most: int):
    chunks = word_chunks(words, most)
    assert "".join(chunks) == words
    assert len(chunks) <= most


def test_the_demo_streams_words():
    assert word_chunks(" one two\n\nthree ") == [" ", "one ", "two\n\n", "three "]


def test_the_demo_thinks_on_request():
    play = echo(asked(generationConfig={"thinkingConfig": {"includeThoughts": True}}))
    assert play.chunks[0][0]["thought"] is True
    assert not any(part.get("thought") for part in echo(asked()).chunks[0])


def test_the_demo_knows_limits():
    short = echo(asked(generationConfig={"maxOutputTokens": 2}))
    assert (played_text(short), short.finish_reason) == ("This is ", "MAX_TOKENS")
    stopped = echo(asked(generationConfig={"stopSequences": ["absent", " demo"]}))
    assert (played_text(stopped), stopped.finish_reason) == ("This is the", "STOP")


SCHEMAS: list[tuple[Any, Any]] = [
    ({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"a": 0}),
    ({"type": "object", "properties": {"a": {"type": "integer"}}}, {}),
    ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [False, False]),
    ({"enum": ["x", "y"]}, "x"),
    ({"const": 5}, 5),
    ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
    ({"type": ["number", "null"]}, 0),
    ({"$defs": {"x": {"type": "string"}}, "$ref": "#/$defs/x"}, ""),
    ({"type": "object", "required": ["b", 1]}, {"b": ""}),
]


@pytest.mark.parametrize(("schema", "value"), SCHEMAS)
def test_the_demo_fits_a_schema(schema: Any, value: Any):
    config = {"responseMimeType": "application/json", "responseJsonSchema": schema}
    assert orjson.loads(played_text(echo(asked("x", generationConfig=config)))) == value


def test_the_demo_calls_where_it_must():
    tools = [{"functionDeclarations": [{"name": "f"}, {"name": "g"}]}]

    def called(message: str, **calling: Any) -> Any:
        config = {"functionCallingConfig": calling}
        [[part]] = echo(asked(message, tools=tools, toolConfig=config)).chunks
        return part["functionCall"]["name"]

    assert called("Hi", mode="ANY") == "g"
    assert called("Use f", mode="ANY") == "f"
    assert called("Use g", mode="ANY", allowedFunctionNames=["f"]) == "f"


@given(json_values("type", "properties", "required", "$ref", "anyOf", "items", "minItems", "enum"))
def test_the_demo_has_a_value_for_any_schema(schema: Any):
    sample(schema)


def test_the_demo_answers_in_json():
    play = echo(asked("ä\n", generationConfig={"responseMimeType": "application/json"}))
    assert orjson.loads(played_text(play)) == {"demo": True, "model": "m", "echo": "ä\n"}


@pytest.mark.parametrize("name", ["get_weather"])
def test_the_demo_calls_a_function_that_is_named(name: str):
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "STRING"},
            "days": {"type": "integer"},
            "unit": {"type": "string", "enum": ["C", "F"]},
            "more": {"type": "string"},
        },
        "required": ["city", "days", "unit"],
    }
    functions = [{"name": name, "parametersJsonSchema": schema}, {"name": "now"}]
    tools = [{"functionDeclarations": functions}]
    play = echo(asked("Please get_weather!", tools=tools))
    assert play.chunks == ((call(name, {"city": "", "days": 0, "unit": "C"}),),)
    assert "Please" in played_text(echo(asked("Please get_weather2, nowhere", tools=tools)))


def test_the_demo_reports_what_a_function_returned():
    result = {"name": "now", "response": {"output": "noon"}}
    request = asked("now", tools=[{"functionDeclarations": [{"name": "now"}]}])
    assert request.body is not None
    request.body["contents"].append({"role": "user", "parts": [{"functionResponse": result}]})
    assert "noon" in played_text(echo(request))


@pytest_twisted.ensureDeferred
async def test_the_demo_is_the_default():
    def hurried(request: ReceivedRequest) -> scenarios.Scenario:
        return evolve(echo(request), pace=0.0)

    async with running() as client:
        _, response = await client.whole("v1/models/m:countTokens")
        assert response["totalTokens"] == 9
        assert client.standin.chooser is echo
    async with running(chooser=hurried) as client:
        events = await client.events()
    told = "".join(event["candidates"][0]["content"]["parts"][0]["text"] for event in events)
    assert told.endswith("Say it again")


@pytest_twisted.ensureDeferred
async def test_the_command_tells_its_options():
    out, _, code = await getProcessOutputAndValue(
        sys.executable, ["-m", "testing.google", "--help"]
    )
    assert code == 0
    assert b"--port" in out
