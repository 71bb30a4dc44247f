"""Request bodies with a Content-Encoding."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred

from gemproxy.http.encodings import (
    BadEncoding,
    DecodedTooLarge,
    UnknownEncoding,
    codings,
    decoded,
)
from testing.fake_newapi import document
from testing.google import scenarios
from tests.support import Product, Relay, chat, encode, gpt, running_relay

MB = 1_000_000


def bare_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


ENCODERS: dict[str, tuple[str, Any]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "bare deflate": ("deflate", bare_deflate),
    "two members": (
        "gzip",
        lambda data: gzip.compress(data[:9], mtime=0) + gzip.compress(data[9:], mtime=0),
    ),
    "identity": ("identity", bytes),
    "twice": ("deflate, identity, gzip", lambda data: gzip.compress(zlib.compress(data))),
}
each_encoder = pytest.mark.parametrize(("name", "encoder"), ENCODERS.values(), ids=ENCODERS.keys())


any_encoder = st.sampled_from(list(ENCODERS.values()))


@given(how=any_encoder, data=st.binary(max_size=2000), room=st.integers(0, 3))
def test_what_was_encoded_is_decoded(how: tuple[str, Any], data: bytes, room: int) -> None:
    name, encoder = how
    limit = max(len(data), len(zlib.compress(data))) + room
    assert decoded(encoder(data), codings([name]), limit) == data


@given(how=any_encoder, data=st.binary(min_size=1, max_size=2000))
def test_what_is_too_large_is_refused(how: tuple[str, Any], data: bytes) -> None:
    name, encoder = how
    if name != "identity":
        with pytest.raises(DecodedTooLarge):
            decoded(encoder(data), codings([name]), len(data) - 1)


def test_a_bomb_is_not_inflated() -> None:
    bomb = gzip.compress(bytes(50 * MB))
    tracemalloc.start()
    try:
        with pytest.raises(DecodedTooLarge):
            decoded(bomb, ["gzip"], MB)
        with pytest.raises(DecodedTooLarge):
            decoded(gzip.compress(bomb, mtime=0), ["gzip", "gzip"], MB)
        assert tracemalloc.get_traced_memory()[1] < 10 * MB
    finally:
        tracemalloc.stop()


WHOLE = b"some text, again and again and again"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("gzip", WHOLE),
        ("gzip", gzip.compress(WHOLE, mtime=0)[:-1]),
        ("gzip", gzip.compress(WHOLE, mtime=0) + b"more"),
        ("gzip", gzip.compress(WHOLE, mtime=0)[:-8] + bytes(8)),
        ("gzip", gzip.compress(b"", mtime=0) * 9),
        ("gzip", zlib.compress(WHOLE)),
        ("gzip", b"\x1f"),
        ("deflate", WHOLE),
        ("deflate", zlib.compress(WHOLE)[:-1]),
        ("deflate", zlib.compress(WHOLE) + b"more"),
        ("deflate", gzip.compress(WHOLE, mtime=0)),
        ("deflate", b"x"),
    ],
)
def test_damaged_data(name: str, data: bytes) -> None:
    with pytest.raises(BadEncoding, match=f"^{name}$"):
        decoded(data, [name], MB)


@pytest.mark.parametrize(
    "values", [["br"], ["gzip", "zstd"], ["gzip,, compress"], ["gzip"] * 4, ["*"]]
)
def test_what_cannot_be_decoded(values: list[str]) -> None:
    with pytest.raises(UnknownEncoding):
        codings(values)


# Through the ports:


@each_encoder
@ensureDeferred
async def test_a_chat_for_an_upstream(relay: Relay, name: str, encoder: Any) -> None:
    body = encode(gpt(stream=True))
    reply = await relay.ask(encoder(body), Content_Encoding=name)
    assert reply.content == "Hello"
    [call] = relay.upstream.calls
    assert bytes(call.body) == body
    assert call.header("content-encoding") is None
    assert call.all_headers("content-length") == [str(len(body))]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/images/generations"])
@ensureDeferred
async def test_other_json_for_an_upstream(relay: Relay, path: str) -> None:
    relay.upstream.play(document({}))
    body = encode({"model": "gpt-x", "input": "Hello", "prompt": "Hello"})
    headers = {"Content_Type": "application/json", "Content_Encoding": "gzip"}
    client = await relay.send("POST", path, gzip.compress(body, mtime=0), **headers)
    assert (await client.reply()).status == 200
    [call] = relay.upstream.calls
    assert bytes(call.body) == body
    assert call.header("content-encoding") is None


@ensureDeferred
async def test_a_body_that_is_passed_on_while_it_arrives_stays_as_it_is(relay: Relay) -> None:
    relay.upstream.play(document({}))
    body = b"neither gzip nor br"
    client = await relay.send("POST", "/v1/files", body, Content_Encoding="br, gzip")
    assert (await client.reply()).status == 200
    [call] = relay.upstream.calls
    assert bytes(call.body) == body
    assert call.header("content-encoding") == "br, gzip"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
@pytest.mark.parametrize("name", ["br", "zstd", "gzip, br"])
@ensureDeferred
async def test_other_encodings_are_refused_by_name(relay: Relay, path: str, name: str) -> None:
    headers = {"Content_Type": "application/json", "Content_Encoding": name}
    reply = await (await relay.send("POST", path, encode(gpt()), **headers)).reply()
    assert reply.status == 415
    assert reply.headers["accept-encoding"] == "gzip, deflate"
    assert f"'{name.split(', ')[-1]}' is not supported" in reply.error["message"]
    assert relay.upstream.calls == []


@ensureDeferred
async def test_a_body_that_is_not_what_it_says_is_a_bad_request(relay: Relay) -> None:
    reply = await relay.ask(gpt(), Content_Encoding="gzip")
    assert reply.status == 400
    assert reply.error["message"] == "The request body is not valid gzip."


@ensureDeferred
async def test_the_limit_is_that_of_the_decoded_body() -> None:
    async with running_relay(MAX_BODY="100kB") as relay:
        small, large = gpt("x" * 99_000, stream=True), gpt("x" * 100_000, stream=True)
        reply = await relay.ask(gzip.compress(encode(small)), Content_Encoding="gzip")
        assert reply.content == "Hello"
        reply = await relay.ask(gzip.compress(encode(large)), Content_Encoding="gzip")
        assert reply.status == 413
        assert "MAX_BODY" in reply.error["message"]
        assert len(relay.upstream.calls) == 1


@ensureDeferred
async def test_no_body_needs_no_decoding(relay: Relay) -> None:
    client = await relay.send("GET", "/v1/models", None, Content_Encoding="br")
    assert (await client.reply()).status == 200


@ensureDeferred
async def test_a_chat_for_gemini(product: Product) -> None:
    for port in (product.port, product.stream_port):
        product.api.play(scenarios.answer("Decoded."))
        body = gzip.compress(json.dumps(chat("Hi there")).encode())
        reply = await product.ask(body, port, Content_Encoding="gzip")
        assert reply.content == "Decoded."
        assert product.asked[-1].parts == [{"text": "Hi there"}]
