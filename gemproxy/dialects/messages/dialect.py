"""Anthropic's Messages: docs.claude.com/en/api/messages."""

from __future__ import annotations

from attrs import frozen

from gemproxy.chat.errors import ChatError
from gemproxy.chat.form import ErrorResponse
from gemproxy.dialects.dialect import Counting, DialectRequest, Translation
from gemproxy.dialects.messages.answer import MessagesForm
from gemproxy.dialects.messages.errors import error_response
from gemproxy.dialects.messages.request import read_request

_PATH = b"/v1/messages"


@frozen
class Messages:
    """The dialect."""

    name = "messages"
    rules = ("/v1/messages",)

    def owns(self, path: bytes) -> bool:
        return path == _PATH or path.startswith(_PATH + b"/")

    def error(self, error: ChatError) -> ErrorResponse:
        return error_response(error)

    def translate(self, request: DialectRequest) -> Translation:
        read = read_request(request)
        form = MessagesForm(
            f"msg_{request.id}",
            read.chat.model,
            request.seal,
            read.display,
            read.searches,
            read.ignored,
        )
        return Translation((read.chat,), form, read.stops)


MESSAGES = Messages()
MESSAGES_COUNTING = Counting(
    "/v1/messages/count_tokens", MESSAGES, lambda count: {"input_tokens": count}
)
