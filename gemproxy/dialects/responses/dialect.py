"""OpenAI's Responses API."""

from __future__ import annotations

from attrs import frozen

from gemproxy.chat.errors import ChatError
from gemproxy.chat.form import CHAT_FORM, ErrorResponse
from gemproxy.dialects.dialect import Counting, DialectRequest, Translation
from gemproxy.dialects.responses.answer import ResponseBuilder, ResponsesForm
from gemproxy.dialects.responses.request import read_request

_PATH = b"/v1/responses"


@frozen
class Responses:
    """The dialect."""

    name = "responses"
    rules = ("/v1/responses",)

    def owns(self, path: bytes) -> bool:
        return path == _PATH or path.startswith(_PATH + b"/")

    def error(self, error: ChatError) -> ErrorResponse:
        return CHAT_FORM.error(error)

    def translate(self, request: DialectRequest) -> Translation:
        asked = read_request(request)
        builder = ResponseBuilder(request.id, request.now, asked, request.seal)
        form = ResponsesForm(builder, asked.ignored)
        return Translation((asked.chat,), form, record=builder.record)


RESPONSES = Responses()

RESPONSES_COUNTING = Counting(
    "/v1/responses/input_tokens",
    RESPONSES,
    lambda number: {"object": "response.input_tokens", "input_tokens": number},
)
