"""The one error: what a client gets to see of it."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.chat.errors import (
    ChatError,
    Verbatim,
    bad_request,
    model_not_found,
    overloaded,
    unknown_url,
    upstream_failed,
    upstream_silent,
)

ANY_TEXT = st.text(st.characters(exclude_categories=[]))


def test_the_payload_has_the_four_fields_of_openai():
    error = ChatError(400, "the_type", "The message.", "the_code", "the_param")
    assert error.payload() == {
        "error": {
            "message": "The message.",
            "type": "the_type",
            "param": "the_param",
            "code": "the_code",
        }
    }


def test_fields_that_are_not_known_are_null():
    assert ChatError(400, "t", "m").payload()["error"] == {
        "message": "m",
        "type": "t",
        "param": None,
        "code": None,
    }


@given(ANY_TEXT)
def test_the_body_is_the_payload_as_json(message: str):
    content_type, body = ChatError(400, "t", message).body()
    assert content_type == b"application/json"
    assert json.loads(body)["error"]["type"] == "t"
    if message.isascii():
        assert json.loads(body)["error"]["message"] == message


@pytest.mark.parametrize(
    ("retry_after", "final", "headers"),
    [
        (None, False, {}),
        (0, False, {"Retry-After": "0"}),
        (0.2, False, {"Retry-After": "1"}),
        (36.0, False, {"Retry-After": "36"}),
        (36.1, True, {"Retry-After": "37", "x-should-retry": "false"}),
        (None, True, {"x-should-retry": "false"}),
    ],
)
def test_headers_say_whether_and_when_to_try_again(
    retry_after: float | None, final: bool, headers: dict[str, str]
):
    assert ChatError(429, "t", "m", retry_after=retry_after, final=final).headers() == headers


@given(ANY_TEXT)
def test_the_reason_phrase_is_one_short_line_of_printable_ascii(message: str):
    assert re.fullmatch(rb"[ -~]{1,200}", ChatError(400, "t", message).reason())


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("The message.", b"The message."),
        ("  two\r\nlines\t ", b"two lines"),
        ("X: y\r\nSet-Cookie: z", b"X: y Set-Cookie: z"),
        ("Viele Grüße 😀\0", b"Viele Gr??e ??"),
        ("模型不存在", b"Error 418"),
        ("model 模型不存在", b"Error 418"),
        ("\ud800", b"Error 418"),
        ("x" * 1000, b"x" * 200),
        ("", b"Error 418"),
        (" \n\u2028 ", b"Error 418"),
    ],
)
def test_the_reason_phrase_is_the_message_made_fit(message: str, reason: bytes):
    assert ChatError(418, "t", message).reason() == reason


def test_a_reason_phrase_without_a_message_has_the_code():
    assert ChatError(503, "t", "上游错误", "overloaded").reason() == b"Error 503 overloaded"


def test_it_can_be_raised_and_caught():
    with pytest.raises(ChatError) as caught:
        raise bad_request("no") from ValueError("why")
    assert isinstance(caught.value.__cause__, ValueError)
    assert str(caught.value) == "400 invalid_request_error: no"


def test_errors_that_look_alike_are_not_the_same():
    assert bad_request("no") != bad_request("no")
    assert len({bad_request("no"), bad_request("no")}) == 2


def test_an_upstreams_error_is_sent_unchanged():
    theirs = {"error": {"message": "theirs"}}
    error = ChatError(
        429,
        "t",
        "m",
        retry_after=1,
        verbatim=Verbatim(b"text/plain", b"theirs!", theirs, (("Retry-After", "7"),)),
    )
    assert error.body() == (b"text/plain", b"theirs!")
    assert error.payload() == theirs
    assert error.headers() == {"Retry-After": "7"}
    assert error.reason() == b"m"


@pytest.mark.parametrize(
    ("error", "status", "type", "code", "param", "message"),
    [
        (bad_request("m", "p", "c"), 400, "invalid_request_error", "c", "p", "m"),
        (
            model_not_found("gpt"),
            404,
            "invalid_request_error",
            "model_not_found",
            "model",
            "The model 'gpt' does not exist.",
        ),
        (
            model_not_found("b", ["a", "b", "c"]),
            404,
            "invalid_request_error",
            "model_not_found",
            "model",
            "The model 'b' does not exist. Available models: a, c.",
        ),
        (
            model_not_found("x", [f"m{number}" for number in range(23)]),
            404,
            "invalid_request_error",
            "model_not_found",
            "model",
            "The model 'x' does not exist. Available models: "
            + ", ".join(f"m{number}" for number in range(20))
            + " and 3 more.",
        ),
        (
            unknown_url("GET", "/x"),
            404,
            "invalid_request_error",
            "unknown_url",
            None,
            "Unknown URL: GET /x.",
        ),
        (
            unknown_url("GET", "/x", "Ask at /y."),
            404,
            "invalid_request_error",
            "unknown_url",
            None,
            "Unknown URL: GET /x. Ask at /y.",
        ),
        (upstream_failed("m"), 502, "server_error", "upstream_error", None, "m"),
        (
            upstream_silent(0.5),
            504,
            "server_error",
            "upstream_timeout",
            None,
            "The model's backend sent no data for 0.5 s; the request was cancelled.",
        ),
        (overloaded("m", 5), 503, "server_error", "overloaded", None, "m"),
    ],
)
def test_common_errors(
    error: ChatError, status: int, type: str, code: str, param: str | None, message: str
):
    assert error.status == status
    assert error.payload()["error"] == {
        "message": message,
        "type": type,
        "code": code,
        "param": param,
    }


def test_an_overloaded_proxy_says_when_to_come_back():
    assert overloaded("m", 5).headers() == {"Retry-After": "5"}
