"""
What a span says of an exchange, by OpenTelemetry's conventions for generative AI. Pure.

There are no texts in it: opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans
"""

from __future__ import annotations

from gemproxy.chat.chunks import Usage
from gemproxy.exchange import Exchange

OPERATION = "chat"
# The conventions' own names of providers; others have the name that the configuration gives them.
_PROVIDERS = {"gemini": "gcp.gemini"}
_LENGTH = 200


def name_of(exchange: Exchange) -> str:
    return f"{OPERATION} {exchange.model[:_LENGTH]}"


def attributes_of(exchange: Exchange) -> dict[str, str | int | bool | list[str]]:
    upstream = exchange.upstream
    said: dict[str, str | int | bool | list[str] | None] = {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": _PROVIDERS.get(upstream, upstream) or None,
        "gen_ai.request.model": exchange.model[:_LENGTH],
        "gen_ai.response.id": exchange.upstream_request,
        "gen_ai.response.finish_reasons": [exchange.finish_reason]
        if exchange.finish_reason
        else None,
        "http.response.status_code": exchange.status,
        "enduser.id": exchange.account,
        "error.type": str(exchange.status) if exchange.error is not None else None,
        "gemproxy.request": exchange.id,
        "gemproxy.stream": exchange.stream or None,
        "gemproxy.retries": exchange.retries or None,
    }
    if exchange.usage is not None:
        usage = Usage.of_json(exchange.usage)
        said |= {
            "gen_ai.usage.input_tokens": usage.prompt,
            "gen_ai.usage.output_tokens": usage.completion,
            "gen_ai.usage.cache_read.input_tokens": usage.cached or None,
        }
    return {name: value for name, value in said.items() if value is not None}
