"""What the demo answers to a request. Pure, so that it can be done in another process."""

from __future__ import annotations

from attrs import frozen

from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.shapes import as_object
from gemproxy.demo import rules
from gemproxy.demo.echo import prompt_length, responses
from gemproxy.demo.spelling import canonical
from gemproxy.demo.vectors import vectors


@frozen
class DemoAnswer:
    """
    @ivar status: the status code.
    @ivar document: the whole body; None if there are events instead.
    @ivar events: what is streamed, each as JSON.
    """

    status: int = 200
    document: bytes | None = None
    events: tuple[bytes, ...] = ()


def answer_to(model: str, method: str, raw: bytes) -> DemoAnswer:
    """
    Answer one request.

    @param method: what follows the model in the path.
    @param raw: the body.
    """
    try:
        body = canonical(loads(raw))
    except ValueError:
        body = None
    if method == "countTokens" and isinstance(body, dict):
        asked = as_object(body.get("generateContentRequest", body))
        return DemoAnswer(document=dumps({"totalTokens": prompt_length(asked)}))
    if method == "batchEmbedContents" and isinstance(body, dict):
        fault = rules.embedding_fault(body, model)
        return DemoAnswer(document=vectors(body)) if fault is None else _refused(fault)
    if method != "streamGenerateContent" or not isinstance(body, dict):
        return DemoAnswer(404, b"")
    if (fault := rules.fault(model, body)) is not None:
        return _refused(fault)
    return DemoAnswer(events=tuple(responses(model, body)))


def _refused(fault: str) -> DemoAnswer:
    error = {"code": 400, "message": fault, "status": "INVALID_ARGUMENT"}
    return DemoAnswer(400, dumps({"error": error}))
