"""What is asked of each SDK: what the stand-in plays, and what has to come out at both ends."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from gemproxy.demo.spelling import canonical
from testing.google import scenarios
from testing.google.recorded_request import ReceivedRequest
from testing.google.scenarios import Scenario

PNG = base64.b64encode(
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0\x1f\x15\xc4\x89"
).decode()
_CITIES = ("Rome", "Oslo")
_SIGNATURE = base64.b64encode(b"a signature").decode()


@frozen
class Feature:
    """
    @ivar meaning: what the client does, as the page says it.
    @ivar plays: what the stand-in answers.
    @ivar check: told what the client made of the answers, and what Google was asked.
    """

    meaning: str
    plays: Sequence[Scenario]
    check: Callable[[Any, Sequence[ReceivedRequest]], None]


def _answer(result: Any, asked: Sequence[ReceivedRequest]) -> None:
    [request] = asked
    assert result == "Hi there."
    assert request.texts == [("user", "Hello")]
    # pydantic-ai says more.
    instruction = canonical(request.body)["systemInstruction"]["parts"]
    assert instruction[-1]["text"].endswith("Be brief.")


def _stream(result: Any, asked: Sequence[ReceivedRequest]) -> None:
    # Pieces that come together may be joined.
    assert len([text for text in result if text]) > 1
    assert "".join(result) == "One, two, three."
    assert [request.method for request in asked] == ["streamGenerateContent"]


def _tools(result: Any, asked: Sequence[ReceivedRequest]) -> None:
    assert result == "Sunny in both."
    first, second = asked
    [tools] = canonical(first.body)["tools"]
    assert [function["name"] for function in tools["functionDeclarations"]] == ["weather"]
    _, model, results = canonical(second.contents)
    calls = [part for part in model["parts"] if "functionCall" in part]
    assert [call["functionCall"]["args"] for call in calls] == [{"city": city} for city in _CITIES]
    # Gemini 3 takes no call back whose signature is lost.
    assert calls[0]["thoughtSignature"] == _SIGNATURE
    responses = [json.dumps(part["functionResponse"]["response"]) for part in results["parts"]]
    assert len(responses) == len(_CITIES)
    for city, response in zip(_CITIES, responses, strict=True):
        assert f"Sunny in {city}." in response


def _structured(result: Any, asked: Sequence[ReceivedRequest]) -> None:
    [request] = asked
    assert result == {"result": 4}
    config = canonical(request.generation_config)
    assert config["responseMimeType"] == "application/json"
    schema = config.get("responseJsonSchema") or config["responseSchema"]
    assert schema["properties"]["result"]["type"].lower() == "integer"


def _thoughts(result: Any, asked: Sequence[ReceivedRequest]) -> None:
    [request] = asked
    assert result == ["Let me see.", "It is 4."]
    assert canonical(request.generation_config)["thinkingConfig"]["includeThoughts"] is True


def _picture(result: Any, asked: Sequence[ReceivedRequest]) -> None:
    [request] = asked
    assert result == "A dot."
    pictures = [part["inlineData"] for part in canonical(request.parts) if "inlineData" in part]
    assert [(each["mimeType"], each["data"]) for each in pictures] == [("image/png", PNG)]


def _error(result: Any, asked: Sequence[ReceivedRequest]) -> None:
    assert len(asked) == 1, "it asked again"
    assert "The stand-in does not like this." in result


FEATURES = {
    "answer": Feature(
        "an answer, with a system instruction",
        [scenarios.answer("Hi ", "there.")],
        _answer,
    ),
    "stream": Feature(
        "a stream, piece by piece",
        [scenarios.answer("One, ", "two, ", "three.", pace=0.2)],
        _stream,
    ),
    "tools": Feature(
        "a loop of tools: two calls at once, their results, and the answer",
        [
            scenarios.answer(
                [
                    scenarios.call("weather", {"city": _CITIES[0]})
                    | {"thoughtSignature": _SIGNATURE},
                    scenarios.call("weather", {"city": _CITIES[1]}),
                ]
            ),
            scenarios.answer("Sunny in both."),
        ],
        _tools,
    ),
    "structured": Feature(
        "structured output, by a schema",
        [scenarios.answer('{"resu', 'lt": 4}')],
        _structured,
    ),
    "thoughts": Feature(
        "the model's thoughts, apart from its answer",
        [scenarios.thinking("Let me see.", "It is 4.")],
        _thoughts,
    ),
    "picture": Feature("a picture in the question", [scenarios.answer("A dot.")], _picture),
    "error": Feature(
        "an error that says why",
        [scenarios.error(400, "The stand-in does not like this.")],
        _error,
    ),
}
