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
from tests.tables import each

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


def bad_request(*fields: str) -> dict[str, Any]:
    violations = [{"field": field, "description": "No."} for field in fields]
    return {"@type": RPC + "BadRequest", "fieldViolations": violations}


PER_DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
PER_MINUTE = "GenerateContentInputTokensPerModelPerMinute-FreeTier"


# https://github.com/googleapis/googleapis/blob/master/google/api/error_reason.proto
ABOUT_THE_KEY = (
    "API_KEY_HTTP_REFERRER_BLOCKED",
    "API_KEY_IP_ADDRESS_BLOCKED",
    "API_KEY_SERVICE_BLOCKED",
    "CONSUMER_SUSPENDED",
    "SERVICE_DISABLED",
)
SAID_OF_A_KEY = (
    "Your API key was reported as leaked. Please use another API key.",
    "Permission denied: Consumer 'api_key:AIzaSyA0000-_x' has been suspended.",
    "Method doesn't allow unregistered callers (callers without established identity).",
    "Requests to this API generativelanguage.googleapis.com method google.ai.GenerateContent are "
    "blocked.",
    "Requests from referer <empty> are blocked.",
    "The provided API key has an IP address restriction.",
    "Generative Language API has not been used in project 1 before or it is disabled.",
    "Your project has been denied access. Please contact support.",
)
LOCATION = "User location is not supported for the API use."
FREE_TIER = (
    "Gemini API free tier is not available in your country. Please enable billing on your project."
)


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
BAD_KEY = Meant(502, "server_error", "gemini_key_refused", False)
REGION = Meant(502, "server_error", "region_not_supported", False)
TOO_LONG = Meant(400, "invalid_request_error", "context_length_exceeded", False, None, "messages")
NO_MODEL = Meant(404, "invalid_request_error", "model_not_found", False, None, "model")
DENIED = Meant(403, "permission_error", "permission_denied", False)


@each(
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
        (
            400,
            google("Invalid value at 'contents'", status="INVALID_ARGUMENT"),
            evolve(INVALID, param="messages"),
        ),
        (400, google("Request payload size exceeds the limit: 20971520 bytes."), INVALID),
        (
            400,
            google("The input token count (1200001) exceeds the maximum number of tokens allowed"),
            TOO_LONG,
        ),
        (400, google("The input token count exceeds the maximum"), TOO_LONG),
        (400, google("API key not valid.", info("API_KEY_INVALID")), BAD_KEY),
        (400, google("A project is at fault.", info("OTHER")), INVALID),
        (
            400,
            google("'contents' is not valid.", bad_request("contents[3].parts[0].inline_data")),
            evolve(INVALID, param="messages"),
        ),
        (
            400,
            google("Invalid value at 'generation_config.top_k' (TYPE_INT32), 1e99"),
            evolve(INVALID, param="top_k"),
        ),
        (401, google("Request had invalid authentication credentials."), BAD_KEY),
        *((403, google("No.", info(reason)), BAD_KEY) for reason in ABOUT_THE_KEY),
        *((403, google(said), BAD_KEY) for said in SAID_OF_A_KEY),
        (400, google("API key expired. Please renew the API key."), BAD_KEY),
        (400, google("API Key not found. Please pass a valid API key."), BAD_KEY),
        (400, google(LOCATION, status="FAILED_PRECONDITION"), REGION),
        (400, google(FREE_TIER, status="FAILED_PRECONDITION"), REGION),
        (403, google("The caller does not have permission"), DENIED),
        (403, google("You do not have permission to access the model.", info("OTHER")), DENIED),
        (404, google("This model models/gemini-2.5-flash is no longer available."), NO_MODEL),
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
    ("status", "said", "way_out"),
    [
        (
            400,
            "API key not valid. Please pass a valid API key.",
            "https://aistudio.google.com/apikey",
        ),
        (401, "Request had invalid authentication credentials", "GEMINI_API_KEY"),
        (403, "Your API key was reported as leaked. Please use another API key.", "'AQ.'"),
        (400, LOCATION, "https://ai.google.dev/gemini-api/docs/available-regions"),
        (400, FREE_TIER, "enable billing"),
        (404, "This model models/gemini-x is no longer available to new users.", "/v1/models"),
    ],
)
def test_an_error_quotes_google_and_names_the_way_out(status: int, said: str, way_out: str):
    message = api_failure(status, google(said)).error.message
    assert said.rstrip(".") + ". " in message
    assert way_out in message
    assert "{" not in message


@pytest.mark.parametrize(
    ("status", "key"),
    [
        (403, "AIzaSyAbm-_oW12aAAxNc8FEEh-84QT7o-9r1Ak"),
        (403, "any:thing"),
        (429, "AIzaSyAbm-_oW12aAAxNc8FEEh-84QT7o-9r1Ak"),
        (500, "AQ.Ab8RN6K-_x.y"),
    ],
)
def test_a_key_in_google_s_message_is_not_told(status: int, key: str):
    said = f"Permission denied: Consumer 'api_key:{key}' has been suspended."
    message = api_failure(status, google(said)).error.message
    assert key not in message
    assert "Consumer 'api_key:[key]' has been suspended." in message


@each(
    "body",
    [
        *(b"", b"<html>", b"\xff", b"null", b"[]", b"[1]", b"{}", b'"x"', b'{"error":"x"}'),
        *(b'{"error":{}}', b'{"error":[]}', google(None), google(""), b"[" * 100_000),
    ],
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
        (503, google("Busy.", retry("70s")), {"Retry-After": "70"}),
        (500, google("Busy.", retry("70s")), {"Retry-After": "70"}),
        (400, google(LOCATION), {"x-should-retry": "false"}),
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
            "details": json_values(
                "retryDelay", "violations", "quotaId", "reason", "fieldViolations"
            )
            | st.lists(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "retryDelay": json_values() | st.from_regex(r"[0-9]+(\.[0-9]+)?s"),
                        "violations": json_values("quotaId"),
                        "reason": json_values(),
                        "fieldViolations": json_values("field"),
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
