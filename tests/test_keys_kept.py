"""No key leaves: not in errors, not in the log, and none of this proxy's to an upstream."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.logger import Logger, eventAsText, formatEvent, globalLogPublisher

from gemproxy import command
from gemproxy.chat.errors import ChatError, Verbatim
from gemproxy.openai.headers import OwnKeys, query_to_upstream, to_upstream
from gemproxy.util.log import MaskingObserver
from gemproxy.util.masked_stream import ErrorEventMask, TextMask
from gemproxy.util.masking import LOOKALIKES, NO_KEYS, Masking
from testing.fake_newapi import EVENT_STREAM, JSON, Call, document, events, head, verbatim
from testing.google.scenarios import error as google_error
from tests.support import Connection, Relay, chat, gpt, running, running_relay
from tests.test_passthrough import pass_through
from tests.test_websockets import open_websocket

FIXED, PROXY, ADMIN = "fixed:key/of+upstream", "key-of-the-proxy-1", "key-of-the-admin-1"
CLIENT, STRANGER = "my.own%key", "AIzaSyA-1234567890_abcdefghijklmnopqrst"
BEARER = "eyJhbGciOi.J9.e30"
ALL = (FIXED, PROXY, ADMIN, CLIENT, STRANGER, BEARER)
SAID = f"No {FIXED}, '{PROXY}', ({ADMIN}) or {CLIENT}: key:{STRANGER} with Bearer {BEARER}"
ERROR = {"error": {"message": SAID, "type": "x", "code": f"no_{STRANGER}", "more": [FIXED]}}
SETTINGS = {"FIXED_API_KEY": FIXED, "PROXY_API_KEYS": PROXY, "ADMIN_KEY": ADMIN}
CREDENTIALS = {"X_Api_Key": PROXY, "Authorization": f"Bearer {CLIENT}"}


def texts_of(logged: Iterable[Any]) -> str:
    return "\n".join(eventAsText(event) for event in logged)


def assert_kept(text: str, keys: Iterable[str] = ALL) -> None:
    for key in keys:
        assert key not in text
        assert json.dumps(key)[1:-1] not in text


def event(data: Any, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: %b\n\n" % json.dumps(
        data
    ).encode()


QUOTING = {
    "JSON": document(ERROR, 401, [JSON, ("Retry-After", "1")], f"No {FIXED}"),
    "text": document(SAID.encode(), 403, [("Content-Type", "text/plain")]),
    "no type": document(SAID.encode(), 500, []),
    "nothing but a reason": document(b"", 502, reason=SAID),
    "status 200": document(ERROR),
    "an event": events(event(ERROR)),
    "a named event": events(event(ERROR["error"], "error")),
    "headers": document(ERROR, 400, [JSON, ("Retry-After", FIXED), ("X-Seen", f"Bearer {CLIENT}")]),
}


@pytest.mark.parametrize("quoting", QUOTING)
@ensureDeferred
async def test_an_upstream_that_quotes_keys_shows_none(quoting: str, tmp_path: Path) -> None:
    async with running_relay(**SETTINGS, LOG_DIR=tmp_path) as relay:
        relay.upstream.always(QUOTING[quoting])
        for stream in (True, False):
            client = await relay.begin(gpt(stream=stream), **CREDENTIALS)
            await client.reply()
            assert b"[secret]" in client.received or quoting == "nothing but a reason"
            assert_kept(client.received.decode())
        if quoting != "status 200":
            # That is a good answer as far as anybody knows.
            client = await relay.send("GET", "/v1/files", **CREDENTIALS)
            await client.reply()
            assert_kept(client.received.decode())
        await (await relay.send("GET", "/v1/models", **CREDENTIALS)).reply()
        assert_kept(texts_of(relay.logged))
    for path in tmp_path.iterdir():
        assert_kept(path.read_text())


@ensureDeferred
async def test_a_client_s_own_key_is_not_shown_either() -> None:
    async with running_relay() as relay:
        relay.upstream.always(QUOTING["JSON"])
        for method, path, body in (
            ("POST", "/v1/chat/completions", gpt()),
            ("GET", "/v1/files", None),
            ("GET", "/v1/models/gpt-x", None),
        ):
            client = await relay.send(method, path, body, **CREDENTIALS)
            await client.reply()
            assert_kept(client.received.decode(), (PROXY, CLIENT, STRANGER, BEARER))
        assert_kept(texts_of(relay.logged), (PROXY, CLIENT, STRANGER, BEARER))


GOOD = event({"type": "response.output_text.delta", "delta": SAID})
FAILED = {"type": "response.failed", "response": {"error": {"message": SAID}}}


@ensureDeferred
async def test_error_events_of_streams_that_pass_are_masked_and_nothing_else() -> None:
    async with running_relay(**SETTINGS) as relay:
        for failure in (event(FAILED, "response.failed"), event(FAILED), event(ERROR)):
            relay.upstream.play(events(GOOD, failure, GOOD, headers=[EVENT_STREAM]))
            client = await relay.send("GET", "/v1/responses/1?stream=true", **CREDENTIALS)
            reply = await client.reply()
            first, masked, last = reply.body.split(b"\n\n")[:3]
            assert first + b"\n\n" == last + b"\n\n" == GOOD
            assert_kept(masked.decode())
            assert masked.count(b"[secret]") >= 4


@ensureDeferred
async def test_a_good_answer_stays_as_it_is_but_for_keys_of_ours_in_its_head() -> None:
    async with running_relay(FIXED_API_KEY=FIXED) as relay:
        headers = [JSON, ("X-Sent", f"Bearer {FIXED}"), ("X-Other", STRANGER)]
        relay.upstream.play(document({"said": SAID}, 200, headers, reason=FIXED))
        reply = await (await relay.send("GET", "/v1/files")).reply()
        assert reply.json == {"said": SAID}
        assert (reply.reason, reply.headers["x-sent"]) == ("[secret]", "Bearer [secret]")
        assert reply.headers["x-other"] == STRANGER


@pytest.mark.cli
@ensureDeferred
async def test_google_s_errors_show_no_key(tmp_path: Path) -> None:
    key = "key-of-google-1"
    said = f"Consumer {key}, {STRANGER} or Bearer {BEARER}."
    logged: list[Any] = []
    globalLogPublisher.addObserver(logged.append)
    async with running(tmp_path, GEMINI_API_KEY=key, MAX_RETRIES=1) as product:
        for status in (400, 403, 429, 500):
            for stream in (True, False):
                product.api.play(*[google_error(status, said)] * 2)
                client = await product.begin(chat(f"Hello {status} {stream}", stream=stream))
                await client.reply()
                assert_kept(client.received.decode(), (key, STRANGER, BEARER))
                product.api._plays.clear()
        for port in (product.port, product.stream_port):
            for method in ("TRACE", "CONNECT"):
                reply = await (await product.send(method, "/v1/models", port=port)).reply()
                assert reply.status == 501
    globalLogPublisher.removeObserver(logged.append)
    assert "retry" in texts_of(logged)
    assert_kept(texts_of(logged), (key, STRANGER, BEARER))


# The log


def test_what_looks_like_a_key_is_not_logged_and_failures_keep_their_trace() -> None:
    logged: list[Any] = []
    log = Logger(observer=MaskingObserver(logged.append, Masking([FIXED])))
    log.warn("{what}", what=f"{FIXED} {STRANGER}")
    log.info("{what}", what="nothing")
    try:
        raise ValueError(FIXED)
    except ValueError:
        log.failure("it failed")
    assert_kept(texts_of(logged))
    assert_kept(repr(logged))
    warning, info, failure = logged
    assert warning["log_format"].format(**warning) == "[secret] [secret]"
    assert info["what"] == "nothing"
    assert "it failed" in eventAsText(failure)
    assert "ValueError: [secret]" in eventAsText(failure)


# Pages and commands


def test_what_has_no_key_is_logged_as_twisted_formats_it() -> None:
    events: list[Any] = []
    log = Logger(observer=events.append)
    log.info("{a} {b!r:>8} {c.real:.3f} {d[x]} {{}}", a="{q}", b="\u00e9", c=1.5, d={"x": 1})
    log.info("{what()} of {a.upper()}", what=lambda: "call", a="{q}")
    log.info("{missing}", a="{q}")
    log.info(None)
    logged: list[Any] = []
    for event in events:
        MaskingObserver(logged.append)(event)
    assert [formatEvent(event) for event in logged] == [formatEvent(event) for event in events]
    assert [formatEvent(event) for event in logged][:2] == [
        "{q}      'é' 1.500 1 {}",
        "call of {Q}",
    ]


@ensureDeferred
async def test_pages_for_operators_show_no_keys(tmp_path: Path, capsys: Any) -> None:
    config = tmp_path / "gemproxy.toml"
    config.write_text(f"port = 'off'\n[routes]\n'{STRANGER}' = 'newapi/{FIXED}'\n")
    environ = SETTINGS | {"GEMPROXY_CONFIG": str(config), "GEMINI_PROXY_URL": "http://a"}
    for arguments in (["routes"], ["check"]):
        assert command.main(arguments, environ) == 0
    printed = capsys.readouterr().out
    assert "[secret]" in printed
    assert_kept(printed)
    assert command.main(["check"], environ | {"PORT": STRANGER}) == 1
    assert_kept(capsys.readouterr().err)


# What is passed on

OWN = {
    "Authorization": f"bearer {PROXY}",
    "X_Api_Key": PROXY,
    "X_Anything": f"Token token={ADMIN}",
    "Cookie": f"a=b; key={PROXY}",
    "X_Kept": "kept",
}


@pytest.mark.parametrize("fixed", ["", FIXED])
@ensureDeferred
async def test_a_key_of_this_proxy_reaches_no_upstream(fixed: str) -> None:
    async with running_relay(**(SETTINGS | {"FIXED_API_KEY": fixed})) as relay:
        target = f"key={PROXY}&a=1&b=%6bey-of-the-admin-1&c=x{PROXY}"
        for method, path, body in (
            ("GET", "/v1/files", None),
            ("POST", "/v1/chat/completions", gpt()),
            ("POST", "/v1/embeddings", {"model": "m", "input": "x"}),
        ):
            call, _ = await pass_through(relay, method, f"{path}?{target}", body, **OWN)
            assert call.target == f"{path}?a=1"
            assert PROXY not in str(call.headers)
            assert ADMIN not in str(call.headers)
            assert call.header("x-kept") == "kept"
        relay.upstream.play(document({"object": "list", "data": []}))
        await (await relay.send("GET", "/v1/models", **OWN)).reply()
        assert not [c for c in relay.upstream.calls if is_upstream(c) and PROXY in str(c.headers)]


def is_upstream(call: Call) -> bool:
    """Whether a call is not for the Gemini Proxy, which has the same keys."""
    return call.header("x-gemproxy-commits-in") is None and call.target != "/v1/models"


@ensureDeferred
async def test_nor_in_a_websocket() -> None:
    async with running_relay(PROXY_API_KEYS=f"{PROXY},none") as relay:
        for key in (PROXY, "none"):
            protocols = (
                f"realtime, openai-insecure-api-key.{key}, openai-insecure-api-key.sk-theirs"
            )
            _, call = await opened(relay, protocols)
            assert call.header("sec-websocket-protocol") == (
                "realtime, openai-insecure-api-key.sk-theirs"
            )
            assert call.target == "/v1/realtime?model=gpt"


async def opened(relay: Relay, protocols: str) -> tuple[Connection, Call]:
    relay.upstream.play(verbatim(head(403, [("Content-Length", "0")]), "close"))
    number = len(relay.upstream.calls)
    client = await open_websocket(
        relay, f"/v1/realtime?model=gpt&key={PROXY}", Sec_WebSocket_Protocol=protocols
    )
    return client, await relay.upstream.when_asked(number)


def test_a_short_key_is_a_word_and_not_a_part_of_one():
    own = OwnKeys(["none", "secret-1"])
    headers = ((b"Authorization", b"Bearer none"), (b"Accept", b"nonentity"), (b"A", b"xsecret-1"))
    assert to_upstream(headers, None, own) == headers[1:2]
    assert query_to_upstream(b"a=none&b=nonentity&c=secret%2D1", None, own) == b"b=nonentity"


# In pieces

WORDS = st.lists(
    st.sampled_from([FIXED, FIXED[:9], STRANGER, f"Bearer {BEARER}", "Bearer", " ", '"', ": ", "x"])
)


def in_pieces(text: bytes, data: st.DataObject) -> list[bytes]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(WORDS, st.data())
def test_a_text_is_masked_in_whatever_pieces_it_comes(words: list[str], data: st.DataObject):
    text = "".join(words).encode()
    masking = Masking([FIXED]).in_errors()
    mask = TextMask(masking)
    shown = b"".join([*map(mask.feed, in_pieces(text, data)), mask.close()])
    assert shown == masking.in_bytes(text, keeps_length=True)
    assert len(shown) == len(text)


EVENTS = (GOOD, event(ERROR), event(FAILED, "error"), b": ping\n\n", b"\n", b"data: x\r\n\r\n")


@given(st.lists(st.sampled_from(EVENTS)), st.data())
def test_events_are_masked_in_whatever_pieces_they_come(parts: list[bytes], data: st.DataObject):
    masking = Masking([FIXED]).in_errors()
    mask = ErrorEventMask(masking)
    shown = b"".join([*map(mask.feed, in_pieces(b"".join(parts), data)), mask.close()])
    masked = [part if b"error" not in part else masking.in_bytes(part) for part in parts]
    assert shown == b"".join(masked)


def test_events_are_not_held_back():
    mask = ErrorEventMask(LOOKALIKES)
    passed = b""
    for text in (
        b": ping\n",
        b'data: {"choices": [{"index": 0, "delta": {"role": "x"',
        b", ",
        b"x",
    ):
        passed += mask.feed(text)
        assert passed.endswith(text.rstrip(b"\n"))
    long = b'data: {"error": "' + b"x" * 100_000
    mask = ErrorEventMask(LOOKALIKES)
    assert len(mask.feed(long)) == len(long)


# Errors


def test_an_error_is_masked_in_all_of_its_parts():
    verbatim = Verbatim(b"application/json", SAID.encode(), ERROR, (("Retry-After", FIXED),))
    error = ChatError(401, FIXED, SAID, STRANGER, FIXED, verbatim=verbatim)
    masked = error.masked(Masking([FIXED, PROXY, ADMIN, CLIENT]).in_errors().in_bytes)
    assert_kept(repr(masked) + json.dumps(masked.payload()) + masked.reason().decode())
    assert (masked.status, masked.verbatim.payload["error"]["type"]) == (401, "x")
    plain = ChatError(400, "x", "none", verbatim=Verbatim(b"", b"none\xff"))
    assert repr(plain.masked(NO_KEYS.in_errors().in_bytes)) == repr(plain)
