"""Errors as Anthropic has them: docs.claude.com/en/api/errors."""

from __future__ import annotations

from typing import Any

from gemproxy.chat.errors import ChatError
from gemproxy.chat.form import ErrorResponse
from gemproxy.chat.jsontext import dumps

UNSUPPORTED_THREAD = "thread_unsupported_request"
"""The code by which Anthropic's SDKs know that they have to send all messages, and do."""

# Other servers say 503 where Anthropic says 529.
_STATUSES = {503: 529}
_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_FIRST_OF_SERVERS = 500


def error_object(error: ChatError) -> dict[str, Any]:
    """The document, which is the data of an event as well."""
    status = _status_of(error)
    other = "api_error" if status >= _FIRST_OF_SERVERS else "invalid_request_error"
    kind = _TYPES.get(status, other)
    message = error.message
    if error.code == "context_length_exceeded":
        # By these words Claude Code knows that it has to make the conversation shorter.
        message = f"prompt is too long: {message}"
    described: dict[str, Any] = {"type": kind, "message": message}
    if error.code == UNSUPPORTED_THREAD:
        described["details"] = {"error_code": error.code}
    return {"type": "error", "error": described}


def error_response(error: ChatError) -> ErrorResponse:
    body = dumps(error_object(error))
    return ErrorResponse(_status_of(error), b"application/json", body, b"error")


def _status_of(error: ChatError) -> int:
    return _STATUSES.get(error.status, error.status)
