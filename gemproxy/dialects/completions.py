"""OpenAI's completions of before the chat: a prompt in, a text out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from gemproxy.chat.chunks import index_of
from gemproxy.chat.errors import ChatError, bad_request
from gemproxy.chat.form import CHAT_FORM, ChatForm, ErrorResponse
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.request import parse_chat_request, request_of
from gemproxy.chat.shapes import as_object, objects_in
from gemproxy.chat.sse import DONE, Event, encode
from gemproxy.dialects.dialect import DialectRequest, Translation

MOST_PROMPTS = 16
# They have no meaning in a chat. What a chat ignores is left to the backend.
_LEFT_OUT = ("best_of", "logprobs")
_MORE_TEXT = b'data: %b{"text":%b,"index":0,"logprobs":null,"finish_reason":null}]}\n\n'


@frozen
class Completions:
    """The dialect."""

    name = "completions"
    rules = ("/v1/completions",)

    def owns(self, path: bytes) -> bool:
        return path == b"/v1/completions"

    def error(self, error: ChatError) -> ErrorResponse:
        return CHAT_FORM.error(error)

    def translate(self, request: DialectRequest) -> Translation:
        chat = parse_chat_request(request.raw, request.headers)
        body = chat.body
        prompts = _prompts(body.get("prompt"))
        if body.get("suffix"):
            raise bad_request(
                "'suffix' is not supported: models of a chat cannot insert.", "suffix"
            )
        rest = {
            key: value
            for key, value in body.items()
            if key not in ("prompt", "suffix", "echo", *_LEFT_OUT)
        }
        chats = tuple(
            request_of(
                rest | {"messages": [{"role": "user", "content": prompt}]},
                chat.model,
                chat.stream,
                chat.headers,
            )
            for prompt in prompts
        )
        repeated = [prompt for prompt in prompts for _ in range(chat.choices)]
        echoes = repeated if body.get("echo") else ()
        ignored = tuple(name for name in _LEFT_OUT if body.get(name) not in (None, 0, 1))
        form = CompletionsForm(request.id, echoes, chat.include_usage, ignored)
        return Translation(chats, form)


COMPLETIONS = Completions()


def _prompts(value: Any) -> list[str]:
    prompts = [value] if isinstance(value, str) else value
    if (
        not isinstance(prompts, list)
        or not prompts
        or not all(isinstance(prompt, str) for prompt in prompts)
    ):
        raise bad_request("'prompt' must be a string or a list of strings.", "prompt")
    if len(prompts) > MOST_PROMPTS:
        raise bad_request(f"'prompt' may have at most {MOST_PROMPTS} strings.", "prompt")
    return prompts


class CompletionsForm(ChatForm):
    """The shape of one answer."""

    def __init__(
        self, id: str, echoes: Sequence[str], shows_usage: bool, ignored: Sequence[str]
    ) -> None:
        """
        @param echoes: what to write in front of each choice; empty for nothing.
        @param shows_usage: whether a client that streams wants the token counts.
        """
        self.ignored = ignored
        self._id = f"cmpl-{id}"
        self._echoes = dict(enumerate(echoes))
        self._shows_usage = shows_usage
        # What is in front of the choices, as JSON.
        self._frame = b""

    def events(self, events: Sequence[Event]) -> bytes:
        return b"".join(map(self._encoded, events))

    def _encoded(self, event: Event) -> bytes:
        if event.text is not None and self._frame and not self._echoes:
            # Most chunks have more text and nothing else.
            return _MORE_TEXT % (self._frame, dumps(event.text, keep_halves=True))
        if event.data == DONE:
            return b""
        try:
            chunk = event.json()
        except ValueError:
            return encode(event)
        if not isinstance(chunk, dict) or "error" in chunk:
            return encode(event)
        if event.text is not None and not self._frame:
            self._frame = dumps(self._framed(chunk, []))[:-2]
        return b"".join(map(encode, self._converted(chunk)))

    def _converted(self, chunk: dict[str, Any]) -> list[Event]:
        choices = [
            converted
            for choice in objects_in(chunk.get("choices"))
            if (converted := self._choice(choice, as_object(choice.get("delta")))) is not None
        ]
        converted = self._framed(chunk, choices)
        if self._shows_usage and isinstance(usage := chunk.get("usage"), dict):
            converted["usage"] = usage
        return [Event.of(converted)] if choices or "usage" in converted else []

    def _choice(self, choice: dict[str, Any], message: dict[str, Any]) -> dict[str, Any] | None:
        """A choice of a stream or a document; None if there is nothing in it to be sent."""
        index = index_of(choice.get("index")) or 0
        content = message.get("content")
        text = content if isinstance(content, str) else ""
        finish_reason = choice.get("finish_reason")
        text = self._echoes.pop(index, "") + text
        if not text and finish_reason is None:
            return None
        return {"text": text, "index": index, "logprobs": None, "finish_reason": finish_reason}

    def _framed(self, chunk: dict[str, Any], choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": chunk.get("created"),
            "model": chunk.get("model"),
            "choices": choices,
        }

    def document(self, completion: dict[str, Any]) -> Any:
        choices = [
            self._choice(choice, as_object(choice.get("message")))
            for choice in objects_in(completion.get("choices"))
        ]
        document = self._framed(completion, [choice for choice in choices if choice is not None])
        usage = completion.get("usage")
        return document | {"usage": usage} if usage is not None else document
