"""litellm, as a library."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import litellm
from pydantic import BaseModel
from serve import CITY, PICTURE, SYSTEM, serve, weather, words_of_error
from set_litellm_anthropic import settings as anthropic
from set_litellm_chat import settings as chat
from set_litellm_google import settings as google

WEATHER = {"name": "weather", "description": "Tells the weather.", "parameters": CITY}


class Answer(BaseModel):
    result: int


def features(settings: Any, thinking: Any) -> dict[str, Callable[[], Any]]:
    def ask(messages: Any, **fields: Any) -> Any:
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return litellm.completion(**settings, messages=messages, **fields)

    def answer() -> Any:
        system = {"role": "system", "content": SYSTEM}
        answered = ask([system, {"role": "user", "content": "Hello"}])
        return answered.choices[0].message.content

    def stream() -> Any:
        return [chunk.choices[0].delta.content or "" for chunk in ask("Count", stream=True)]

    def tools() -> Any:
        messages: list[Any] = [{"role": "user", "content": "Weather?"}]
        while True:
            tools = [{"type": "function", "function": WEATHER}]
            message = ask(messages, tools=tools).choices[0].message
            if not message.tool_calls:
                return message.content
            messages.append(message)
            for call in message.tool_calls:
                told = weather(**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": told})

    def structured() -> Any:
        answered = ask("2 + 2", response_format=Answer)
        return json.loads(answered.choices[0].message.content)

    def thoughts() -> Any:
        message = ask("2 + 2", **thinking).choices[0].message
        return [message.reasoning_content, message.content]

    def picture() -> Any:
        content = [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": PICTURE}},
        ]
        return ask([{"role": "user", "content": content}]).choices[0].message.content

    return {
        "answer": answer,
        "stream": stream,
        "tools": tools,
        "structured": structured,
        "thoughts": thoughts,
        "picture": picture,
        "error": lambda: words_of_error(lambda: ask("Hello")),
    }


BUDGET = {"type": "enabled", "budget_tokens": 2000}

serve(
    {
        "litellm, chat": features(chat, {"reasoning_effort": "low"}),
        "litellm, Anthropic": features(
            anthropic, {"thinking": BUDGET, "allowed_openai_params": ["thinking"]}
        ),
        "litellm, Google": features(google, {"reasoning_effort": "low"}),
    }
)
