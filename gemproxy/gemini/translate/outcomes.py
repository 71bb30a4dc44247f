"""
Why an answer ended, in OpenAI's words.

ai.google.dev/api/generate-content#FinishReason and #BlockReason; Google adds new ones at any time.
"""

from __future__ import annotations

from gemproxy.gemini.translate.reply import Reply

# What OpenAI has a word for. Everything else, known or new, is content_filter.
_FINISH_REASONS = {"STOP": "stop", "MAX_TOKENS": "length"}

# The model has failed at writing a call; any text of the response is incomplete.
_MALFORMED = frozenset(
    {"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE"}
)

# A repetition would end in the same way.
_CERTAIN = frozenset(
    {
        "MAX_TOKENS",
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "MISSING_THOUGHT_SIGNATURE",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "IMAGE_OTHER",
        "NO_IMAGE",
    }
)


def is_malformed(reply: Reply) -> bool:
    """Whether the model has failed and may do better next time."""
    return reply.finish_reason in _MALFORMED


def is_certain(reply: Reply) -> bool:
    """Whether an empty answer would be empty again."""
    return reply.block_reason is not None or reply.finish_reason in _CERTAIN


def finish_reason(reply: Reply) -> str:
    """OpenAI's C{finish_reason}."""
    if reply.finish_reason is None:
        return "content_filter"
    if reply.calls:
        return "tool_calls"
    return _FINISH_REASONS.get(reply.finish_reason, "content_filter")


def native_finish_reason(reply: Reply) -> str | None:
    """Google's own reason, where OpenAI has no word for it."""
    reason = reply.finish_reason or reply.block_reason
    return None if reason in _FINISH_REASONS else reason


def explanation(reply: Reply) -> str:
    """Why an answer is empty."""
    if reply.finish_reason is None and reply.block_reason is not None:
        text = f"Google blocked the prompt (block reason {reply.block_reason})"
        message = reply.block_message
    else:
        text = f"The model gave no answer (finish reason {reply.finish_reason})"
        message = reply.finish_message
    return f"{text}: {message}" if message else f"{text}."
