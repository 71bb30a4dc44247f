"""The OpenAI Agents SDK, with its runner."""

from __future__ import annotations

import asyncio
from typing import Any

from agents import Agent, ModelSettings, Runner, function_tool
from openai.types.shared import Reasoning
from pydantic import BaseModel
from serve import PICTURE, SYSTEM, serve, words_of_error
from serve import weather as told
from set_openai_agents_sdk import model


class Answer(BaseModel):
    result: int


@function_tool
def weather(city: str) -> str:
    """Tells the weather."""
    return told(city)


def agent(**fields: Any) -> Agent[Any]:
    return Agent(name="assistant", model=model, **fields)


# Connections of the client belong to one loop.
loop = asyncio.new_event_loop()


def run(agent: Agent[Any], input: Any) -> Any:
    return loop.run_until_complete(Runner.run(agent, input))


def stream() -> Any:
    async def read() -> list[str]:
        running = Runner.run_streamed(agent(), "Count")
        return [
            event.data.delta
            async for event in running.stream_events()
            if event.type == "raw_response_event"
            and event.data.type == "response.output_text.delta"
        ]

    return loop.run_until_complete(read())


def thoughts() -> Any:
    settings = ModelSettings(reasoning=Reasoning(effort="low", summary="auto"))
    ran = run(agent(model_settings=settings), "2 + 2")
    reasoning = ran.new_items[0].raw_item
    return [reasoning.summary[0].text, ran.final_output]


def picture() -> Any:
    content = [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": PICTURE, "detail": "auto"},
    ]
    return run(agent(), [{"role": "user", "content": content}]).final_output


serve(
    {
        "OpenAI Agents SDK": {
            "answer": lambda: run(agent(instructions=SYSTEM), "Hello").final_output,
            "stream": stream,
            "tools": lambda: run(agent(tools=[weather]), "Weather?").final_output,
            "structured": lambda: run(agent(output_type=Answer), "2 + 2").final_output.model_dump(),
            "thoughts": thoughts,
            "picture": picture,
            "error": lambda: words_of_error(lambda: run(agent(), "Hello")),
        }
    }
)
