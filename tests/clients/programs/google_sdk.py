"""google-genai, with its automatic calls of functions."""

from __future__ import annotations

import base64
from typing import Any

from google.genai import types
from pydantic import BaseModel
from serve import MODEL, PNG, SYSTEM, serve, weather, words_of_error
from set_google_genai_python import client


class Answer(BaseModel):
    result: int


def ask(contents: Any, **config: Any) -> Any:
    return client.models.generate_content(model=MODEL, contents=contents, config=config)


def stream() -> Any:
    pieces = client.models.generate_content_stream(model=MODEL, contents="Count")
    return [piece.text or "" for piece in pieces]


def structured() -> Any:
    wanted = {"response_mime_type": "application/json", "response_schema": Answer}
    return ask("2 + 2", **wanted).parsed.model_dump()


def thoughts() -> Any:
    parts = ask("2 + 2", thinking_config={"include_thoughts": True}).candidates[0].content.parts
    return [
        "".join(part.text for part in parts if part.thought),
        "".join(part.text for part in parts if not part.thought),
    ]


def picture() -> Any:
    part = types.Part.from_bytes(data=base64.b64decode(PNG), mime_type="image/png")
    return ask(["What is it?", part]).text


serve(
    {
        "google-genai, Python": {
            "answer": lambda: ask("Hello", system_instruction=SYSTEM).text,
            "stream": stream,
            "tools": lambda: ask("Weather?", tools=[weather]).text,
            "structured": structured,
            "thoughts": thoughts,
            "picture": picture,
            "error": lambda: words_of_error(lambda: ask("Hello")),
        }
    }
)
