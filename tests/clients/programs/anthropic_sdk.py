"""Anthropic's SDK, with its helpers for streams, tools and structured output."""

from __future__ import annotations

from typing import Any

from anthropic import beta_tool
from pydantic import BaseModel
from serve import MODEL, PNG, SYSTEM, serve, words_of_error
from serve import weather as told
from set_anthropic_python import client


class Answer(BaseModel):
    result: int


@beta_tool
def weather(city: str) -> str:
    """Tells the weather."""
    return told(city)


def asking(content: Any, **fields: Any) -> Any:
    messages = [{"role": "user", "content": content}]
    return {"model": MODEL, "max_tokens": 5000, "messages": messages} | fields


def answer() -> Any:
    return client.messages.create(**asking("Hello", system=SYSTEM)).content[0].text


def stream() -> Any:
    with client.messages.stream(**asking("Count")) as events:
        return list(events.text_stream)


def tools() -> Any:
    thinking = {"type": "adaptive"}
    runner = client.beta.messages.tool_runner(
        **asking("Weather?", tools=[weather], thinking=thinking)
    )
    return runner.until_done().content[-1].text


def structured() -> Any:
    return client.messages.parse(**asking("2 + 2", output_format=Answer)).parsed_output.model_dump()


def thoughts() -> Any:
    thinking = {"type": "enabled", "budget_tokens": 2000}
    content = client.messages.create(**asking("2 + 2", thinking=thinking)).content
    return [content[0].thinking, content[1].text]


def picture() -> Any:
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    content = [{"type": "text", "text": "What is it?"}, {"type": "image", "source": source}]
    return client.messages.create(**asking(content)).content[0].text


serve(
    {
        "anthropic-python": {
            "answer": answer,
            "stream": stream,
            "tools": tools,
            "structured": structured,
            "thoughts": thoughts,
            "picture": picture,
            "error": lambda: words_of_error(lambda: client.messages.create(**asking("Hello"))),
        }
    }
)
