"""LangChain's chat models, alone and in an agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain.agents import create_agent
from langchain_core.tools import tool
from pydantic import BaseModel
from serve import PICTURE, SYSTEM, serve, words_of_error
from serve import weather as told
from set_langchain_anthropic import model as anthropic
from set_langchain_chat import model as chat
from set_langchain_google import model as google
from set_langchain_responses import model as responses


class Answer(BaseModel):
    """What the model fills in."""

    result: int


@tool
def weather(city: str) -> str:
    """Tells the weather."""
    return told(city)


def tools(model: Any) -> Any:
    agent = create_agent(model, [weather])
    return agent.invoke({"messages": [("user", "Weather?")]})["messages"][-1].text


def thoughts(model: Any) -> Any:
    blocks = model.invoke("2 + 2").content_blocks
    return [blocks[0]["reasoning"], blocks[1]["text"]]


def picture(model: Any) -> Any:
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": PICTURE}},
    ]
    return model.invoke([("user", content)]).text


def features(model: Any, thinking: Any, method: str) -> dict[str, Callable[[], Any]]:
    schema = model.with_structured_output(Answer, method=method)
    return {
        "answer": lambda: model.invoke([("system", SYSTEM), ("user", "Hello")]).text,
        "stream": lambda: [chunk.text for chunk in model.stream("Count")],
        "tools": lambda: tools(model),
        "structured": lambda: schema.invoke("2 + 2").model_dump(),
        "thoughts": lambda: thoughts(thinking),
        "picture": lambda: picture(model),
        "error": lambda: words_of_error(lambda: model.invoke("Hello")),
    }


serve(
    {
        "LangChain, chat": features(chat, None, "json_schema"),
        "LangChain, Responses": features(
            responses,
            responses.bind(reasoning={"effort": "low", "summary": "auto"}),
            "json_schema",
        ),
        "LangChain, Anthropic": features(
            anthropic,
            anthropic.bind(thinking={"type": "enabled", "budget_tokens": 2000}),
            "json_schema",
        ),
        "LangChain, Google": features(google, google.bind(include_thoughts=True), "json_schema"),
    }
)
