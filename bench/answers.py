"""The made-up answers of the fake upstream: what they are, and whether one arrived whole."""

from __future__ import annotations

import json
import re

from attrs import frozen

_WORDS = "the quick brown fox jumps over the lazy dog and "
_MODEL = re.compile(r"bench-(\d+)-(\d+)-(\d+)")
# When a chunk was sent, in seconds of the monotonic clock, and its number.
STAMP = re.compile(rb"t=(\d{10}\.\d{6}) #(\d{6})")
_PIECE = re.compile(r"t=\d{10}\.\d{6} #(\d{6}) ([a-z ]*);")

_HEAD = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,'
    b'"model":"bench","choices":[{"index":0,"delta":{'
)
_TAIL = b'},"logprobs":null,"finish_reason":null}]}\n\n'
_LAST = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,'
    b'"model":"bench","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}'
    b"\n\n"
)
_USAGE = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,'
    b'"model":"bench","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":9,'
    b'"total_tokens":18}}\n\n'
)
_GOOGLE_HEAD = b'data: {"candidates":[{"content":{"parts":[{"text":"'
# As Google ends lines, and names what it says each time.
_GOOGLE_TAIL = (
    b'"}],"role":"model"},"index":0%s}],"usageMetadata":{"promptTokenCount":9,'
    b'"candidatesTokenCount":9,"totalTokenCount":18,"promptTokensDetails":[{"modality":"TEXT",'
    b'"tokenCount":9}]},"modelVersion":"gemini-3.8-flash","responseId":"bench"}\r\n\r\n'
)


class WrongAnswer(Exception):
    """What a client got is not what the upstream sent."""


@frozen
class Spec:
    """
    An answer that a client can order, by its model's name.

    @ivar chunks: how many pieces of text it has.
    @ivar size: characters of filling in each.
    @ivar pace: milliseconds between two of them; 0: as fast as they go.
    """

    chunks: int
    size: int = 40
    pace: int = 0

    @property
    def model(self) -> str:
        return f"bench-{self.chunks}-{self.size}-{self.pace}"

    @classmethod
    def of_model(cls, name: str) -> Spec:
        match = _MODEL.search(name)
        if match is None:
            raise ValueError(f"not a model of ours: {name}")
        return cls(*map(int, match.groups()))

    @property
    def _filling(self) -> str:
        return (_WORDS * (self.size // len(_WORDS) + 1))[: self.size]

    def template(self) -> bytes:
        """A chunk, as it goes over the wire; to be formatted with the time and its number."""
        return _framed(_HEAD + b'"content":"' + self._text + b'"' + _TAIL)

    def google_template(self) -> bytes:
        """The same, as Google has it."""
        return _framed(_GOOGLE_HEAD + self._text + _GOOGLE_TAIL % b"")

    @property
    def _text(self) -> bytes:
        return b"t=%017.6f #%06d " + self._filling.encode() + b";"

    def end(self, include_usage: bool) -> bytes:
        pieces = [_LAST, *([_USAGE] if include_usage else []), b"data: [DONE]\n\n"]
        return b"".join(in_http_chunk(piece, len(piece)) for piece in pieces) + b"0\r\n\r\n"

    def google_end(self) -> bytes:
        last = _GOOGLE_HEAD + _GOOGLE_TAIL % b',"finishReason":"STOP"'
        return in_http_chunk(last, len(last)) + b"0\r\n\r\n"

    def document(self, now: float) -> bytes:
        """The whole answer, for who does not want a stream."""
        filling = self._filling
        text = "".join(f"t={now:017.6f} #{n:06d} {filling};" for n in range(self.chunks))
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
        }
        completion = {
            "id": "chatcmpl-bench",
            "object": "chat.completion",
            "created": 1760000000,
            "model": "bench",
            "choices": [choice],
            "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18},
        }
        return json.dumps(completion).encode()

    def check_stream(self, body: bytes) -> None:
        """@raise WrongAnswer: the events are not this answer, or not all of it."""
        events = [
            line[6:] for line in body.replace(b"\r", b"").split(b"\n") if line.startswith(b"data: ")
        ]
        if not events or events.pop() != b"[DONE]":
            raise WrongAnswer("the stream has no end")
        texts, reason = [], None
        for event in events:
            for choice in json.loads(event).get("choices") or ():
                texts.append(choice["delta"].get("content") or "")
                reason = choice.get("finish_reason") or reason
        self._check("".join(texts), reason)

    def check_document(self, body: bytes) -> None:
        """@raise WrongAnswer: the completion is not this answer."""
        choice = json.loads(body)["choices"][0]
        self._check(choice["message"]["content"], choice["finish_reason"])

    def _check(self, text: str, reason: str | None) -> None:
        if reason != "stop":
            raise WrongAnswer(f"finish reason {reason}")
        pieces = _PIECE.findall(text)
        expected = [(f"{number:06d}", self._filling) for number in range(self.chunks)]
        if pieces != expected or _PIECE.sub("", text):
            raise WrongAnswer(f"{len(pieces)} of {self.chunks} pieces of text, or out of order")


def _framed(event: bytes) -> bytes:
    """In an HTTP chunk; the sizes of the numbers that are formatted are fixed."""
    return in_http_chunk(event, len(event % (0.0, 0)))


def in_http_chunk(data: bytes, size: int) -> bytes:
    return b"%x\r\n%b\r\n" % (size, data)
