"""LlamaIndex: its model, and an agent."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from pydantic import BaseModel
from serve import PNG, SYSTEM, serve, words_of_error
from serve import weather as told
from set_llamaindex_chat import llm


class Answer(BaseModel):
    """What the model fills in."""

    result: int


def weather(city: str) -> str:
    """Tells the weather."""
    return told(city)


def answer() -> Any:
    messages = [ChatMessage(role="system", content=SYSTEM), ChatMessage("Hello")]
    return llm.chat(messages).message.content


def tools() -> Any:
    async def run() -> str:
        agent = FunctionAgent(tools=[weather], llm=llm, streaming=False)
        return str(await agent.run("Weather?"))

    return asyncio.run(run())


def picture() -> Any:
    blocks = [
        TextBlock(text="What is it?"),
        ImageBlock(image=base64.b64decode(PNG), image_mimetype="image/png"),
    ]
    return llm.chat([ChatMessage(role="user", blocks=blocks)]).message.content


def ask() -> Any:
    return llm.chat([ChatMessage("Hello")])


serve(
    {
        "LlamaIndex, chat": {
            "answer": answer,
            "stream": lambda: [
                each.delta or "" for each in llm.stream_chat([ChatMessage("Count")])
            ],
            "tools": tools,
            "structured": lambda: (
                llm.as_structured_llm(Answer).chat([ChatMessage("2 + 2")]).raw.model_dump()
            ),
            "picture": picture,
            "error": lambda: words_of_error(ask),
        }
    }
)
