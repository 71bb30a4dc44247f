"""Responses that are written whole: errors, and JSON documents."""

from __future__ import annotations

from typing import Any

from twisted.web.server import Request

from gemproxy.chat.errors import ChatError
from gemproxy.chat.form import ErrorForm
from gemproxy.chat.jsontext import dumps
from gemproxy.dialects.registry import error_form_at


def send_error(request: Request, error: ChatError, form: ErrorForm | None = None) -> None:
    """
    Send an error as the whole response.

    @param form: its shape; None for that of the dialect that is spoken at the request's path.
    """
    answer = (form or error_form_at(request.path)).error(error)
    request.setResponseCode(answer.status, error.reason())
    request.setHeader(b"content-type", answer.content_type)
    for name, value in error.headers().items():
        request.setHeader(name.encode(), value.encode())
    request.setHeader(b"content-length", str(len(answer.body)).encode())
    request.write(answer.body)


def send_json(request: Request, document: Any, status: int = 200) -> None:
    body = dumps(document)
    request.setResponseCode(status)
    request.setHeader(b"content-type", b"application/json")
    request.setHeader(b"content-length", str(len(body)).encode())
    request.write(body)
