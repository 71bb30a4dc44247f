"""Lists of models as Google's API has them: ai.google.dev/api/models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from gemproxy.chat.errors import ChatError, bad_request
from gemproxy.chat.form import ErrorResponse
from gemproxy.dialects.native.errors import error_response

Json = dict[str, Any]

_PAGE = 50
_LARGEST_PAGE = 1000
_METHODS = ("generateContent", "countTokens")


@frozen
class NativeModels:
    """The shape. A page token is the name of the last model before the page."""

    header = b"x-goog-api-key"

    def error(self, error: ChatError) -> ErrorResponse:
        return error_response(error)

    def one(self, model: Json) -> Any:
        """What Google says of it, as far as that is known."""
        name = str(model["id"])
        described: Json = {
            "name": f"models/{name}",
            "version": "001",
            "displayName": str(model.get("display_name") or name),
            "supportedGenerationMethods": list(_METHODS),
        }
        for ours, theirs in (
            ("context_length", "inputTokenLimit"),
            ("output_token_limit", "outputTokenLimit"),
        ):
            if model.get(ours) is not None:
                described[theirs] = model[ours]
        google = model.get("google")
        return described | google if isinstance(google, dict) else described

    def listed(self, models: Sequence[Json], query: Mapping[bytes, Sequence[bytes]]) -> Any:
        size, token = _size(query), _value(query, b"pageToken", b"page_token")
        names = [str(model["id"]) for model in models]
        if token and token not in names:
            raise bad_request("'pageToken' is not one of this list.", "pageToken")
        start = names.index(token) + 1 if token else 0
        page: Json = {"models": [self.one(model) for model in models[start : start + size]]}
        if start + size < len(models):
            page["nextPageToken"] = names[start + size - 1]
        return page


def _value(query: Mapping[bytes, Sequence[bytes]], *names: bytes) -> str:
    values = (query[name][0] for name in names if query.get(name))
    return next(values, b"").decode("utf-8", "replace")


def _size(query: Mapping[bytes, Sequence[bytes]]) -> int:
    value = _value(query, b"pageSize", b"page_size") or "0"
    if not value.isascii() or not value.isdigit():
        raise bad_request("'pageSize' must be a number.", "pageSize")
    return min(int(value[:9]) or _PAGE, _LARGEST_PAGE)


NATIVE_MODELS = NativeModels()
