"""OpenAI's SDK: chat completions with its run loop written by hand, and the Responses API."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel
from serve import CITY, MODEL, PICTURE, SYSTEM, serve, weather, words_of_error
from set_openai_python_chat import client as chat
from set_openai_python_responses import client as responses

WEATHER = {"name": "weather", "description": "Tells the weather.", "parameters": CITY}


class Answer(BaseModel):
    result: int


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def complete(messages: list[Any], **fields: Any) -> Any:
    return chat.chat.completions.create(model=MODEL, messages=messages, **fields)


def chat_answer() -> Any:
    messages = [{"role": "system", "content": SYSTEM}, *user("Hello")]
    return complete(messages).choices[0].message.content


def chat_stream() -> Any:
    with chat.chat.completions.stream(model=MODEL, messages=user("Count")) as events:
        return [event.delta for event in events if event.type == "content.delta"]


def chat_tools() -> Any:
    tools: Any = [{"type": "function", "function": WEATHER}]
    messages = user("Weather?")
    while True:
        message = complete(messages, tools=tools).choices[0].message
        if not message.tool_calls:
            return message.content
        messages.append(message)
        for call in message.tool_calls:
            told = weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": told})


def chat_structured() -> Any:
    parsed = chat.chat.completions.parse(
        model=MODEL, messages=user("2 + 2"), response_format=Answer
    )
    return parsed.choices[0].message.parsed.model_dump()


def chat_thoughts() -> Any:
    message = complete(user("2 + 2"), reasoning_effort="low").choices[0].message
    return [message.reasoning_content, message.content]


def chat_picture() -> Any:
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": PICTURE}},
    ]
    return complete([{"role": "user", "content": content}]).choices[0].message.content


def respond(input: Any, **fields: Any) -> Any:
    return responses.responses.create(model=MODEL, input=input, **fields)


def responses_stream() -> Any:
    with responses.responses.stream(model=MODEL, input="Count") as events:
        deltas = [each.delta for each in events if each.type == "response.output_text.delta"]
        assert events.get_final_response().output_text == "".join(deltas)
        return deltas


def responses_tools() -> Any:
    tools: Any = [{"type": "function", "strict": True, **WEATHER}]
    input = user("Weather?")
    while True:
        response = respond(input, tools=tools, include=["reasoning.encrypted_content"])
        calls = [item for item in response.output if item.type == "function_call"]
        if not calls:
            return response.output_text
        input += response.output
        for call in calls:
            told = weather(**json.loads(call.arguments))
            input.append({"type": "function_call_output", "call_id": call.call_id, "output": told})


def responses_structured() -> Any:
    parsed = responses.responses.parse(model=MODEL, input="2 + 2", text_format=Answer)
    return parsed.output_parsed.model_dump()


def responses_thoughts() -> Any:
    response = respond("2 + 2", reasoning={"effort": "low", "summary": "auto"})
    return [response.output[0].summary[0].text, response.output_text]


def responses_picture() -> Any:
    content = [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": PICTURE},
    ]
    return respond([{"role": "user", "content": content}]).output_text


serve(
    {
        "openai-python, chat": {
            "answer": chat_answer,
            "stream": chat_stream,
            "tools": chat_tools,
            "structured": chat_structured,
            "thoughts": chat_thoughts,
            "picture": chat_picture,
            "error": lambda: words_of_error(lambda: complete(user("Hello"))),
        },
        "openai-python, Responses": {
            "answer": lambda: respond("Hello", instructions=SYSTEM).output_text,
            "stream": responses_stream,
            "tools": responses_tools,
            "structured": responses_structured,
            "thoughts": responses_thoughts,
            "picture": responses_picture,
            "error": lambda: words_of_error(lambda: respond("Hello")),
        },
    }
)
