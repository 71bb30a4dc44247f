"""A client's chat completion request, with the fields that every backend needs."""

from __future__ import annotations

from typing import Any, cast

from attrs import define, evolve, field, frozen

from gemproxy.chat.errors import bad_request
from gemproxy.chat.json_structure import openers
from gemproxy.chat.jsontext import dumps, loads_checked, peek
from gemproxy.chat.shapes import as_object

# Besides Authorization: the headers of Anthropic's, Azure's and Google's clients. They hold the key
# alone.
KEY_HEADERS = (b"x-api-key", b"api-key", b"x-goog-api-key")

Headers = tuple[tuple[bytes, bytes], ...]

# Bytes, and numbers of what costs more than its bytes. With these, parsing and translation take
# some 20 ms.
_SMALL, _LARGE = 100_000, 1_000_000
_MANY_OBJECTS, _MANY_KEYS = 5_000, 20_000


_CREDENTIALS = frozenset({b"authorization", *KEY_HEADERS})


def credentials_in(headers: Headers) -> list[str]:
    """The values of the headers in which a client shows its keys."""
    return [value.decode("latin-1") for name, value in headers if name.lower() in _CREDENTIALS]


# UTF-8 byte order mark; some editors put it at the start of a file.
BOM = b"\xef\xbb\xbf"


@frozen
class _Outline:
    """What is known of a large body; see L{ChatRequest}."""

    named_model: str
    choices: int
    audio_format: Any
    prompt_length: int = 0
    tools_length: int = 0


@define
class ChatRequest:
    """
    A parsed chat completion request. Each backend validates the fields that it uses.

    @ivar raw: the body as received, without a byte order mark.
    @ivar headers: the client's headers.
    @ivar stream: whether the client requested server-sent events.
    @ivar include_usage: whether a streaming client requested the final usage chunk.
    @ivar query: of the request's target, without the question mark.
    """

    raw: bytes = field(repr=False)
    _parsed: dict[str, Any] | None = field(repr=False, eq=False)
    model: str
    stream: bool
    include_usage: bool
    headers: Headers = field(default=(), repr=False)
    query: bytes = field(default=b"", repr=False)
    _outline: _Outline | None = field(default=None, repr=False)

    @property
    def body(self) -> dict[str, Any]:
        """The whole JSON object, including unknown fields."""
        return (
            cast("dict[str, Any]", loads_checked(self.raw))
            if self._parsed is None
            else self._parsed
        )

    @property
    def is_large(self) -> bool:
        """Whether L{body} takes so long that it is for another process."""
        return self._outline is not None

    @property
    def named_model(self) -> str:
        """The model as the body names it."""
        return (self._outline or _outline_of(self)).named_model

    @property
    def choices(self) -> int:
        """The number of choices requested."""
        return _choices_in(self.body) if self._outline is None else self._outline.choices

    @property
    def audio_format(self) -> Any:
        """That of C{audio}; None if there is none."""
        return (self._outline or _outline_of(self)).audio_format

    @property
    def prompt_length(self) -> int:
        """Bytes of the messages."""
        if self._outline is not None:
            return self._outline.prompt_length
        return len(dumps(self.body.get("messages", self.body.get("google_request"))))

    @property
    def tools_length(self) -> int:
        """Bytes of the tools."""
        if self._outline is not None:
            return self._outline.tools_length
        tools = self.body.get("tools")
        return len(dumps(tools)) if tools else 0

    def outlined(self) -> ChatRequest:
        """The request without its parsed body, if it is large: for those who must not parse it."""
        if not is_large(self.raw):
            return self
        outline = evolve(
            _outline_of(self),
            prompt_length=self.prompt_length,
            tools_length=self.tools_length,
        )
        return evolve(self, parsed=None, outline=outline)

    def forget(self) -> None:
        """
        Release the parsed body to save memory while the response is received. L{body} parses it
        again if needed.
        """
        self._parsed = None
        self.headers, self.query = (), b""

    def release(self) -> None:
        """Release everything: it is answered."""
        self.forget()
        self.raw = b""


def request_of(
    body: dict[str, Any], model: str, stream: bool, headers: Headers = ()
) -> ChatRequest:
    """
    A request that was made of one in another shape. Its answer is to have the token counts.

    @param body: without what says whether to stream.
    """
    if stream:
        options = as_object(body.get("stream_options"))
        body = body | {"stream": True, "stream_options": options | {"include_usage": True}}
    return ChatRequest(dumps(body), body, model, stream, include_usage=True, headers=headers)


def is_large(raw: bytes) -> bool:
    """Whether to parse it would take so long that others would notice."""
    if len(raw) <= _SMALL:
        return False
    return len(raw) > _LARGE or openers(raw) > _MANY_OBJECTS or raw.count(b'":') > _MANY_KEYS


def parse_chat_request(raw: bytes, headers: Headers = ()) -> ChatRequest:
    """
    @param raw: within L{JsonLimits}.
    @raise ChatError: 400, the body is not JSON, not an object, or has an invalid model, stream or
        stream_options; C{param} names the field.
    """
    raw = raw.removeprefix(BOM)
    body, model = body_and_model(raw)
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise bad_request("'stream' must be true or false.", "stream")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise bad_request("'stream_options' must be an object.", "stream_options")
    include_usage = (options or {}).get("include_usage")
    if include_usage is not None and not isinstance(include_usage, bool):
        raise bad_request(
            "'stream_options.include_usage' must be true or false.", "stream_options.include_usage"
        )
    return ChatRequest(raw, body, model, bool(stream), bool(include_usage), headers)


def _outline_of(request: ChatRequest) -> _Outline:
    body = request.body
    audio = body.get("audio")
    audio_format = audio.get("format") if isinstance(audio, dict) else None
    return _Outline(body["model"], _choices_in(body), audio_format)


def _choices_in(body: dict[str, Any]) -> int:
    n = body.get("n")
    return n if isinstance(n, int) and n > 0 else 1


def body_and_model(raw: bytes) -> tuple[dict[str, Any], str]:
    """
    @param raw: without a byte order mark, and within L{JsonLimits}.
    @raise ChatError: 400, the body is not JSON, not an object, or names no model.
    """
    try:
        body = loads_checked(raw)
    except ValueError as error:
        raise bad_request(f"The request body is not valid JSON: {error}.") from None
    if not isinstance(body, dict):
        raise bad_request("The request body must be a JSON object.")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise bad_request("'model' must be a non-empty string.", "model")
    return body, model


_NAMING_MODELS = ("model", "models", "fallbacks", "session", "tools")


def models_beside(raw: bytes) -> list[str]:
    """
    The models that a body names elsewhere than in C{model}: in C{Model}, which is the same to
    servers written in Go, in the C{models} that OpenRouter falls back to and the C{fallbacks} of
    LiteLLM, in hosted C{tools} that have one of their own, and in the C{session} of OpenAI's
    C{realtime/client_secrets}.

    @param raw: within L{JsonLimits}, if it is JSON.
    """
    try:
        body = peek(raw.removeprefix(BOM))
    except ValueError:
        return []
    named: list[Any] = []
    for key, value in body.items() if isinstance(body, dict) else ():
        if key != "model" and key.lower() in _NAMING_MODELS:
            for one in value if isinstance(value, list) else [value]:
                named.append(one.get("model") if isinstance(one, dict) else one)
    return [name for name in named if isinstance(name, str)]


def model_of(raw: bytes) -> str | None:
    """
    The model that a request's body names, whatever it is for; None if it names none.

    @param raw: within L{JsonLimits}, if it is JSON.
    """
    try:
        body = peek(raw.removeprefix(BOM))
    except ValueError:
        return None
    model = body.get("model") if isinstance(body, dict) else None
    return model if isinstance(model, str) else None
