"""The field in which Google's OpenAI-compatible endpoint has the signatures of Gemini."""

from __future__ import annotations

from typing import Any

from gemproxy.chat.shapes import as_object


def extra_content(signature: str) -> dict[str, Any]:
    """The field."""
    return {"extra_content": {"google": {"thought_signature": signature}}}


def given_signature(holder: dict[str, Any]) -> str | None:
    """
    The signature in the field; None if there is none.

    @param holder: a call, a message, a delta, or a part of a content.
    """
    google = as_object(as_object(holder.get("extra_content")).get("google"))
    signature = google.get("thought_signature")
    return signature if isinstance(signature, str) and signature else None
