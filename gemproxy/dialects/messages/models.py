"""Lists of models as Anthropic has them: docs.claude.com/en/api/models-list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import frozen

from gemproxy.chat.errors import ChatError, bad_request
from gemproxy.chat.form import ErrorResponse
from gemproxy.dialects.messages.errors import error_response

Json = dict[str, Any]

_LIMIT = 20
_MOST = 1000


@frozen
class MessagesModels:
    """The shape."""

    header = b"anthropic-version"

    def error(self, error: ChatError) -> ErrorResponse:
        return error_response(error)

    def one(self, model: Json) -> Any:
        id, created = str(model["id"]), model.get("created")
        seconds = created if isinstance(created, int) and 0 <= created < 2**32 else 0
        return {
            "type": "model",
            "id": id,
            "display_name": str(model.get("display_name") or id),
            "created_at": f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}",
            "lifecycle": "active",
            "max_input_tokens": model.get("context_length"),
            "max_tokens": model.get("output_token_limit"),
        }

    def listed(self, models: Sequence[Json], query: Mapping[bytes, Sequence[bytes]]) -> Any:
        limit, rest, after = _limit(query), list(models), False
        ids = [str(model["id"]) for model in rest]
        if (first := _place(query, b"after_id", ids)) is not None:
            rest = rest[first + 1 :]
        if (end := _place(query, b"before_id", ids)) is not None:
            # The page that ends before it.
            rest, after = rest[:end], True
        page = rest[-limit:] if after else rest[:limit]
        data = [self.one(model) for model in page]
        return {
            "data": data,
            "has_more": len(rest) > len(page),
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
        }


def _value(query: Mapping[bytes, Sequence[bytes]], name: bytes) -> str | None:
    values = query.get(name)
    return values[0].decode("utf-8", "replace") if values else None


def _limit(query: Mapping[bytes, Sequence[bytes]]) -> int:
    value = _value(query, b"limit")
    if value is None:
        return _LIMIT
    if not value.isascii() or not value.isdigit() or not 1 <= int(value[:9]) <= _MOST:
        raise bad_request(f"'limit' must be a number from 1 to {_MOST}.", "limit")
    return int(value)


def _place(query: Mapping[bytes, Sequence[bytes]], name: bytes, ids: Sequence[str]) -> int | None:
    id = _value(query, name)
    if not id:
        return None
    if id not in ids:
        raise bad_request(f"'{name.decode()}' names no model.", name.decode())
    return ids.index(id)


MESSAGES_MODELS = MessagesModels()
