"""Converts errors of the Gemini API to errors for the client and decides whether to retry."""

from __future__ import annotations

import re
from typing import Any

from attrs import evolve, frozen

from gemproxy.chat.errors import (
    INVALID_REQUEST,
    SERVER_ERROR,
    ChatError,
    bad_request,
    upstream_failed,
)
from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.shapes import as_object, objects_in
from gemproxy.gemini.translate.faults import fault_of

_MESSAGE_LENGTH = 2000
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]+)?)s")
# Google's messages may quote the key: "Consumer 'api_key:AIza...' has been suspended."
_KEY = re.compile(r"(?<=api_key:)[^'\"\s]+|\bAIza[\w-]{10,}|\bAQ\.[\w.-]{10,}")

# The code of errors that are about a key in GEMINI_API_KEY, not about the client's own.
KEY_REFUSED = "gemini_key_refused"

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


def too_long(message: str) -> ChatError:
    return bad_request(message, "messages", "context_length_exceeded")


@frozen
class _Kind:
    """
    A kind of error of the API, and what a client is told about it.

    @ivar statuses: the statuses of the API that such an error has.
    @ivar reasons: the reasons of its C{google.rpc.ErrorInfo}, any of which is enough.
    @ivar words: what is said in its message, which is enough as well. If there are neither words
        nor reasons, all errors of these statuses are of this kind.
    @ivar error: the error for the client; its message quotes the API's as C{said} in braces.
    """

    statuses: frozenset[int]
    error: ChatError
    reasons: frozenset[str] = frozenset()
    words: re.Pattern[str] | None = None

    def fits(self, status: int, reasons: set[str], message: str) -> bool:
        if status not in self.statuses:
            return False
        if self.words is None and not self.reasons:
            return True
        said = self.words is not None and self.words.search(message) is not None
        return said or not self.reasons.isdisjoint(reasons)

    def error_for(self, message: str) -> ChatError:
        template = self.error.message
        if not template.endswith("{said}") and not message.endswith((".", "!", "?")):
            message += "."
        return evolve(self.error, message=template.replace("{said}", message))


_KEY_REFUSED = ChatError(
    502,
    SERVER_ERROR,
    "Google refused gemproxy's own key (GEMINI_API_KEY): {said} "
    "Make a new key at https://aistudio.google.com/apikey. Since 2026-06-19 Google refuses "
    "standard keys, which begin with 'AIza'; new keys begin with 'AQ.'.",
    KEY_REFUSED,
    final=True,
)

# The first kind that fits counts. Reasons: https://github.com/googleapis/googleapis/blob/master/
# google/api/error_reason.proto.
_KINDS = (
    _Kind(frozenset({401}), _KEY_REFUSED),
    _Kind(
        frozenset({400, 403}),
        _KEY_REFUSED,
        reasons=frozenset(
            {
                "ACCOUNT_STATE_INVALID",
                "API_KEY_ANDROID_APP_BLOCKED",
                "API_KEY_HTTP_REFERRER_BLOCKED",
                "API_KEY_INVALID",
                "API_KEY_IOS_APP_BLOCKED",
                "API_KEY_IP_ADDRESS_BLOCKED",
                "API_KEY_SERVICE_BLOCKED",
                "BILLING_DISABLED",
                "CONSUMER_INVALID",
                "CONSUMER_SUSPENDED",
                "CREDENTIALS_MISSING",
                "GCP_SUSPENDED",
                "SERVICE_DISABLED",
                "USER_PROJECT_DENIED",
            }
        ),
        words=re.compile(
            r"^(?:your |the (?:provided )?)?API[ _]keys? "
            r"(?:not valid|not found|expired|was|is|has|are)\b"
            r"|^requests (?:to|from) .{0,300} are blocked"
            r"|reported as leaked|unregistered callers|^permission denied: consumer "
            r"|has not been used in project|project has been denied|requires billing",
            re.I | re.S,
        ),
    ),
    _Kind(
        frozenset({400, 403}),
        ChatError(
            502,
            SERVER_ERROR,
            "Google does not serve the region that gemproxy's requests come from: {said} "
            "Run gemproxy, or let its connections go out, in a supported region "
            "(https://ai.google.dev/gemini-api/docs/available-regions), or enable billing, or use "
            "Vertex AI.",
            "region_not_supported",
            final=True,
        ),
        words=re.compile(
            r"location is not supported|not available in your (?:country|region)", re.I
        ),
    ),
    _Kind(
        frozenset({400}),
        too_long("{said}"),
        words=re.compile(r"token count.{0,80}exceeds|exceeds the maximum number of tokens", re.I),
    ),
    _Kind(
        frozenset({404}),
        ChatError(
            404,
            INVALID_REQUEST,
            "{said} Newer models can be used instead: see /v1/models.",
            "model_not_found",
            param="model",
        ),
        words=re.compile(r"no longer available", re.I),
    ),
    _Kind(
        frozenset({404}),
        ChatError(404, INVALID_REQUEST, "{said}", "model_not_found", param="model"),
    ),
    _Kind(
        frozenset({403}),
        ChatError(403, "permission_error", "{said}", "permission_denied", final=True),
    ),
)


def api_failure(status: int, body: bytes) -> AttemptFailure:
    """Convert an error response of the API."""
    return _failure(status, error_object(body))


def midway_failure(document: bytes) -> AttemptFailure:
    """Convert an error object received in the middle of a response."""
    error = error_object(document)
    code = error.get("code")
    return _failure(code if isinstance(code, int) and 400 <= code < 600 else 502, error)


def message_of(status: int, error: dict[str, Any]) -> str:
    """What an error object of the API says, without keys."""
    message = str(error.get("message") or f"The Gemini API responded with status {status}.")
    return _KEY.sub("[key]", message)[:_MESSAGE_LENGTH]


def _failure(status: int, error: dict[str, Any]) -> AttemptFailure:
    failure = _classified(status, error)
    # What gemproxy tells of its own key, or of the region, is not Google's error any more.
    if failure.error.status != status or error.get("code") != status:
        return failure
    google: dict[str, Any] = loads(_KEY.sub("[key]", dumps(error).decode()).encode())
    return evolve(failure, error=evolve(failure.error, google=google))


def _classified(status: int, error: dict[str, Any]) -> AttemptFailure:
    message = message_of(status, error)
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
    return AttemptFailure(
        _status_error(status, message, details, delay), status in _TRANSIENT, delay
    )


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


def _status_error(
    status: int, message: str, details: list[dict[str, Any]], delay: float | None
) -> ChatError:
    reasons = {str(detail.get("reason")) for detail in details}
    for kind in _KINDS:
        if kind.fits(status, reasons, message):
            return kind.error_for(message)
    if 400 <= status < 500 and status not in _TRANSIENT:
        named = fault_of(details, message) if status == 400 else None
        return ChatError(status, INVALID_REQUEST, message, param=named, final=True)
    return ChatError(
        status if status in (500, 502, 503, 504) else 502,
        SERVER_ERROR,
        message,
        "upstream_error",
        retry_after=delay or (10 if status == 503 else None),
    )


def error_object(body: bytes) -> dict[str, Any]:
    """The error in a response of the API; empty if there is none."""
    try:
        parsed = loads(body)
    except ValueError:
        return {}
    if isinstance(parsed, list) and parsed:
        parsed = parsed[0]
    return as_object(as_object(parsed).get("error"))


def _details(error: dict[str, Any]) -> list[dict[str, Any]]:
    return objects_in(error.get("details"))


def _retry_delay(details: list[dict[str, Any]]) -> float | None:
    for detail in details:
        match = _DURATION.fullmatch(str(detail.get("retryDelay", "")))
        if match:
            return float(match[1])
    return None


def _is_daily(details: list[dict[str, Any]], message: str) -> bool:
    violations = [
        violation for detail in details for violation in objects_in(detail.get("violations"))
    ]
    if violations:
        return any("PerDay" in str(violation.get("quotaId", "")) for violation in violations)
    return "daily quota" in message
