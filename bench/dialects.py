"""What translating a dialect costs over chat completions: all of them in the same rounds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from attrs import frozen

from bench.answers import STAMP, Spec, WrongAnswer
from bench.contenders import gemproxy_environment, start_gemproxy
from bench.load import CLIENT_KEY, Connection, Received
from bench.numbers import Measures
from testing.processes import Running, free_port

_ANSWERS = 150
_SHORT = Spec(20)
_LONG = Spec(400)
_LONG_ANSWERS = 30
# Its first chunk comes alone.
_PACED = Spec(3, 40, 5)
_PROMPT = "What does the quick brown fox do? " * 4

# The upstream is said to speak nothing but chat completions.
_CONFIG = """\
[[upstream]]
name = "newapi"
url = "http://127.0.0.1:{upstream}"
dialects = []
"""


@frozen
class Spoken:
    """
    A dialect as a client speaks it.

    @ivar path: may have the model and the method in it.
    @ivar fields: of its requests, beside the model and whether to stream.
    """

    path: str
    fields: dict[str, Any]

    def request(self, port: int, spec: Spec, stream: bool) -> bytes:
        own = {} if "{" in self.path else {"model": spec.model, "stream": stream}
        content = json.dumps(own | self.fields).encode()
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        path = self.path.format(model=spec.model, method=method)
        head = (
            f"POST {path} HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{port}\r\n"
            "Content-Type: application/json\r\n"
            "anthropic-version: 2023-06-01\r\n"
            f"Authorization: Bearer {CLIENT_KEY}\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content


_MESSAGES = [{"role": "user", "content": _PROMPT}]
_CONTENTS = [{"role": "user", "parts": [{"text": _PROMPT}]}]
DIALECTS = {
    "chat": Spoken("/v1/chat/completions", {"messages": _MESSAGES}),
    "completions": Spoken("/v1/completions", {"prompt": _PROMPT}),
    "responses": Spoken("/v1/responses", {"input": _PROMPT}),
    "messages": Spoken("/v1/messages", {"messages": _MESSAGES, "max_tokens": 1000}),
    "native": Spoken("/v1beta/models/{model}:{method}", {"contents": _CONTENTS}),
}


def start(
    folder: Path,
    upstream: int,
    more: str = "",
    environ: Mapping[str, str] = {},
    **options: object,
) -> tuple[Running, int]:
    """
    A daemon in front of an upstream, and its port.

    @param more: the rest of its configuration file.
    @param environ: variables besides those that each has.
    """
    environ = gemproxy_environment(folder) | dict(environ)
    config = folder / "gemproxy.toml"
    config.write_text(_CONFIG.format(upstream=upstream) + more)
    port = free_port()
    running = start_gemproxy(
        folder,
        environ,
        config=config,
        port=free_port(),
        stream_port=port,
        google_gemini_base_url="http://127.0.0.1:9",
        **options,
    )
    running.until_listening(port)
    return running, port


async def measure(running: Running, port: int, dialect: str) -> Measures:
    """One round of a dialect."""
    spoken = DIALECTS[dialect]
    client = await Connection.open(port)

    async def ask(spec: Spec, stream: bool, times: int) -> tuple[float, list[Received]]:
        """Milliseconds of CPU for an answer, and the answers."""
        request = spoken.request(port, spec, stream)
        for _ in range(3):
            await client.ask(request)
        before = running.cost().cpu
        answers = [await client.ask(request) for _ in range(times)]
        spent = running.cost().cpu - before
        for answer in answers:
            _check(answer, spec)
        return spent / times * 1000, answers

    document, _ = await ask(_SHORT, False, _ANSWERS)
    streamed, _ = await ask(_SHORT, True, _ANSWERS)
    long, _ = await ask(_LONG, True, _LONG_ANSWERS)
    _, answers = await ask(_PACED, True, _ANSWERS)
    client.close()
    waits = [answer.first - answer.asked for answer in answers if answer.first is not None]
    return {
        "answer_ms": document,
        "streamed_answer_ms": streamed,
        "chunk_us": (long - streamed) / (_LONG.chunks - _SHORT.chunks) * 1000,
        "first_ms": median(waits) * 1000,
    }


def _check(answer: Received, spec: Spec) -> None:
    """@raise WrongAnswer: not all of it came."""
    numbers = {int(number) for _, number in STAMP.findall(answer.body())}
    if numbers != set(range(spec.chunks)):
        raise WrongAnswer(f"{len(numbers)} of {spec.chunks} pieces of text")
