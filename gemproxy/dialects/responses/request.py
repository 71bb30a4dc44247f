"""A Responses request as one of chat completions."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from gemproxy.chat.errors import bad_request
from gemproxy.chat.request import ChatRequest, parse_chat_request, request_of
from gemproxy.chat.shapes import as_object
from gemproxy.dialects.dialect import DialectRequest
from gemproxy.dialects.responses.history import History
from gemproxy.dialects.responses.kept import input_items
from gemproxy.dialects.responses.tools import Tools, chat_tool_choice, read_tools

Json = dict[str, Any]

# Fields with another name or shape in chat completions, and those that are read here.
_READ = frozenset(
    {
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "reasoning",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
    }
)
# Nothing of the answer depends on them.
_WITHOUT_EFFECT = frozenset(
    {
        "background",
        "client_metadata",
        "previous_response_id",
        "store",
        "stream_options",
        "truncation",
    }
)
# What OpenAI keeps for its clients.
_KEPT_ELSEWHERE = ("conversation", "prompt")
_LEFT_OUT = ("max_tool_calls",)
_NOT_PASSED = _READ | _WITHOUT_EFFECT | {*_KEPT_ELSEWHERE, *_LEFT_OUT}
_WITH_SIGNATURES = "reasoning.encrypted_content"


@frozen
class ResponsesRequest:
    """
    @ivar chat: what to ask.
    @ivar sent: the client's own fields.
    @ivar tools: its tools.
    @ivar ignored: the names of what is left out.
    @ivar wants_signatures: whether the client will bring back C{encrypted_content}.
    @ivar items: the whole input, with that of the response which the request continues; empty if
        the response is not to be kept.
    """

    chat: ChatRequest
    sent: Json
    tools: Tools
    ignored: tuple[str, ...]
    wants_signatures: bool
    items: tuple[Json, ...]


def read_request(request: DialectRequest) -> ResponsesRequest:
    """@raise ChatError: 400, the request cannot be understood; the error names the field."""
    given = parse_chat_request(request.raw, request.headers)
    sent = given.body
    for name in _KEPT_ELSEWHERE:
        if sent.get(name) is not None:
            raise bad_request(
                f"'{name}' is not supported: send all that the model is to know as 'input'.",
                name,
                "unsupported_parameter",
            )
    if sent.get("background"):
        raise bad_request("'background' is not supported.", "background", "unsupported_parameter")
    is_kept = request.keeps and sent.get("store") is not False
    before, items = input_items(sent, request)
    tools = read_tools(sent.get("tools"), request.has_hosted_tools)
    history = History(request.seal)
    history.add(_instructions(sent.get("instructions")), "instructions")
    history.add(before, "previous_response_id")
    history.add(items)
    body = {key: value for key, value in sent.items() if key not in _NOT_PASSED}
    body |= {"messages": history.messages} | _settings(sent)
    if tools.functions:
        body["tools"] = tools.functions
    else:
        # Without functions, some refuse it.
        body.pop("parallel_tool_calls", None)
    if (choice := chat_tool_choice(sent.get("tool_choice"), tools)) is not None:
        body["tool_choice"] = choice
    ignored = (
        *(name for name in _LEFT_OUT if sent.get(name) is not None),
        *tools.ignored,
        *history.ignored,
    )
    chat = request_of(body, given.model, given.stream, given.headers)
    include = sent.get("include")
    wants_signatures = isinstance(include, list) and _WITH_SIGNATURES in include
    return ResponsesRequest(
        chat, sent, tools, ignored, wants_signatures, (*before, *items) if is_kept else ()
    )


def _instructions(given: Any) -> list[Any]:
    if isinstance(given, str) and given:
        return [{"role": "system", "content": given}]
    if given and not isinstance(given, list):
        raise bad_request("'instructions' must be a string or a list of items.", "instructions")
    return given or []


def _settings(sent: Json) -> Json:
    settings: Json = {}
    if sent.get("max_output_tokens") is not None:
        settings["max_tokens"] = sent["max_output_tokens"]
    reasoning = _object(sent, "reasoning")
    if reasoning.get("effort") is not None:
        settings["reasoning_effort"] = reasoning["effort"]
    text = _object(sent, "text")
    if text.get("verbosity") is not None:
        settings["verbosity"] = text["verbosity"]
    if (form := _response_format(text.get("format"))) is not None:
        settings["response_format"] = form
    if sent.get("top_logprobs"):
        settings |= {"logprobs": True, "top_logprobs": sent["top_logprobs"]}
    return settings


def _object(sent: Json, name: str) -> Json:
    value = sent.get(name)
    if value is not None and not isinstance(value, dict):
        raise bad_request(f"'{name}' must be an object.", name)
    return as_object(value)


def _response_format(form: Any) -> Json | None:
    if form is None or as_object(form).get("type") == "text":
        return None
    if not isinstance(form, dict):
        raise bad_request("'text.format' must be an object.", "text.format")
    if form.get("type") != "json_schema":
        return form
    return {
        "type": "json_schema",
        "json_schema": {key: value for key, value in form.items() if key != "type"},
    }
