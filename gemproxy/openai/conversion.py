"""
In which form a request is sent to an upstream: what is added to it, and when that is taken back.
Pure: neither clock nor IO.

A request of a client that does not stream is turned into one that does, so that no server in
between takes a long silence for a failure. Some upstreams refuse that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

from attrs import define, field

from gemproxy.chat.errors import ChatError
from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.request import ChatRequest
from gemproxy.util.remembered import MEMORY, Memory, Remembered

# OpenAI's audio guide: the only format that can be streamed.
_STREAMED_AUDIO = "pcm16"

_OPTIONS = re.compile(r"stream[ _-]?options|include[ _-]?usage", re.I)
# Not "upstream", nor "text/event-stream". The last is what Chinese providers call it.
_STREAM = re.compile(
    r"(?<![a-z0-9])(?<!event-)(?<!octet-)(?:non|un)?stream(?:s|ed|ing|able)?(?![a-z0-9])|流式", re.I
)
# A stream that broke, as HTTP/2 and others say, is no refusal of one.
_BROKEN_STREAM = re.compile(
    r"stream (?:error|id\b|closed|ended|reset|disconnect|interrupted|timed? ?out)"
    r"|(?:closed|broken|reset|failed) (?:the )?stream|stdout stream|stdin stream",
    re.I,
)
# The statuses with which the words of an error may refuse a stream.
_REFUSALS = (400, 422, 500, 501)
_NOT_ABOUT_THE_REQUEST = (401, 429)
# Fields of errors that repeat the request.
_ECHOES = frozenset({"input", "body", "ctx", "request"})
_MOST_TEXT = 20_000

# Where lists of models say that a model cannot be streamed: GitHub Copilot's, LiteLLM's, others'.
_STREAMING_FLAGS = (
    ("capabilities", "supports", "streaming"),
    ("model_info", "supports_native_streaming"),
    ("capabilities", "streaming"),
    ("supports_streaming",),
)


class Convert(Enum):
    """
    Whether requests of clients that do not stream become streaming ones.

    @cvar ON: all, whatever the upstream says.
    @cvar OFF: none.
    @cvar AUTO: all that the upstream does not refuse.
    """

    ON = "on"
    OFF = "off"
    AUTO = "auto"


class Form(Enum):
    """
    What is sent of a request.

    @cvar STREAM: the request with C{stream} and C{stream_options.include_usage}.
    @cvar STREAM_ALONE: the request with C{stream}; its C{stream_options} are the client's own.
    @cvar AS_SENT: the request as the client sent it.
    """

    STREAM = "stream with usage"
    STREAM_ALONE = "stream"
    AS_SENT = "as sent"


_FORMS: dict[str | None, Form] = {form.value: form for form in Form}


@define(eq=False)
class ConversionMemory:
    """What an upstream has refused to stream, by model: the values of L{Form}s that it takes."""

    _learnt: Memory[str] = field(factory=lambda: Remembered(MEMORY))

    def form(self, model: str, now: float) -> Form:
        """@param now: in seconds, on any clock."""
        return _FORMS.get(self._learnt.get(model, now), Form.STREAM)

    def learn(self, model: str, form: Form, now: float) -> None:
        self._learnt.put(model, form.value, now)


def first_form(
    convert: Convert, request: ChatRequest, memory: ConversionMemory, now: float
) -> Form:
    """The form to try first."""
    if request.stream or convert is Convert.OFF:
        return Form.AS_SENT
    if convert is Convert.ON:
        return Form.STREAM
    if request.audio_format not in (None, _STREAMED_AUDIO):
        return Form.AS_SENT
    return memory.form(request.model, now)


def form_after(form: Form, error: ChatError) -> Form | None:
    """
    The form in which to repeat a request that was refused in another one; None if what was added
    is not what was refused.
    """
    if form is Form.AS_SENT:
        return None
    text = " ".join(_words_of(error))[:_MOST_TEXT]
    names_options = bool(_OPTIONS.search(text))
    rest = _OPTIONS.sub(" ", text)
    names_stream = bool(_STREAM.search(rest)) and not _BROKEN_STREAM.search(rest)
    if not (names_stream or names_options) or not _is_refusal(error):
        return None
    if form is Form.STREAM and not names_stream:
        return Form.STREAM_ALONE
    return Form.AS_SENT


def is_as_sent(form: Form, request: ChatRequest) -> bool:
    """Whether the client's own bytes can be sent upstream."""
    return form is Form.AS_SENT and request.named_model == request.model


def body_in(form: Form, request: ChatRequest) -> bytes:
    """
    The body to send upstream if it is not the client's: something is added, or the upstream has
    another name for the model.
    """
    body = request.body | {"model": request.model}
    if form is Form.AS_SENT:
        return dumps(body)
    body["stream"] = True
    if form is Form.STREAM:
        options = body.get("stream_options") or {}
        body["stream_options"] = options | {"include_usage": True}
    elif not body.get("stream_options"):
        body.pop("stream_options", None)
    return dumps(body)


def cannot_stream(model: dict[str, Any]) -> bool:
    """Whether an upstream says so of a model in its list of models."""
    return any(_at(model, path) is False for path in _STREAMING_FLAGS)


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _is_refusal(error: ChatError) -> bool:
    if error.status in _REFUSALS:
        return True
    is_named = error.param is not None and error.param.startswith("stream")
    return is_named and error.status < 500 and error.status not in _NOT_ABOUT_THE_REQUEST


def _words_of(error: ChatError) -> Iterator[str]:
    yield error.message
    yield error.param or ""
    body = b"" if error.verbatim is None else error.verbatim.body
    try:
        yield from _strings_in(loads(body))
    except ValueError:
        yield body[:_MOST_TEXT].decode("utf-8", "replace")


def _strings_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings_in(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in _ECHOES:
                yield from _strings_in(item)
