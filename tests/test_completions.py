"""Stop tags in /v1/completions, which is passed through."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred

from gemproxy.web.completions import StopTagCutter, choices_in
from testing.fake_newapi import document, events
from tests.support import Relay

TAGS = ("<end>",)
REQUEST = {"model": "gpt-x", "prompt": "Say", "stream": True}


def chunk(text: str, index: int = 0, finish: str | None = None) -> bytes:
    choice = {"index": index, "text": text, "finish_reason": finish, "logprobs": None}
    return json.dumps({"id": "c", "object": "text_completion", "choices": [choice]}).encode()


def stream_of(*chunks: bytes) -> bytes:
    return b"".join(b"data: " + one + b"\n\n" for one in (*chunks, b"[DONE]"))


def cut(body: bytes, *sizes: int, request: Any = REQUEST) -> tuple[str, bool]:
    """The text that is passed on, and whether a tag ended it."""
    cutter = StopTagCutter(TAGS, choices_in(json.dumps(request).encode()))
    cutter.begin(is_events=True)
    shown, place = b"", 0
    for size in (*sizes, len(body)):
        shown += cutter.feed(body[place : place + size])
        place += size
    shown += cutter.close()
    pieces = [e[6:] for e in shown.decode().split("\n\n") if e]
    assert pieces[-1] == "[DONE]"
    texts = [json.loads(piece)["choices"][0]["text"] for piece in pieces[:-1]]
    return "".join(texts), cutter.ended


BODY = stream_of(chunk("One, t"), chunk("wo <e"), chunk("nd> never"), chunk("", finish="stop"))


@given(st.lists(st.integers(1, 60), max_size=12))
def test_a_stream_ends_at_a_tag_however_it_is_cut(sizes: list[int]):
    assert cut(BODY, *sizes) == ("One, two ", True)


@given(st.lists(st.integers(1, 60), max_size=12))
def test_a_stream_without_a_tag_is_whole(sizes: list[int]):
    body = stream_of(chunk("One <e"), chunk("n"), chunk("", finish="stop"))
    assert cut(body, *sizes) == ("One <en", False)


def test_every_choice_must_end():
    body = stream_of(chunk("a<end>", 0), chunk("b", 1), chunk("c<end>", 1), chunk("d", 1))
    for request in ({"n": 2}, {"prompt": ["x", "y"]}):
        text, ended = cut(body, request=REQUEST | request)
        assert (text, ended) == ("abc", True)
    assert cut(body, request=REQUEST | {"prompt": [1, 2, 3]})[0] == "a"


@ensureDeferred
async def test_the_upstream_is_ended_too(relay: Relay) -> None:
    chunks = (chunk("One <"), chunk("disclaimer> never"))
    relay.upstream.play(events(*(b"data: " + one + b"\n\n" for one in chunks), then="hang"))
    client = await relay.send("POST", "/v1/completions", REQUEST, Accept_Encoding="gzip")
    reply = await client.reply()
    assert reply.data[-1] == "[DONE]"
    assert "".join(c["choices"][0]["text"] for c in reply.data[:-1]) == "One "
    call = relay.upstream.calls[0]
    await call.when(lambda: call.closed)
    assert call.header("accept-encoding") == "identity"
    metrics = (await relay.get("/metrics")).body.decode()
    assert "gemproxy_stop_tags_total 1.0" in metrics


@ensureDeferred
async def test_a_document_ends_at_a_tag(relay: Relay) -> None:
    whole = {
        "id": "c",
        "choices": [{"index": 0, "text": "One <disclaimer> never", "finish_reason": "length"}],
    }
    relay.upstream.play(document(whole))
    client = await relay.send("POST", "/v1/completions", REQUEST | {"stream": False})
    reply = await client.reply()
    choice = reply.json["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("One ", "stop")


@pytest.mark.parametrize("body", [{"error": {"message": "No."}}, {"choices": []}, [1]])
@ensureDeferred
async def test_other_documents_pass_as_they_are(relay: Relay, body: Any) -> None:
    relay.upstream.play(document(body, 400 if "error" in body else 200))
    client = await relay.send("POST", "/v1/completions", REQUEST | {"stream": False})
    assert (await client.reply()).json == body
