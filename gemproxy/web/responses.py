"""Responses that are written whole: errors, and JSON documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.web.server import Request

from gemproxy.chat.errors import ChatError
from gemproxy.chat.form import ErrorForm
from gemproxy.chat.jsontext import dumps
from gemproxy.dialects.dialect import ModelsForm
from gemproxy.dialects.registry import error_form_at, models_form_at, models_form_for

_MODELS = b"/v1/models"


def send_error(request: Request, error: ChatError, form: ErrorForm | None = None) -> None:
    """
    Send an error as the whole response.

    @param form: its shape; None for that of the dialect that is spoken at the request's path.
    """
    form = form or _models_form_of(request) or error_form_at(request.path)
    answer = form.error(error)
    request.setResponseCode(answer.status, error.reason())
    request.setHeader(b"content-type", answer.content_type)
    for name, value in error.headers().items():
        request.setHeader(name.encode(), value.encode())
    request.setHeader(b"content-length", str(len(answer.body)).encode())
    request.write(answer.body)


def send_models(request: Request, models: Sequence[dict[str, Any]]) -> None:
    """
    Send a list of models in the shape that the client wants.

    @param models: OpenAI's model objects.
    @raise ChatError: 400, the request's query cannot be understood.
    """
    form = _models_form_of(request)
    if form is None:
        send_json(request, {"object": "list", "data": [_shown(model) for model in models]})
    else:
        send_json(request, form.listed(models, request.args or {}))


def send_model(request: Request, model: dict[str, Any]) -> None:
    """The same for one of them."""
    form = _models_form_of(request)
    send_json(request, _shown(model) if form is None else form.one(model))


def _shown(model: dict[str, Any]) -> dict[str, Any]:
    """A model object without what is for clients of Google's API."""
    return {key: value for key, value in model.items() if key != "google"}


def _models_form_of(request: Request) -> ModelsForm | None:
    if (form := models_form_at(request.path)) is not None:
        return form
    if not request.path.startswith(_MODELS):
        return None
    return models_form_for(lambda name: request.getHeader(name) is not None)


def send_json(request: Request, document: Any, status: int = 200) -> None:
    send_rendered(request, dumps(document), status)


def send_rendered(request: Request, body: bytes, status: int = 200) -> None:
    """@param body: a JSON document."""
    request.setResponseCode(status)
    request.setHeader(b"content-type", b"application/json")
    request.setHeader(b"content-length", str(len(body)).encode())
    request.write(body)
