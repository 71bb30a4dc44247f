"""From a twisted.web request to the record of it."""

from __future__ import annotations

from typing import Any

import orjson
from twisted.web.server import Request

from testing.google.recorded_request import ReceivedRequest


def _json_object(raw: bytes) -> dict[str, Any] | None:
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, dict) else None


def receive(
    request: Request, number: int, time: float, *, version: str, model: str, method: str
) -> ReceivedRequest:
    """Everything that is worth remembering; the body is read here."""
    raw = request.content.read() if request.content is not None else b""
    query = {name.decode(): values[-1].decode() for name, values in (request.args or {}).items()}
    headers = {
        name.decode("latin-1").lower(): b", ".join(values).decode("latin-1")
        for name, values in request.requestHeaders.getAllRawHeaders()
    }
    return ReceivedRequest(
        number=number,
        method=method,
        model=model,
        version=version,
        path=request.path.decode("latin-1"),
        query=query,
        headers=headers,
        raw=raw,
        body=_json_object(raw),
        time=time,
    )
