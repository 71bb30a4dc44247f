"""The objects of a streamed response: chat.completion.chunk and usage."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from gemproxy.chat.jsontext import dumps
from gemproxy.chat.sse import Event


def count_of(holder: Any, name: str) -> int:
    """A number of tokens in an object; 0 if it is not there."""
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if type(value) is int else 0


@frozen
class Usage:
    """
    Token counts, as reported by the model's API.

    @ivar completion: all generated tokens, including reasoning tokens.
    @ivar estimated: whether the counts are an estimate, since the API gave none.
    """

    prompt: int
    completion: int
    reasoning: int = 0
    cached: int = 0
    estimated: bool = False

    @classmethod
    def of_json(cls, usage: dict[str, Any]) -> Usage:
        """What L{as_json} makes, or what an upstream says: missing counts are 0."""
        return cls(
            count_of(usage, "prompt_tokens"),
            count_of(usage, "completion_tokens"),
            count_of(usage.get("completion_tokens_details"), "reasoning_tokens"),
            count_of(usage.get("prompt_tokens_details"), "cached_tokens"),
        )

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.reasoning + other.reasoning,
            self.cached + other.cached,
            self.estimated or other.estimated,
        )

    def as_json(self) -> dict[str, Any]:
        counts: dict[str, Any] = {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }
        return counts | {"estimated": True} if self.estimated else counts


# A rule of thumb.
_CHARACTERS_PER_TOKEN = 4
_BESIDE_MEDIA = 100_000
_MOST_DIGITS = 10


def estimated_tokens(length: int) -> int:
    """The tokens of a text of so many characters, more or less."""
    return -(-length // _CHARACTERS_PER_TOKEN)


def prompt_bytes(length: int, request: bytes) -> int:
    """
    How many bytes of a request are taken for the text of its prompt. Media are far from four
    characters a token.

    @param length: that of the request, or of its messages.
    @param request: its body.
    """
    return min(length, _BESIDE_MEDIA) if b"base64" in request else length


def estimated_usage(prompt_length: int, answer_length: int) -> Usage:
    """
    An estimate of the usage of an answer, for want of the API's counts.

    @param prompt_length: bytes of the request's messages.
    @param answer_length: characters of the answer.
    """
    prompt, answer = estimated_tokens(prompt_length), estimated_tokens(answer_length)
    return Usage(prompt, answer, estimated=True)


def index_of(value: Any) -> int | None:
    """The C{index} of a choice, call or block, which some upstreams send as a string."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < _MOST_DIGITS:
        return int(value)
    return None


def text_alone(chunk: dict[str, Any]) -> str | None:
    """The text of a chunk that has one choice and nothing but text; None if it has more."""
    choices = chunk.get("choices")
    if type(choices) is not list or len(choices) != 1 or chunk.get("usage"):
        return None
    choice = choices[0]
    if type(choice) is not dict or choice.get("finish_reason") or choice.get("index"):
        return None
    delta = choice.get("delta")
    if type(delta) is not dict or len(delta) != 1:
        return None
    text = delta.get("content")
    return text if type(text) is str and text else None


def model_object(name: str) -> dict[str, Any]:
    """A Gemini model as an OpenAI model object."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "google"}


@frozen
class ChunkFactory:
    """Creates the chunks of one completion as events. They share id, time and model."""

    id: str
    created: int
    model: str
    # By choice: the JSON in front of the text of a chunk, and behind it.
    _frames: dict[int, tuple[bytes, bytes]] = field(init=False, factory=dict, eq=False, repr=False)

    def text(self, text: str, index: int = 0) -> Event:
        """
        A chunk with more text of a choice, as L{delta} makes it: the JSON of most chunks is the
        same but for the text.
        """
        frame = self._frames.get(index)
        if frame is None:
            before, _, behind = self.delta({"content": ""}, None, index).data.rpartition(b'""')
            frame = self._frames[index] = before, behind
        data = frame[0] + dumps(text, keep_halves=True) + frame[1]
        return Event(data, text=None if index else text or None)

    def delta(
        self,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        index: int = 0,
        native_finish_reason: str | None = None,
    ) -> Event:
        """
        A chunk for one choice.

        @param native_finish_reason: the API's own word, if it says more than C{finish_reason};
            OpenRouter's field.
        """
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        if native_finish_reason is not None:
            choice["native_finish_reason"] = native_finish_reason
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
