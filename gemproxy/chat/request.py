"""A client's chat completion request, with the fields that every backend needs."""

from __future__ import annotations

from typing import Any, cast

from attrs import define, field

from gemproxy.chat.errors import bad_request
from gemproxy.chat.jsontext import loads, peek

# Besides Authorization: the headers of Anthropic's, Azure's and Google's clients. They hold the key
# alone.
KEY_HEADERS = (b"x-api-key", b"api-key", b"x-goog-api-key")

Headers = tuple[tuple[bytes, bytes], ...]


def credentials_in(headers: Headers) -> list[str]:
    """The values of the headers in which a client shows its keys."""
    return [
        value.decode("latin-1")
        for name, value in headers
        if name.lower() in (b"authorization", *KEY_HEADERS)
    ]


# UTF-8 byte order mark; some editors put it at the start of a file.
BOM = b"\xef\xbb\xbf"


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

    @property
    def body(self) -> dict[str, Any]:
        """The whole JSON object, including unknown fields."""
        return cast("dict[str, Any]", loads(self.raw)) if self._parsed is None else self._parsed

    def forget(self) -> None:
        """
        Release the parsed body to save memory while the response is received. L{body} parses it
        again if needed.
        """
        self._parsed = None
        self.headers, self.query = (), b""


def parse_chat_request(raw: bytes, headers: Headers = ()) -> ChatRequest:
    """
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


def choices_of(chat: ChatRequest) -> int:
    """How many choices a request is for."""
    n = chat.body.get("n")
    return n if isinstance(n, int) and n > 0 else 1


def body_and_model(raw: bytes) -> tuple[dict[str, Any], str]:
    """
    @param raw: without a byte order mark.
    @raise ChatError: 400, the body is not JSON, not an object, or names no model.
    """
    try:
        body = loads(raw)
    except ValueError as error:
        raise bad_request(f"The request body is not valid JSON: {error}.") from None
    if not isinstance(body, dict):
        raise bad_request("The request body must be a JSON object.")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise bad_request("'model' must be a non-empty string.", "model")
    return body, model


def model_of(raw: bytes) -> str | None:
    """The model that a request's body names, whatever it is for; None if it names none."""
    try:
        body = peek(raw.removeprefix(BOM))
    except ValueError:
        return None
    model = body.get("model") if isinstance(body, dict) else None
    return model if isinstance(model, str) else None
