"""pydantic-ai's agents."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, NativeOutput
from pydantic_ai.messages import TextPart, ThinkingPart
from serve import PNG, SYSTEM, serve, weather, words_of_error
from set_pydantic_ai_anthropic import model as anthropic
from set_pydantic_ai_chat import model as chat
from set_pydantic_ai_google import model as google
from set_pydantic_ai_responses import model as responses


class Answer(BaseModel):
    """What the model fills in."""

    result: int


def stream(model: Any) -> Any:
    async def read() -> list[str]:
        async with Agent(model).run_stream("Count") as running:
            return [text async for text in running.stream_text(delta=True, debounce_by=None)]

    return asyncio.run(read())


def thoughts(model: Any, settings: Any) -> Any:
    parts = Agent(model, model_settings=settings).run_sync("2 + 2").new_messages()[-1].parts
    thought = [part.content for part in parts if isinstance(part, ThinkingPart)]
    return thought + [part.content for part in parts if isinstance(part, TextPart)]


def features(model: Any, thinking: Any) -> dict[str, Callable[[], Any]]:
    picture = BinaryContent(base64.b64decode(PNG), media_type="image/png")
    structured = Agent(model, output_type=NativeOutput(Answer))
    return {
        "answer": lambda: Agent(model, instructions=SYSTEM).run_sync("Hello").output,
        "stream": lambda: stream(model),
        "tools": lambda: Agent(model, tools=[weather]).run_sync("Weather?").output,
        "structured": lambda: structured.run_sync("2 + 2").output.model_dump(),
        "thoughts": lambda: thoughts(model, thinking),
        "picture": lambda: Agent(model).run_sync(["What is it?", picture]).output,
        "error": lambda: words_of_error(lambda: Agent(model).run_sync("Hello")),
    }


serve(
    {
        "pydantic-ai, chat": features(chat, {"openai_reasoning_effort": "low"}),
        "pydantic-ai, Responses": features(
            responses,
            {"openai_reasoning_effort": "low", "openai_reasoning_summary": "auto"},
        ),
        "pydantic-ai, Anthropic": features(
            anthropic,
            {"anthropic_thinking": {"type": "enabled", "budget_tokens": 2000}},
        ),
        "pydantic-ai, Google": features(
            google, {"google_thinking_config": {"include_thoughts": True}}
        ),
    }
)
