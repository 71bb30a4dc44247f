"""Errors as Google's API has them: cloud.google.com/apis/design/errors."""

from __future__ import annotations

from typing import Any

from gemproxy.chat.errors import ChatError
from gemproxy.chat.form import ErrorResponse
from gemproxy.chat.jsontext import dumps

Json = dict[str, Any]

# github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
_WORDS = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_FIRST_OF_SERVERS = 500
_TYPE = "type.googleapis.com/google.rpc."


def error_object(error: ChatError) -> Json:
    """The document, which is the data of an event as well. Google's own errors are as they came."""
    if error.google is not None:
        return {"error": error.google}
    other = "INTERNAL" if error.status >= _FIRST_OF_SERVERS else "INVALID_ARGUMENT"
    told: Json = {
        "code": error.status,
        "message": error.message,
        "status": _WORDS.get(error.status, other),
    }
    if details := _details(error):
        told["details"] = details
    return {"error": told}


def error_response(error: ChatError) -> ErrorResponse:
    body = dumps(error_object(error))
    return ErrorResponse(error.status, b"application/json; charset=UTF-8", body)


def _duration(seconds: float) -> str:
    """protobuf.dev/programming-guides/json: it has no exponent."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"


def _details(error: ChatError) -> list[Json]:
    """github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto"""
    details: list[Json] = []
    if error.code is not None:
        info = {"reason": error.code.upper(), "domain": "gemproxy"}
        details.append({"@type": f"{_TYPE}ErrorInfo"} | info)
    if error.param is not None:
        violation = {"field": error.param, "description": error.message}
        details.append({"@type": f"{_TYPE}BadRequest", "fieldViolations": [violation]})
    if error.retry_after is not None:
        details.append({"@type": f"{_TYPE}RetryInfo", "retryDelay": _duration(error.retry_after)})
    return details
