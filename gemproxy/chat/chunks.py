"""The shapes of a streamed answer: chat.completion.chunk objects and usage."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from gemproxy.chat.sse import Event


@frozen
class Usage:
    """
    Tokens, as the model's API counted them.

    @ivar completion: all tokens that were generated, the reasoning ones among them.
    """

    prompt: int
    completion: int
    reasoning: int = 0
    cached: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.reasoning + other.reasoning,
            self.cached + other.cached,
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }


def model_object(name: str) -> dict[str, Any]:
    """A model of Gemini, as OpenAI's API describes one."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "google"}


@frozen
class ChunkFactory:
    """Makes the chunks of one completion, which share id, time and model, as events."""

    id: str
    created: int
    model: str

    def delta(
        self, delta: dict[str, Any], finish_reason: str | None = None, index: int = 0
    ) -> Event:
        """A chunk for one choice."""
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return Event.of(self._chunk([choice]))

    def usage(self, usage: Usage) -> Event:
        """The last chunk, for clients that set stream_options.include_usage."""
        return Event.of(self._chunk([]) | {"usage": usage.as_json()})

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
