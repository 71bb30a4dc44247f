"""The error type reported to clients, and its rendering."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any

from attrs import evolve, frozen

from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.shapes import as_object

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"

_REASON_LENGTH = 200
_MOST_NAMES = 20
# Maximum share of a message's characters that may be replaced in the reason phrase.
_MOST_LOST = 0.3

# Those that others are told, and their types.
_FIELDS: dict[str, tuple[type, ...]] = {
    "status": (int,),
    "type": (str,),
    "message": (str,),
    "code": (str, NoneType),
    "param": (str, NoneType),
    "final": (bool,),
    "google": (dict, NoneType),
}


def _masked(document: dict[str, Any], mask: Callable[[bytes], bytes]) -> dict[str, Any]:
    masked = mask(plain := dumps(document))
    return document if masked == plain else dict(loads(masked))


@frozen
class Verbatim:
    """
    An error response of an OpenAI-compatible backend, sent to the client unchanged.

    @ivar payload: the parsed body, if it is an object with an error.
    """

    content_type: bytes
    body: bytes
    payload: dict[str, Any] | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def masked(self, mask: Callable[[bytes], bytes]) -> Verbatim:
        """See L{ChatError.masked}."""
        payload = self.payload and _masked(self.payload, mask)
        headers = tuple((name, mask(value.encode()).decode()) for name, value in self.headers)
        return Verbatim(mask(self.content_type), mask(self.body), payload, headers)


@frozen(eq=False)
class ChatError(Exception):
    """
    The reason why a request failed or its response is incomplete.

    @ivar retry_after: seconds after which the client may retry; None if unknown.
    @ivar final: whether the same request would fail again; SDKs are instructed not to retry it.
    @ivar verbatim: the upstream's error response, sent instead of one made from the fields.
    @ivar google: the error object of Google's API that it was made of; None if it is none of
        Google's, or is told otherwise on purpose.
    """

    status: int
    type: str
    message: str
    code: str | None = None
    param: str | None = None
    retry_after: float | None = None
    final: bool = False
    verbatim: Verbatim | None = None
    google: dict[str, Any] | None = None

    def __str__(self) -> str:
        return f"{self.status} {self.code or self.type}: {self.message}"

    def payload(self) -> dict[str, Any]:
        """The error as an OpenAI error object."""
        if self.verbatim is not None and self.verbatim.payload is not None:
            return self.verbatim.payload
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    def body(self) -> tuple[bytes, bytes]:
        """The content type and body of the error response."""
        if self.verbatim is not None and self.verbatim.body:
            return self.verbatim.content_type, self.verbatim.body
        return b"application/json", dumps(self.payload())

    def headers(self) -> dict[str, str]:
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(math.ceil(self.retry_after))
        if self.final:
            # openai-python and openai-node honour this header.
            headers["x-should-retry"] = "false"
        if self.verbatim is not None:
            headers.update(self.verbatim.headers)
        return headers

    def fields(self) -> dict[str, Any]:
        """What another daemon needs to say the same, for JSON. What is verbatim is left out."""
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def of_fields(cls, fields: Any) -> ChatError:
        """
        The error of L{fields}.

        @raise ValueError: these are none.
        """
        known: dict[str, Any] = {name: as_object(fields).get(name) for name in _FIELDS}
        if not all(isinstance(known[name], kind) for name, kind in _FIELDS.items()):
            raise ValueError("not the fields of an error")
        return cls(**known)

    def masked(self, mask: Callable[[bytes], bytes]) -> ChatError:
        """The error as it may be shown; C{mask} replaces keys in UTF-8."""

        def in_text(text: str) -> str:
            encoded = text.encode("utf-8", "surrogatepass")
            masked = mask(encoded)
            return text if masked == encoded else masked.decode("utf-8", "surrogatepass")

        return evolve(
            self,
            message=in_text(self.message),
            type=in_text(self.type),
            code=self.code and in_text(self.code),
            param=self.param and in_text(self.param),
            verbatim=self.verbatim and self.verbatim.masked(mask),
            google=self.google and _masked(self.google, mask),
        )

    def reason(self) -> bytes:
        """
        The reason phrase of the status line, the only part of some errors that SillyTavern
        displays. A message that is mostly not ASCII is replaced by the status and code.
        """
        line = " ".join(self.message.split())[:_REASON_LENGTH]
        printable = "".join(c if " " <= c <= "~" else "?" for c in line)
        lost = sum(a != b for a, b in zip(line, printable, strict=True))
        if not line or lost > len(line) * _MOST_LOST:
            printable = f"Error {self.status}" + (f" {self.code}" if self.code else "")
        return printable.encode("ascii", "replace")


class Unanswered(ChatError):
    """An upstream could not be reached, or closed the connection before it answered anything."""


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ChatError:
    return ChatError(400, INVALID_REQUEST, message, param=param, code=code)


def model_not_found(model: str, others: Sequence[str] = ()) -> ChatError:
    """@param others: the names of models that exist."""
    error = ChatError(
        404,
        INVALID_REQUEST,
        f"The model '{model}' does not exist.",
        param="model",
        code="model_not_found",
    )
    return naming_models(error, [name for name in others if name != model])


def naming_models(error: ChatError, names: Sequence[str]) -> ChatError:
    """The error with the names of models that exist; not all if there are many."""
    if not names:
        return error
    shown = ", ".join(names[:_MOST_NAMES])
    if len(names) > _MOST_NAMES:
        shown += f" and {len(names) - _MOST_NAMES} more"
    return evolve(error, message=f"{error.message} Available models: {shown}.")


def unknown_url(method: str, path: str, hint: str = "") -> ChatError:
    """@param hint: a sentence on what to request instead."""
    message = f"Unknown URL: {method} {path}. {hint}".rstrip()
    return ChatError(404, INVALID_REQUEST, message, code="unknown_url", final=True)


def upstream_failed(message: str) -> ChatError:
    return ChatError(502, SERVER_ERROR, message, code="upstream_error")


def upstream_silent(seconds: float) -> ChatError:
    return ChatError(
        504,
        SERVER_ERROR,
        f"The model's backend sent no data for {seconds:g} s; the request was cancelled.",
        code="upstream_timeout",
    )


def overloaded(message: str, retry_after: float) -> ChatError:
    return ChatError(503, SERVER_ERROR, message, code="overloaded", retry_after=retry_after)
