"""Responses that are written whole: errors, and JSON documents."""

from __future__ import annotations

from typing import Any

from twisted.web.server import Request

from gemproxy.chat.errors import ChatError
from gemproxy.chat.jsontext import dumps


def send_error(request: Request, error: ChatError) -> None:
    """Send an error as the whole response."""
    content_type, body = error.body()
    request.setResponseCode(error.status, error.reason())
    request.setHeader(b"content-type", content_type)
    for name, value in error.headers().items():
        request.setHeader(name.encode(), value.encode())
    request.setHeader(b"content-length", str(len(body)).encode())
    request.write(body)


def send_json(request: Request, document: Any, status: int = 200) -> None:
    body = dumps(document)
    request.setResponseCode(status)
    request.setHeader(b"content-type", b"application/json")
    request.setHeader(b"content-length", str(len(body)).encode())
    request.write(body)
