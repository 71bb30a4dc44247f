"""From a play to the GenerateContentResponse documents, and their framing on the wire."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from attrs import evolve, frozen

from gemproxy.chat.shapes import as_object, objects_in
from gemproxy.demo.echo import CHARACTERS_PER_TOKEN
from testing.google.recorded_request import ReceivedRequest
from testing.google.scenarios import Part, Scenario

TOKENS_PER_IMAGE = 258


@frozen
class Framing:
    """How the documents of a streamed answer are told apart."""

    content_type: str
    opening: bytes
    prefix: bytes
    suffix: bytes
    separator: bytes
    closing: bytes

    def document(self, index: int, document: bytes) -> bytes:
        """The bytes of one document, with what goes between it and the one before."""
        start = self.separator if index else self.opening
        return start + self.prefix + document + self.suffix

    def end(self, count: int) -> bytes:
        """What follows the last of C{count} documents."""
        return self.closing if count else self.opening + self.closing


SSE = Framing("text/event-stream", b"", b"data: ", b"\r\n\r\n", b"", b"")
ARRAY = Framing("application/json; charset=UTF-8", b"[", b"", b"\r\n", b",\r\n", b"]\r\n")


def tokens(characters: int) -> int:
    """A plausible count; the real one depends on the model."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def _characters(part: Part) -> int:
    if isinstance(part.get("text"), str):
        return len(part["text"])
    if "inlineData" in part:
        return TOKENS_PER_IMAGE * CHARACTERS_PER_TOKEN
    return len(orjson.dumps(part))


def prompt_tokens(request: ReceivedRequest) -> int:
    """The tokens of the conversation and the system instruction."""
    parts = (part for content in request.contents for part in objects_in(content.get("parts")))
    return tokens(sum(map(_characters, parts)) + len(request.system or ""))


def token_count(request: ReceivedRequest) -> bytes:
    """The answer to countTokens, for contents alone or for a whole request."""
    whole = as_object(request.body).get("generateContentRequest")
    count = prompt_tokens(evolve(request, body=whole) if isinstance(whole, dict) else request)
    details = [{"modality": "TEXT", "tokenCount": count}]
    return orjson.dumps({"totalTokens": count, "promptTokensDetails": details})


def embeddings(request: ReceivedRequest) -> bytes:
    """The answer to embedContent and batchEmbedContents: ai.google.dev/api/embeddings."""
    body = as_object(request.body)
    if request.method == "predict":
        return _predictions(body)
    body |= as_object(body.get("embedContentConfig"))
    asked = objects_in(body.get("requests")) if "requests" in body else [body]
    values = []
    for number, one in enumerate(asked):
        vector = [0.25, -1.0, float(number)]
        values.append({"values": vector + [0.5] * (one.get("outputDimensionality", 3) - 3)})
    answer: dict[str, Any] = (
        {"embeddings": values} if "requests" in body else {"embedding": values[0]}
    )
    if request.model.startswith("gemini-embedding-2"):
        # bifrost#7295
        answer["usageMetadata"] = {"promptTokenCount": 2 * len(asked)}
    return orjson.dumps(answer)


def _predictions(body: dict[str, Any]) -> bytes:
    """docs.cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api"""
    size = as_object(body.get("parameters")).get("outputDimensionality", 3)
    predictions = []
    for instance in objects_in(body.get("instances")):
        counted = {"truncated": False, "token_count": tokens(len(instance["content"]))}
        vector = [0.25, -1.0, float(len(instance["content"]))] + [0.5] * (size - 3)
        predictions.append({"embeddings": {"values": vector, "statistics": counted}})
    return orjson.dumps({"predictions": predictions})


@frozen
class _Sent:
    """Characters so far."""

    answer: int = 0
    thoughts: int = 0

    def and_also(self, parts: Iterable[Part]) -> _Sent:
        answer, thoughts = self.answer, self.thoughts
        for part in parts:
            if part.get("thought"):
                thoughts += _characters(part)
            else:
                answer += _characters(part)
        return _Sent(answer, thoughts)


@frozen
class Responder:
    """
    Writes the responses of one answer, which share model and id.

    @ivar prompt_tokens: what the prompt counts in usageMetadata.
    """

    model_version: str
    response_id: str
    prompt_tokens: int

    def stream(self, play: Scenario) -> list[bytes]:
        """The documents of a streamed answer, one a chunk."""
        if play.block_reason is not None:
            return [self._blocked(play)]
        chunks = play.chunks
        if not chunks and play.finish_reason is not None:
            chunks = ((),)
        documents = []
        sent = _Sent()
        for number, chunk in enumerate(chunks, 1):
            if isinstance(chunk, bytes):
                documents.append(chunk)
                continue
            sent = sent.and_also(chunk)
            finish_reason = play.finish_reason if number == len(chunks) else None
            documents.append(self._response(play, chunk, finish_reason, sent))
        return documents

    def whole(self, play: Scenario) -> bytes:
        """The one document of an answer that is not streamed."""
        if play.block_reason is not None:
            return self._blocked(play)
        parts: list[Part] = []
        for chunk in play.chunks:
            if isinstance(chunk, bytes):
                return chunk
            parts += chunk
        return self._response(play, merged(parts), play.finish_reason, _Sent().and_also(parts))

    def _response(
        self, play: Scenario, parts: Iterable[Part], finish_reason: str | None, sent: _Sent
    ) -> bytes:
        content: dict[str, Any] = {"role": "model"}
        if parts := list(parts):
            content["parts"] = parts
        candidate: dict[str, Any] = {"content": content}
        if finish_reason is not None:
            candidate["finishReason"] = finish_reason
        candidate["index"] = 0
        return self._document(play, {"candidates": [candidate]}, sent)

    def _blocked(self, play: Scenario) -> bytes:
        return self._document(play, {"promptFeedback": {"blockReason": play.block_reason}}, None)

    def _document(self, play: Scenario, response: dict[str, Any], sent: _Sent | None) -> bytes:
        if play.usage is not None:
            response["usageMetadata"] = self._usage(play.usage, sent)
        response |= {"modelVersion": self.model_version, "responseId": self.response_id}
        return orjson.dumps(response)

    def _usage(self, told: Mapping[str, Any], sent: _Sent | None) -> dict[str, Any]:
        usage: dict[str, Any] = {"promptTokenCount": self.prompt_tokens}
        if sent is not None:
            usage["candidatesTokenCount"] = tokens(sent.answer)
            if sent.thoughts:
                usage["thoughtsTokenCount"] = tokens(sent.thoughts)
        usage |= told
        counted = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
        return {"totalTokenCount": sum(usage.get(name, 0) for name in counted)} | usage


def merged(parts: Iterable[Part]) -> list[Part]:
    """The parts with neighbouring texts of one kind joined, as when they are not streamed."""
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else {}
        if "text" in part and "text" in last and {**last, "text": ""} == {**part, "text": ""}:
            joined[-1] = {**last, "text": last["text"] + part["text"]}
        else:
            joined.append(part)
    return joined
