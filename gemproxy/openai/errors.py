"""Errors as upstreams spell them: what they say, and the status that they tell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from attrs import frozen

from gemproxy.chat.errors import (
    INVALID_REQUEST,
    SERVER_ERROR,
    ChatError,
    Verbatim,
    upstream_failed,
)
from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.request import BOM
from gemproxy.chat.sse import SSEDecoder

_MESSAGE_LENGTH = 1000
_JSON = b"application/json"

# Where the words of an error are found, the most telling first.
_MESSAGE_KEYS = (
    "message",
    "msg",
    "status_msg",
    "error_msg",
    "errorMessage",
    "error_message",
    "error_description",
    "detail",
)
_STATUS_KEYS = ("status_code", "statusCode", "http_status", "status", "code", "error_code")
_NAME_KEYS = ("code", "status", "error_code", "type")
# What stands beside a message in an error without an object of its own.
_SUCCESS = (None, True, 0, 200, "", "0", "200", "ok", "success", "succeeded")
_FAILURE = ("error", "failed", "failure", "fail")

# By their letters alone, without "error" or "exception" at the end: OpenAI's codes and types,
# Anthropic's types, Google's statuses, the classes of vLLM and LiteLLM, the codes of DashScope and
# New-API.
_STATUS_OF_NAME = {
    400: "badrequest contentfilter contentpolicyviolation contextlength contextlengthexceeded "
    "contextwindowexceeded datainspectionfailed failedprecondition invalidargument "
    "invalidparameter invalidprompt invalidrequest invalidvalue missingrequiredparameter "
    "outofrange promptblocked sensitivewordsdetected stringabovemaxlength unknownparameter "
    "unprocessableentity unsupportedparameter unsupportedvalue validation",
    401: "authentication incorrectapikey invalidapikey invalidauthentication invalidtoken "
    "missingapikey unauthenticated unauthorized",
    402: "billing billinghardlimitreached paymentrequired",
    403: "accessdenied accountdeactivated forbidden insufficientuserquota permission "
    "permissiondenied preconsumetokenquotafailed unsupportedcountryregionterritory",
    404: "modelnotexist modelnotfound notfound unknownurl",
    408: "requesttimeout",
    409: "aborted conflict",
    413: "requesttoolarge",
    429: "arrearage exceededcurrentquota insufficientbalance insufficientquota quotaexceeded "
    "ratelimit ratelimited ratelimitexceeded requests requestsratelimitexceeded resourceexhausted "
    "throttling throttlingallocationquota throttlingratequota tokens tokensratelimitexceeded "
    "toomanyrequests",
    500: "api dorequestfailed internal internalserver server",
    502: "badgateway badresponse badresponsestatuscode",
    503: "apiconnection engineoverloaded modelnotready modeloverloaded nochannelavailable "
    "overloaded serviceunavailable unavailable",
    504: "deadlineexceeded gatewaytimeout timeout",
}
_BY_NAME = {name: status for status, names in _STATUS_OF_NAME.items() for name in names.split()}
# The same request fails again until somebody pays.
_QUOTA = frozenset(
    {
        "arrearage",
        "billing",
        "billinghardlimitreached",
        "exceededcurrentquota",
        "insufficientbalance",
        "insufficientquota",
        "insufficientuserquota",
        "paymentrequired",
        "quotaexceeded",
    }
)
# FastChat's and LMDeploy's numbers (fastchat/constants.py), where they do not begin with the
# status, and those of GLM (docs.bigmodel.cn, error codes).
_BY_NUMBER = {
    40302: 400,
    40303: 400,
    **dict.fromkeys(range(1000, 1005), 401),
    1113: 429,
    **dict.fromkeys((1210, 1212, 1213, 1214, 1215, 1261, 1300, 1301), 400),
    1211: 404,
    **dict.fromkeys((1220, 1221, 1222), 403),
    **dict.fromkeys((1230, 1234), 500),
    **dict.fromkeys((1302, 1303, 1304, 1305, 1308), 429),
}
# The numbers of MiniMax's base_resp (platform.minimax.io, error codes).
_BASE_RESP = {
    1000: 500,
    1001: 504,
    1002: 429,
    1004: 401,
    1008: 429,
    1013: 500,
    1024: 500,
    1026: 400,
    1027: 400,
    1033: 500,
    1039: 429,
    1041: 429,
    1042: 400,
    2013: 400,
    2049: 401,
    2056: 429,
}
_OUT_OF_BALANCE = (1113, 1008)

# OpenAI's words for a status of which the upstream says nothing more.
_WORDS: dict[int, tuple[str, str | None]] = {
    401: (INVALID_REQUEST, "invalid_api_key"),
    402: ("insufficient_quota", "insufficient_quota"),
    403: ("permission_error", "permission_denied"),
    404: (INVALID_REQUEST, "not_found"),
    413: (INVALID_REQUEST, "request_too_large"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}
# Where an address is wrong, whoever answers has such a status and a page for people.
_WRONG_ADDRESS = (404, 405)


@frozen
class _Said:
    """
    What an error says of itself.

    @ivar status: the status that it tells; None if it tells none.
    @ivar is_final: whether the same request would fail again.
    """

    message: str | None
    type: str | None
    code: str | None
    param: str | None
    status: int | None
    is_final: bool


_HINTS = frozenset({"error", "success", "base_resp", "type"})


def is_plain_chunk(payload: Any) -> bool:
    """Whether JSON is so surely a chunk that L{is_error} need not be asked."""
    return (
        type(payload) is dict
        and bool(payload.get("choices"))
        and _HINTS.isdisjoint(payload)
        and payload.get("object") != "error"
    )


def is_error(payload: Any) -> bool:
    """
    Whether JSON is an error in one of the spellings that upstreams use in a response with status
    200. Chunks and completions may have fields of such names, with values that mean success.
    """
    payload = _unwrapped(payload)
    if not isinstance(payload, dict):
        return False
    if payload.get("error") or payload.get("object") == "error" or payload.get("type") == "error":
        return True
    if payload.get("success") is False or _failed_base_resp(payload) is not None:
        return True
    if payload.get("choices") is not None or payload.get("usage"):
        return False
    if payload.get("errors") or payload.get("detail"):
        return True
    return _message_in(payload) is not None and any(
        _is_failure(key, payload[key]) for key in _STATUS_KEYS if key in payload
    )


def error_of(payload: Any, data: bytes) -> ChatError:
    """
    The error that a response with status 200 reports.

    @param payload: C{data} parsed as JSON; None if it is not JSON.
    """
    payload = _unwrapped(payload)
    if not isinstance(payload, dict):
        text = payload if isinstance(payload, str) else data.decode("utf-8", "replace")
        payload = {"message": text[:_MESSAGE_LENGTH]}
    said = _said_by(payload)
    return _error(said.status or 502, said, _as_itself(payload))


def refusal(
    status: int, content_type: bytes, body: bytes, passed: tuple[tuple[str, str], ...], setting: str
) -> ChatError:
    """
    The error for a response with the status of an error. Its body is kept, and called JSON if it
    is.

    @param passed: the headers that the client gets.
    @param setting: what the base URL is set by.
    """
    text = body.removeprefix(BOM)
    payload = _json_of(text)
    if payload is None and (data := _first_event(text)) is not None:
        # DashScope answers so whoever wants a stream.
        payload = _json_of(data)
        return _error(status, _said_by(payload), _as_itself(payload), passed)
    if status in _WRONG_ADDRESS and is_page(text):
        said = _said_by({"message": f"Status {status}: {wrong_address(setting)}"})
        return _error(status, said, None, passed)
    said = _said_by(_unwrapped(payload))
    if isinstance(payload, (dict, list)) and b"json" not in content_type.lower():
        content_type = _JSON
    itself = _as_itself(payload)
    shown = None if itself is None else itself.payload
    return _error(status, said, Verbatim(content_type, text, shown), passed)


def is_page(text: bytes) -> bool:
    """Whether a body is HTML, or XML."""
    return text.lstrip().startswith(b"<")


def wrong_address(setting: str) -> str:
    """@param setting: what the base URL is set by."""
    return (
        f"The upstream sent a web page instead of an answer; its base URL ({setting}) looks wrong."
    )


def page_instead_of_answer(setting: str) -> ChatError:
    error = upstream_failed(wrong_address(setting))
    return ChatError(error.status, error.type, error.message, error.code, final=True)


def words_of_status(status: int) -> tuple[str, str | None]:
    """OpenAI's type and code for the status of an error."""
    if status in _WORDS:
        return _WORDS[status]
    return (INVALID_REQUEST, None) if status < 500 else (SERVER_ERROR, "upstream_error")


def _error(
    status: int,
    said: _Said,
    verbatim: Verbatim | None,
    passed: tuple[tuple[str, str], ...] = (),
) -> ChatError:
    type_of_status, code_of_status = words_of_status(status)
    if verbatim is None:
        verbatim = Verbatim(_JSON, b"", None, passed)
    elif passed:
        verbatim = Verbatim(verbatim.content_type, verbatim.body, verbatim.payload, passed)
    said_nothing = said.type is None and said.code is None
    return ChatError(
        status,
        said.type or type_of_status,
        said.message or f"The upstream responded with status {status}.",
        said.code or (code_of_status if said_nothing else None),
        said.param,
        final=said.is_final,
        verbatim=verbatim,
    )


def _as_itself(payload: Any) -> Verbatim | None:
    """An error in OpenAI's spelling, with the fields that nobody else knows."""
    if isinstance(payload, dict) and isinstance(payload.get("error"), dict):
        return Verbatim(_JSON, dumps(payload), payload)
    return None


def _unwrapped(payload: Any) -> Any:
    # Google puts its errors into an array.
    return payload[0] if isinstance(payload, list) and payload else payload


def _json_of(text: bytes) -> Any:
    try:
        return loads(text)
    except ValueError:
        return None


def _first_event(text: bytes) -> bytes | None:
    """The first event with an object in it; None if there is none."""
    decoder = SSEDecoder()
    try:
        events = [*decoder.feed(text), *decoder.close()]
    except ValueError:
        return None
    return next((e.data for e in events if isinstance(_json_of(e.data), dict)), None)


def _objects_in(payload: Any) -> Iterator[dict[str, Any]]:
    """The objects that may hold the fields of an error, the innermost first."""
    if not isinstance(payload, dict):
        return
    error = payload.get("error")
    if isinstance(error, str):
        error = {"message": error}
    errors = payload.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else errors
    for inner in (error, first, payload.get("base_resp")):
        if isinstance(inner, dict):
            yield inner
    yield payload


def _said_by(payload: Any) -> _Said:
    objects = [*_objects_in(payload)]
    message = next(filter(None, map(_message_in, objects)), None)
    names = [fields[key] for fields in objects for key in _NAME_KEYS if key in fields]
    plain = [_plain(name) for name in names if isinstance(name, str)]
    numbers = [number for fields in objects for number in _numbers_in(fields)]
    status = _status_of(payload, numbers, plain)
    code = next((f["code"] for f in objects if f.get("code") not in (None, "", 0)), None)
    kind = next((f["type"] for f in objects if isinstance(f.get("type"), str)), None)
    param = next((f["param"] for f in objects if isinstance(f.get("param"), str)), None)
    return _Said(
        message,
        None if kind in ("error", "") else kind,
        None if code is None else str(code)[:_MESSAGE_LENGTH],
        param,
        status,
        not _QUOTA.isdisjoint(plain) or any(number in _OUT_OF_BALANCE for number in numbers),
    )


def _status_of(payload: Any, numbers: list[int], names: list[str]) -> int | None:
    if isinstance(payload, dict) and (failed := _failed_base_resp(payload)) is not None:
        return _BASE_RESP.get(failed)
    for number in numbers:
        if 400 <= number < 600:
            return number
    for number in numbers:
        if number in _BY_NUMBER:
            return _BY_NUMBER[number]
        # Such as 42901, FastChat's rate limit.
        if 400 <= number // 100 < 600:
            return number // 100
    return next((_BY_NAME[name] for name in names if name in _BY_NAME), None)


def _failed_base_resp(payload: dict[str, Any]) -> int | None:
    base = payload.get("base_resp")
    number = base.get("status_code") if isinstance(base, dict) else None
    return number if isinstance(number, int) and number else None


def _numbers_in(fields: dict[str, Any]) -> Iterator[int]:
    for key in _STATUS_KEYS:
        value = fields.get(key)
        if isinstance(value, str) and re.fullmatch(r"[0-9]{3,6}", value):
            yield int(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield value


def _message_in(fields: dict[str, Any]) -> str | None:
    for key in _MESSAGE_KEYS:
        value = fields.get(key)
        if isinstance(value, list):
            # FastAPI: what is wrong with each field.
            said = [_message_in(item) for item in value if isinstance(item, dict)]
            value = "; ".join(filter(None, said))
        elif isinstance(value, dict):
            value = _message_in(value)
        if isinstance(value, str) and value.strip():
            return value
    return None


def _is_failure(key: str, value: Any) -> bool:
    if isinstance(value, str):
        value = value.lower()
        if key == "status" and not value.isdigit():
            # A word for how far something is, such as "queued".
            return value in _FAILURE or _plain(value) in _BY_NAME
    return isinstance(value, (str, int)) and value not in _SUCCESS


def _plain(name: str) -> str:
    """A name without what differs between the ways of writing it."""
    letters = re.sub(r"[^a-z]", "", name[:100].lower().removeprefix("litellm."))
    return re.sub(r"(?:error|exception)$", "", letters) or letters
