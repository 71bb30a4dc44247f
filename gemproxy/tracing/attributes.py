"""
What a span says of an exchange, by OpenTelemetry's conventions for generative AI. Pure.

There are no texts in it: opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans
"""

from __future__ import annotations

from gemproxy.chat.chunks import count_of
from gemproxy.exchange import Exchange

OPERATION = "chat"
# The conventions' own names of providers; others have the name that the configuration gives them.
_PROVIDERS = {"gemini": "gcp.gemini"}
_LENGTH = 200


def name_of(exchange: Exchange) -> str:
    return f"{OPERATION} {exchange.model[:_LENGTH]}"


def attributes_of(exchange: Exchange) -> dict[str, str | int | bool | list[str]]:
    said: dict[str, str | int | bool | list[str]] = {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.request.model": exchange.model[:_LENGTH],
        "http.response.status_code": exchange.status,
        "gemproxy.request": exchange.id,
    }
    if upstream := exchange.upstream:
        said["gen_ai.provider.name"] = _PROVIDERS.get(upstream, upstream)
    if exchange.upstream_request is not None:
        said["gen_ai.response.id"] = exchange.upstream_request
    if exchange.finish_reason:
        said["gen_ai.response.finish_reasons"] = [exchange.finish_reason]
    if (usage := exchange.usage) is not None:
        said["gen_ai.usage.input_tokens"] = count_of(usage, "prompt_tokens")
        said["gen_ai.usage.output_tokens"] = count_of(usage, "completion_tokens")
        if cached := count_of(usage.get("prompt_tokens_details"), "cached_tokens"):
            said["gen_ai.usage.cache_read.input_tokens"] = cached
    if exchange.account is not None:
        said["enduser.id"] = exchange.account
    if exchange.error is not None:
        said["error.type"] = str(exchange.status)
    if exchange.stream:
        said["gemproxy.stream"] = True
    if exchange.retries:
        said["gemproxy.retries"] = exchange.retries
    return said
