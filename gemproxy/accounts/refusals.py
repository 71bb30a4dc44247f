"""The errors of accounts, as OpenAI has them: platform.openai.com/docs/guides/error-codes. Pure."""

from __future__ import annotations

from datetime import datetime

from gemproxy.chat.errors import INVALID_REQUEST, ChatError

_MOST_SHOWN = 10


def key_disabled(name: str) -> ChatError:
    return ChatError(
        401, INVALID_REQUEST, f"The key of '{name}' is turned off.", "api_key_disabled", final=True
    )


def key_expired(name: str) -> ChatError:
    return ChatError(
        401, INVALID_REQUEST, f"The key of '{name}' has expired.", "api_key_expired", final=True
    )


def model_not_allowed(name: str, model: str, patterns: tuple[str, ...]) -> ChatError:
    """
    OpenAI says the same of a project that has no access to a model.

    @param model: empty if the request names none.
    """
    asked = f"the model '{model[:200]}'" if model else "what names no model"
    shown = ", ".join(patterns[:_MOST_SHOWN]) + (", ..." if len(patterns) > _MOST_SHOWN else "")
    return ChatError(
        403,
        INVALID_REQUEST,
        f"'{name}' does not have access to {asked}. It may ask: {shown}.",
        "model_not_found",
        "model",
        final=True,
    )


def rate_exceeded(name: str, what: str, limit: int, wait: float) -> ChatError:
    """
    @param what: C{requests} or C{tokens}, of which there are so many a minute.
    @param wait: seconds until there are some again.
    """
    short = "RPM" if what == "requests" else "TPM"
    return ChatError(
        429,
        what,
        f"Rate limit reached for '{name}' on {what} per min ({short}): Limit {limit}. Please try"
        f" again in {max(wait, 0.001):.3g}s.",
        "rate_limit_exceeded",
        retry_after=wait,
    )


def too_many_at_once(name: str, limit: int) -> ChatError:
    return ChatError(
        429,
        "requests",
        f"{limit} requests of '{name}' are under way, which is its limit.",
        "rate_limit_exceeded",
        retry_after=1,
    )


def budget_used_up(name: str, budget: str, ends: datetime, wait: float) -> ChatError:
    """
    @param ends: when there is another one.
    @param wait: seconds until then.
    """
    return ChatError(
        429,
        "insufficient_quota",
        f"The budget of '{name}' is used up: {budget}. The next one begins on {ends:%Y-%m-%d}"
        " (UTC).",
        "insufficient_quota",
        retry_after=wait,
        final=True,
    )
