"""Google's error answers: google.rpc.Status as JSON, with the details that Gemini gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from attrs import field, frozen

JSON_TYPE = "application/json; charset=UTF-8"
_RPC = "type.googleapis.com/google.rpc."
_SERVICE = "generativelanguage.googleapis.com"
_STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


@frozen
class Refusal:
    """An HTTP response that is an error."""

    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(factory=dict)


def error(
    status: int,
    message: str = "The stand-in was told to fail.",
    *,
    name: str | None = None,
    details: Sequence[Mapping[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
) -> Refusal:
    """
    @param name: the canonical name of the error; from the status when not given.
    @param details: google.rpc objects with their C{@type}.
    """
    fault: dict[str, Any] = {
        "code": status,
        "message": message,
        "status": name or _STATUS_NAMES.get(status, "UNKNOWN"),
    }
    if details:
        fault["details"] = [dict(detail) for detail in details]
    return Refusal(status, orjson.dumps({"error": fault}), headers=headers or {})


def wrong_token() -> Refusal:
    """docs.cloud.google.com/docs/authentication/troubleshoot-oauth"""
    message = (
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login "
        "cookie or other valid authentication credential."
    )
    return error(401, message, details=[error_info("ACCESS_TOKEN_TYPE_UNSUPPORTED")])


def quota_failure(quota_id: str, limit: int, model: str = "gemini-2.5-flash") -> dict[str, Any]:
    violation = {
        "quotaMetric": f"{_SERVICE}/generate_content_free_tier_requests",
        "quotaId": quota_id,
        "quotaDimensions": {"location": "global", "model": model},
        "quotaValue": str(limit),
    }
    return {"@type": f"{_RPC}QuotaFailure", "violations": [violation]}


def retry_info(seconds: float) -> dict[str, Any]:
    return {"@type": f"{_RPC}RetryInfo", "retryDelay": f"{seconds:g}s"}


def error_info(reason: str, **metadata: str) -> dict[str, Any]:
    return {
        "@type": f"{_RPC}ErrorInfo",
        "reason": reason,
        "domain": "googleapis.com",
        "metadata": {"service": _SERVICE, **metadata},
    }


def _over_quota(quota_id: str, limit: int, retry_delay: float | None) -> Refusal:
    message = (
        "You exceeded your current quota, please check your plan and billing details."
        f"\n* Quota exceeded for metric: {_SERVICE}/generate_content_free_tier_requests,"
        f" limit: {limit}"
    )
    details = [quota_failure(quota_id, limit)]
    if retry_delay is not None:
        message += f"\nPlease retry in {retry_delay:g}s."
        details.append(retry_info(retry_delay))
    return error(429, message, details=details)


def minute_quota(retry_delay: float | None = 36.0) -> Refusal:
    """Too many requests in this minute; worth another try after C{retry_delay} seconds."""
    return _over_quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", 10, retry_delay)


def day_quota(retry_delay: float | None = None) -> Refusal:
    """The requests of the day are used up. Google may name a delay all the same."""
    return _over_quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", 250, retry_delay)


def exhausted() -> Refusal:
    """A 429 that says nothing about which quota or for how long."""
    return error(429, "Resource has been exhausted (e.g. check quota).")


def wrong_key() -> Refusal:
    return error(
        400,
        "API key not valid. Please pass a valid API key.",
        details=[error_info("API_KEY_INVALID")],
    )


def no_key() -> Refusal:
    return error(
        403,
        "Method doesn't allow unregistered callers (callers without established identity). Please"
        " use API Key or other form of API consumer identity to call this API.",
    )


def unknown_model(model: str, version: str, method: str) -> Refusal:
    return error(
        404,
        f"models/{model} is not found for API version {version}, or is not supported for {method}."
        " Call ListModels to see the list of available models and their supported methods.",
    )
