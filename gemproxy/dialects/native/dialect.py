"""Google's own API, for generating: ai.google.dev/api/generate-content."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from attrs import evolve, frozen

from gemproxy.chat.errors import ChatError, bad_request
from gemproxy.chat.form import ErrorResponse
from gemproxy.chat.jsontext import dumps, loads_checked
from gemproxy.chat.request import BOM, ChatRequest, Headers, request_of
from gemproxy.dialects.dialect import Counting, DialectRequest, Translation
from gemproxy.dialects.native.answer import ARRAY, SSE, NativeForm
from gemproxy.dialects.native.errors import error_response
from gemproxy.dialects.native.request import Json, read_request

VERSIONS = ("v1beta", "v1", "v1alpha")

_MODEL = re.compile(rb"\A/v1(?:beta|alpha)?/models/")
# Paths with one of Google's methods, and all of the versions that nobody else has.
_OWN = re.compile(
    rb"/v1/models/.+:[a-z]+[A-Z][A-Za-z]+|(?:/upload)?/v1(?:beta|alpha)(?:/(?!openai(?:/|\Z)).*)?",
    re.S,
)
_KEY = b"x-goog-api-key"


@frozen
class Native:
    """The dialect."""

    name = "native"
    rules = tuple(
        f"/{version}/models/<path:model>:{method}"
        for method in ("generateContent", "streamGenerateContent")
        for version in VERSIONS
    )

    def owns(self, path: bytes) -> bool:
        return _OWN.fullmatch(unquote_to_bytes(path)) is not None

    def error(self, error: ChatError) -> ErrorResponse:
        return error_response(error)

    def translate(self, request: DialectRequest) -> Translation:
        path = _MODEL.sub(b"", unquote_to_bytes(request.path))
        name, _, method = path.rpartition(b":")
        model, stream = name.decode(), method == b"streamGenerateContent"
        headers = _with_bearer(request)
        raw = request.raw.removeprefix(BOM)
        sent = _object(raw)
        if method == b"countTokens" and isinstance(
            inner := sent.get("generateContentRequest"), dict
        ):
            sent = inner
        ignored: tuple[str, ...] = ()
        if request.takes_google:
            chat = _wrapped(raw, sent, model, stream)
        else:
            body, ignored = read_request(sent, model, request.has_hosted_tools)
            chat = request_of(body, model, stream)
        is_events = request.query.get(b"alt", [b""])[0] == b"sse"
        form = NativeForm(request.id, model, SSE if is_events else ARRAY, stream, ignored)
        return Translation((evolve(chat, headers=headers),), form)


def _object(raw: bytes) -> Json:
    try:
        sent = loads_checked(raw or b"{}")
    except ValueError as error:
        raise bad_request(f"Invalid JSON payload received. {error}.") from None
    if not isinstance(sent, dict):
        raise bad_request("Invalid JSON payload received. It must be an object.")
    return sent


def _wrapped(raw: bytes, sent: Json, model: str, stream: bool) -> ChatRequest:
    """A request for those who take it as it is."""
    body: Json = {"model": model, "google_request": sent}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    head = dumps({name: value for name, value in body.items() if name != "google_request"})
    whole = b'%b,"google_request":%b}' % (head[:-1], raw or b"{}")
    return ChatRequest(whole, body, model, stream, include_usage=True)


def _with_bearer(request: DialectRequest) -> Headers:
    """The headers, with the key where every upstream looks for it."""
    headers = request.headers
    names = {name.lower(): value for name, value in headers}
    key = names.get(_KEY) or request.query.get(b"key", [b""])[0]
    if not key or b"authorization" in names:
        return headers
    kept = tuple(header for header in headers if header[0].lower() != _KEY)
    return (*kept, (b"Authorization", b"Bearer " + key))


NATIVE = Native()
NATIVE_COUNTING = Counting(
    "/v1beta/models/<path:model>:countTokens",
    NATIVE,
    lambda count: {"totalTokens": count},
)
