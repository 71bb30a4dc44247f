"""Counts the tokens of a prompt: ai.google.dev/api/tokens."""

from __future__ import annotations

from attrs import frozen

from gemproxy.chat.errors import upstream_failed
from gemproxy.chat.shapes import as_object
from gemproxy.gemini.api.client import ApiFailed, GeminiApi
from gemproxy.gemini.api.keys import KeyRing

_MOST_TRIES = 2


@frozen
class TokenCounting:
    """Has Google count."""

    api: GeminiApi
    keys: KeyRing

    async def count(self, model: str, request: bytes, preferred: str | None) -> int:
        """
        @param request: the JSON object that C{generateContent} would be sent.
        @param preferred: the API key to use unless it rests.
        @raise ChatError: Google does not count.
        """
        target = self.api.endpoint.of_model(model, "countTokens")
        body = self.api.endpoint.counting(model, request)
        for is_last in (False,) * (_MOST_TRIES - 1) + (True,):
            lease = await self.keys.acquire(model, preferred)
            # Counting has quotas of its own: no key rests for what it says.
            self.keys.abandon(lease)
            try:
                answer = await self.api.ask(b"POST", target, lease.key, body)
            except ApiFailed as failed:
                if is_last or not failed.failure.retryable:
                    raise failed.failure.error from None
            else:
                break
            preferred = None
        total = as_object(answer).get("totalTokens")
        if not isinstance(total, int):
            raise upstream_failed("The Gemini API did not say a number of tokens.")
        return total
