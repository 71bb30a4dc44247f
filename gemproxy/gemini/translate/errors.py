"""Converts errors of the Gemini API to errors for the client and decides whether to retry."""

from __future__ import annotations

import re
from typing import Any

from attrs import frozen

from gemproxy.chat.errors import (
    INVALID_REQUEST,
    SERVER_ERROR,
    ChatError,
    bad_request,
    upstream_failed,
)
from gemproxy.chat.jsontext import loads

_MESSAGE_LENGTH = 2000
_TOO_LONG = re.compile(r"token count.{0,80}exceeds|exceeds the maximum number of tokens", re.I)
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]+)?)s")

# Statuses worth a retry: the request itself is not at fault.
_TRANSIENT = frozenset({408, 429, 499, 500, 502, 503})


@frozen
class AttemptFailure:
    """
    A failed attempt.

    @ivar error: the error for the client if there is no retry.
    @ivar retryable: whether a retry may succeed.
    @ivar delay: the retry delay requested by the API, in seconds; None if it requested none.
    """

    error: ChatError
    retryable: bool
    delay: float | None = None


def api_failure(status: int, body: bytes) -> AttemptFailure:
    """Convert an error response of the API."""
    return _failure(status, _error_object(body))


def midway_failure(document: bytes) -> AttemptFailure:
    """Convert an error object received in the middle of a response."""
    error = _error_object(document)
    code = error.get("code")
    return _failure(code if isinstance(code, int) and 400 <= code < 600 else 502, error)


def _failure(status: int, error: dict[str, Any]) -> AttemptFailure:
    message = str(error.get("message") or f"The Gemini API responded with status {status}.")[
        :_MESSAGE_LENGTH
    ]
    details = _details(error)
    delay = _retry_delay(details)
    if status == 429:
        if _is_daily(details, message):
            return AttemptFailure(
                ChatError(429, "insufficient_quota", message, "insufficient_quota", final=True),
                retryable=False,
                delay=delay,
            )
        return AttemptFailure(
            ChatError(
                429, "rate_limit_error", message, "rate_limit_exceeded", retry_after=delay or 10
            ),
            retryable=True,
            delay=delay,
        )
    return AttemptFailure(_status_error(status, message, details), status in _TRANSIENT, delay)


def cli_failure(message: str) -> AttemptFailure:
    """Convert an error reported by the CLI, if the API reported none."""
    return AttemptFailure(
        upstream_failed(f"The Gemini CLI failed: {message[:_MESSAGE_LENGTH]}"), retryable=True
    )


def transient(message: str) -> AttemptFailure:
    """
    A retryable failure not reported by the API: a lost connection, a dead worker, an empty
    response.
    """
    return AttemptFailure(upstream_failed(message), retryable=True)


def too_long(message: str) -> ChatError:
    return bad_request(message, "messages", "context_length_exceeded")


def _status_error(status: int, message: str, details: list[dict[str, Any]]) -> ChatError:
    if any(detail.get("reason") == "API_KEY_INVALID" for detail in details) or status == 401:
        return ChatError(401, INVALID_REQUEST, message, "invalid_api_key", final=True)
    if status == 400 and _TOO_LONG.search(message):
        return too_long(message)
    if status == 403:
        return ChatError(403, "permission_error", message, "permission_denied", final=True)
    if status == 404:
        return ChatError(404, INVALID_REQUEST, message, "model_not_found", param="model")
    if 400 <= status < 500 and status not in _TRANSIENT:
        return ChatError(status, INVALID_REQUEST, message, final=True)
    return ChatError(
        status if status in (500, 502, 503, 504) else 502,
        SERVER_ERROR,
        message,
        "upstream_error",
        retry_after=10 if status == 503 else None,
    )


def _error_object(body: bytes) -> dict[str, Any]:
    try:
        parsed = loads(body)
    except ValueError:
        return {}
    if isinstance(parsed, list) and parsed:
        parsed = parsed[0]
    error = parsed.get("error") if isinstance(parsed, dict) else None
    return error if isinstance(error, dict) else {}


def _details(error: dict[str, Any]) -> list[dict[str, Any]]:
    details = error.get("details")
    return [d for d in details if isinstance(d, dict)] if isinstance(details, list) else []


def _retry_delay(details: list[dict[str, Any]]) -> float | None:
    for detail in details:
        match = _DURATION.fullmatch(str(detail.get("retryDelay", "")))
        if match:
            return float(match[1])
    return None


def _is_daily(details: list[dict[str, Any]], message: str) -> bool:
    violations = [
        violation
        for detail in details
        for violation in (
            detail["violations"] if isinstance(detail.get("violations"), list) else ()
        )
        if isinstance(violation, dict)
    ]
    if violations:
        return any("PerDay" in str(violation.get("quotaId", "")) for violation in violations)
    return "daily quota" in message
