"""What the errors of the Gemini API and of the CLI mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.gemini.translate.errors import (
    AttemptFailure,
    api_failure,
    cli_failure,
    too_long,
    transient,
)
from tests.strategies import json_values

RPC = "type.googleapis.com/google.rpc."
EXHAUSTED = "Resource has been exhausted (e.g. check quota)."
DAILY = "You exceeded your current quota, please check your plan and billing details."


def google(message: Any = "The message.", *details: Any, **fields: Any) -> bytes:
    return json.dumps({"error": {"message": message, "details": list(details)} | fields}).encode()


def quota(*ids: Any) -> dict[str, Any]:
    return {"@type": RPC + "QuotaFailure", "violations": [{"quotaId": id} for id in ids]}


def retry(delay: Any) -> dict[str, Any]:
    return {"@type": RPC + "RetryInfo", "retryDelay": delay}


def info(reason: str) -> dict[str, Any]:
    return {"@type": RPC + "ErrorInfo", "reason": reason, "domain": "googleapis.com"}


PER_DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
PER_MINUTE = "GenerateContentInputTokensPerModelPerMinute-FreeTier"


@frozen
class Meant:
    """What the client is told, and whether there is another try."""

    status: int
    type: str
    code: str | None
    retryable: bool
    delay: float | None = None
    param: str | None = None


def shown(failure: AttemptFailure) -> Meant:
    error = failure.error
    return Meant(
        error.status, error.type, error.code, failure.retryable, failure.delay, error.param
    )


def minute(delay: float | None) -> Meant:
    return Meant(429, "rate_limit_error", "rate_limit_exceeded", True, delay)


def server(status: int, retryable: bool) -> Meant:
    return Meant(status, "server_error", "upstream_error", retryable)


INVALID = Meant(400, "invalid_request_error", None, False)
DAY = Meant(429, "insufficient_quota", "insufficient_quota", False)
BAD_KEY = Meant(401, "invalid_request_error", "invalid_api_key", False)
TOO_LONG = Meant(400, "invalid_request_error", "context_length_exceeded", False, None, "messages")
NO_MODEL = Meant(404, "invalid_request_error", "model_not_found", False, None, "model")
DENIED = Meant(403, "permission_error", "permission_denied", False)


@pytest.mark.parametrize(
    ("status", "body", "meant"),
    [
        # Rate limits.
        (429, google(EXHAUSTED, status="RESOURCE_EXHAUSTED", code=429), minute(None)),
        (429, google(DAILY, quota(PER_MINUTE), retry("36s")), minute(36.0)),
        (429, google(DAILY, retry("36.504182s"), quota(PER_MINUTE)), minute(36.504182)),
        (429, google(DAILY, quota(PER_MINUTE), retry("0s")), minute(0.0)),
        (429, google(DAILY, quota(PER_DAY), retry("36s")), evolve(DAY, delay=36.0)),
        (429, google(DAILY, quota(PER_MINUTE, PER_DAY)), DAY),
        (429, google(DAILY, quota(PER_MINUTE), quota(PER_DAY)), DAY),
        (429, google("You have exhausted your daily quota on this model."), DAY),
        (429, google("The daily quota is not it.", quota(PER_MINUTE)), minute(None)),
        (429, b"[" + google(DAILY, quota(PER_DAY)) + b"]", DAY),
        (429, b"", minute(None)),
        *(
            (429, google(DAILY, retry(delay)), minute(None))
            for delay in ("", "soon", "-5s", "5", "5m", "1e9s", "9" * 400 + "s", 36, None, ["36s"])
        ),
        # The request is at fault.
        (400, google("Invalid value at 'contents'", status="INVALID_ARGUMENT"), INVALID),
        (400, google("Request payload size exceeds the limit: 20971520 bytes."), INVALID),
        (
            400,
            google("The input token count (1200001) exceeds the maximum number of tokens allowed"),
            TOO_LONG,
        ),
        (400, google("The input token count exceeds the maximum"), TOO_LONG),
        (400, google("API key not valid.", info("API_KEY_INVALID")), BAD_KEY),
        (400, google("User location is not supported.", info("OTHER")), INVALID),
        (401, google("Request had invalid authentication credentials."), BAD_KEY),
        (403, google("The caller does not have permission", info("SERVICE_DISABLED")), DENIED),
        (404, google("models/gemini-9 is not found for API version v1beta"), NO_MODEL),
        (413, b"<html>", Meant(413, "invalid_request_error", None, False)),
        # The API is at fault.
        (408, b"", server(502, True)),
        (499, google("The operation was cancelled.", status="CANCELLED"), server(502, True)),
        (500, google("An internal error has occurred."), server(500, True)),
        (502, b"<html>Bad Gateway</html>", server(502, True)),
        (503, google("The model is overloaded. Please try again later."), server(503, True)),
        (504, google("Deadline expired before operation could complete."), server(504, False)),
        (501, b"", server(502, False)),
        (529, b"", server(502, False)),
        (302, b"", server(502, False)),
        (204, b"", server(502, False)),
    ],
)
def test_an_error_of_the_api(status: int, body: bytes, meant: Meant):
    assert shown(api_failure(status, body)) == meant


def test_the_message_of_the_api_is_passed_on():
    assert api_failure(503, google("Overloaded.")).error.message == "Overloaded."
    assert api_failure(503, b"[" + google("Overloaded.") + b"]").error.message == "Overloaded."


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"\xff", b"null", b"[]", b"[1]", b"{}", b'"x"', b'{"error":"x"}'),
        *(b'{"error":{}}', b'{"error":[]}', google(None), google(""), b"[" * 100_000),
    ],
    ids=lambda body: repr(body[:24]),
)
def test_without_a_message_the_error_has_the_status(body: bytes):
    assert api_failure(503, body).error.message == "The Gemini API responded with status 503."


def test_a_long_message_is_cut():
    assert len(api_failure(400, google("x" * 100_000)).error.message) == 2000
    assert len(cli_failure("x" * 100_000).error.message) < 2100


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (429, google(DAILY, quota(PER_DAY)), {"x-should-retry": "false"}),
        (429, google(DAILY, retry("36.5s")), {"Retry-After": "37"}),
        (429, google(EXHAUSTED), {"Retry-After": "10"}),
        (503, google(), {"Retry-After": "10"}),
        (500, google(), {}),
        (400, google(), {"x-should-retry": "false"}),
        (401, google(), {"x-should-retry": "false"}),
        (403, google(), {"x-should-retry": "false"}),
    ],
)
def test_errors_say_whether_sdks_should_retry(status: int, body: bytes, headers: dict[str, str]):
    assert api_failure(status, body).error.headers() == headers


def test_an_error_of_the_cli_itself_is_worth_another_try():
    failure = cli_failure("Internal error")
    assert shown(failure) == server(502, True)
    assert failure.error.message == "The Gemini CLI failed: Internal error"


def test_a_failure_without_an_api_error_is_retryable():
    assert shown(transient("Lost.")) == server(502, True)


def test_a_conversation_that_is_too_long():
    assert shown(AttemptFailure(too_long("Too long."), False)) == TOO_LONG


def check(failure: AttemptFailure) -> None:
    error = failure.error
    assert 400 <= error.status < 600
    assert error.message
    assert error.reason()
    error.headers()
    error.body()
    if failure.delay is not None:
        assert failure.delay >= 0


@given(st.integers(100, 999), st.binary())
def test_any_body_is_a_failure(status: int, body: bytes):
    check(api_failure(status, body))


@given(
    st.sampled_from([400, 401, 403, 404, 429, 499, 500, 503]),
    st.fixed_dictionaries(
        {},
        optional={
            "message": json_values(),
            "code": json_values(),
            "details": json_values("retryDelay", "violations", "quotaId", "reason")
            | st.lists(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "retryDelay": json_values() | st.from_regex(r"[0-9]+(\.[0-9]+)?s"),
                        "violations": json_values("quotaId"),
                        "reason": json_values(),
                    },
                ),
                max_size=3,
            ),
        },
    ),
)
def test_any_error_object_is_a_failure(status: int, error: Any):
    check(api_failure(status, json.dumps({"error": error}).encode()))


@given(st.text())
def test_any_error_of_the_cli_is_a_failure(message: str):
    check(cli_failure(message))
