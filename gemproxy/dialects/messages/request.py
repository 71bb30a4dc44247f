"""A Messages request as one of chat completions."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from gemproxy.chat.errors import bad_request
from gemproxy.chat.request import ChatRequest, parse_chat_request, request_of
from gemproxy.chat.shapes import as_object
from gemproxy.dialects.dialect import DialectRequest
from gemproxy.dialects.messages.display import Display
from gemproxy.dialects.messages.errors import UNSUPPORTED_THREAD
from gemproxy.dialects.messages.history import History
from gemproxy.dialects.messages.tools import read_tools

Json = dict[str, Any]

_SAME = ("temperature", "top_k", "top_p")
_READ = frozenset(
    {"max_tokens", "messages", "model", "output_config", "output_format", "stop_sequences"}
    | {"stream", "system", "thinking", "tool_choice", "tools", *_SAME}
)
# Nothing of the answer depends on them.
_WITHOUT_EFFECT = frozenset(
    {"anthropic_beta", "anthropic_version", "betas", "cache_control", "diagnostics"}
    | {"inference_geo", "metadata", "service_tier", "speed", "stream_options", "user_profile_id"}
    | {"workspace_id"}
)
_EFFORTS = ("minimal", "low", "medium", "high", "xhigh", "max")
# The efforts of budgets of up to so many tokens.
_BUDGETS = ((4096, "low"), (16384, "medium"))


@frozen
class MessagesRequest:
    """
    @ivar chat: what to ask.
    @ivar display: how much of its thinking the answer shows.
    @ivar stops: texts that end the answer.
    @ivar searches: whether the model may search the web.
    @ivar ignored: the names of what is left out.
    """

    chat: ChatRequest
    display: Display
    stops: tuple[str, ...]
    searches: bool
    ignored: tuple[str, ...]


def read_request(request: DialectRequest) -> MessagesRequest:
    """@raise ChatError: 400, the request cannot be understood; the error names the field."""
    given = parse_chat_request(request.raw, request.headers)
    sent = given.body
    if sent.get("thread") is not None:
        # The rest of the conversation would be missing.
        raise bad_request(
            "Threads are not kept here: send the whole conversation, without 'thread'.",
            "thread",
            UNSUPPORTED_THREAD,
        )
    history = History(request.seal)
    history.add_system(sent.get("system"), "system")
    messages = sent.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_request("'messages' must be a non-empty list.", "messages")
    for number, message in enumerate(messages):
        history.add(message, f"messages[{number}]")
    tools = read_tools(sent.get("tools"), sent.get("tool_choice"), request.has_hosted_tools)
    settings, display = _thinking(sent, request.has_hosted_tools)
    body: Json = {"model": given.model, "messages": history.messages}
    body |= {name: sent[name] for name in _SAME if sent.get(name) is not None}
    if (most := sent.get("max_tokens")) is not None:
        # With 0 Anthropic fills its cache; chat completions end with one token at least.
        body["max_tokens"] = most or 1
    body |= settings | tools.fields | _format(sent)
    chat = request_of(body, given.model, given.stream, given.headers)
    others = sent.keys() - _READ - _WITHOUT_EFFECT
    ignored = (*tools.ignored, *sorted(name for name in others if sent[name]))
    return MessagesRequest(chat, display, _stops(sent), tools.searches, ignored)


def _stops(sent: Json) -> tuple[str, ...]:
    value = sent.get("stop_sequences")
    sequences = [] if value is None else value
    if not isinstance(sequences, list) or not all(isinstance(each, str) for each in sequences):
        raise bad_request("'stop_sequences' must be a list of strings.", "stop_sequences")
    return tuple(filter(None, dict.fromkeys(sequences)))


def _format(sent: Json) -> Json:
    """The JSON that is wanted; C{output_format} was the field of the beta."""
    given = as_object(sent.get("output_config")).get("format") or sent.get("output_format")
    if given is None:
        return {}
    if not isinstance(given, dict) or given.get("type") != "json_schema":
        raise bad_request(
            "'output_config.format.type' must be 'json_schema'.", "output_config.format"
        )
    schema = {"name": "answer", "schema": given.get("schema"), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _thinking(sent: Json, takes_budgets: bool) -> tuple[Json, Display]:
    """
    @param takes_budgets: whether the amount can be told as a number of tokens.
    @raise ChatError: 400, it is invalid.
    """
    effort = as_object(sent.get("output_config")).get("effort")
    if effort is not None and effort not in _EFFORTS:
        raise bad_request(
            f"'output_config.effort' must be one of {', '.join(_EFFORTS)}.", "output_config.effort"
        )
    thinking = as_object(sent.get("thinking"))
    kind = thinking.get("type")
    settings: Json = {} if effort is None else {"reasoning_effort": effort}
    if kind is None:
        return settings, Display.HIDDEN
    if kind == "disabled":
        return {"reasoning_effort": "none"}, Display.HIDDEN
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int) or isinstance(budget, bool) or budget < 1:
            raise bad_request(
                "'thinking.budget_tokens' must be a positive integer.", "thinking.budget_tokens"
            )
        nearest = next((name for most, name in _BUDGETS if budget <= most), "high")
        settings.setdefault("reasoning_effort", nearest)
        if takes_budgets:
            settings["google"] = {"thinking_config": {"thinking_budget": budget}}
    is_omitted = thinking.get("display") == Display.OMITTED.value
    return settings, Display.OMITTED if is_omitted else Display.SHOWN
