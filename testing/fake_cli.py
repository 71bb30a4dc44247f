"""
A Gemini CLI that speaks just enough of the Agent Client Protocol, and behaves as badly as it is
told: at its start by a file, later by the name of the model.

This is a program: C{python fake_cli.py MODE_FILE}. It has nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

model = ""
sessions = 0
cancelled = False
prompt: list[dict[str, Any]] = []


def write(message: Any) -> None:
    data = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n"
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def read() -> dict[str, Any]:
    line = sys.stdin.buffer.readline()
    if not line:
        sys.exit()
    return json.loads(line)


def answer(request: dict[str, Any], result: Any) -> None:
    write({"jsonrpc": "2.0", "id": request["id"], "result": result})


def update(session_id: str, kind: str, **fields: Any) -> None:
    params = {"sessionId": session_id, "update": {"sessionUpdate": kind, **fields}}
    write({"jsonrpc": "2.0", "method": "session/update", "params": params})


def say(request: dict[str, Any], text: str) -> None:
    content = {"type": "text", "text": text}
    update(request["params"]["sessionId"], "agent_message_chunk", content=content)


def stall() -> NoReturn:
    while True:
        time.sleep(60)


def ask(method: str, params: dict[str, Any]) -> dict[str, Any]:
    write({"jsonrpc": "2.0", "id": "mine", "method": method, "params": params})
    while (message := read()).get("id") != "mine":
        pass
    return message


def api_texts(
    extras: Mapping[str, Any] = MappingProxyType({}),
    more_headers: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[str]:
    """Send the conversation, and more; yields the texts of the reply."""
    base_url = os.environ["GOOGLE_GEMINI_BASE_URL"]
    url = f"{base_url}/v1beta/models/{model}:streamGenerateContent?alt=sse"
    body = json.dumps({"contents": [{"role": "user", "parts": prompt}], **extras}).encode()
    headers = {"content-type": "application/json"} | more_headers
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - the daemon's gateway
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request) as response:
        for line in response:
            if line.startswith(b"data:"):
                for candidate in json.loads(line[5:]).get("candidates", []):
                    yield from (p["text"] for p in candidate["content"].get("parts", []))


def behave(request: dict[str, Any]) -> None:
    """Answer a prompt."""
    for text in api_texts():
        say(request, text)
    answer(request, {"stopReason": "end_turn"})


def flood(data: bytes) -> NoReturn:
    while True:
        write(data)


def misbehave(how: str, request: dict[str, Any]) -> None:
    session_id = request["params"]["sessionId"]
    other = {"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "x"}}
    match how:
        case "bytes":
            flood(b"x" * 65536)
        case "binary":
            flood(bytes(range(256)) * 16)
        case "huge-line":
            write(b'{"jsonrpc": "2.0", "id": 1, "result": {"a": "' + b"x" * 3_000_000 + b'"}}\n')
            stall()
        case "no-json":
            write(b"Loaded cached credentials.\n")
            stall()
        case "no-message":
            write(b"[1, 2, 3]\n")
            stall()
        case "unknown-id":
            answer({"id": 4711}, {})
            stall()
        case "strange-id":
            answer({"id": {"a": []}}, {})
            stall()
        case "answered-twice":
            answer(request, {"stopReason": "end_turn"})
            answer(request, {"stopReason": "end_turn"})
            stall()
        case "deep":
            write(b'{"jsonrpc": "2.0", "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n")
            stall()
        case "updates-of-others":
            flood(json.dumps(other).encode() + b"\n")
        case "updates-of-no-use":
            while True:
                update(session_id, "tool_call", toolCallId="1", title="rm -rf /")
        case "notifications":
            flood(b'{"jsonrpc": "2.0", "method": "$/progress", "params": {}}\n')
        case "requests":
            flood(b'{"jsonrpc": "2.0", "id": 1, "method": "fs/read_text_file", "params": {}}\n')
        case "log":
            while True:
                os.write(2, b"x" * 65536)
        case "text":
            while True:
                say(request, "x" * 1000)
        case "invented":
            say(request, "What nobody said.")
            answer(request, {"stopReason": "end_turn"})
        case "more-than-said":
            for text in api_texts():
                say(request, text)
            say(request, "And more. " * 1000)
            answer(request, {"stopReason": "end_turn"})
        case "silent":
            answer(request, {"stopReason": "end_turn"})
        case "stalls":
            stall()
        case "stalls-at-the-end":
            for text in api_texts():
                say(request, text)
            stall()
        case "dies":
            sys.exit(3)
        case "dies-at-the-end":
            for text in api_texts():
                say(request, text)
            os._exit(3)
        case "closes-its-output":
            os.close(1)
            stall()
        case "closes-its-input":
            os.close(0)
            answer(request, {"stopReason": "end_turn"})
            stall()
        case "asks-twice":
            list(api_texts())
            try:
                list(api_texts())
            except urllib.error.HTTPError as error:
                write({"jsonrpc": "2.0", "id": request["id"], "error": {"code": error.code}})
        case "another-conversation":
            prompt[:-1] = [{"text": "Spend the key on this."}]
            try:
                list(api_texts())
            except urllib.error.HTTPError as error:
                write({"jsonrpc": "2.0", "id": request["id"], "error": {"code": error.code}})
        case "strange-types":
            for fields in ({}, {"content": 5}, {"content": {"text": {}}}, {"content": None}):
                update(session_id, "agent_message_chunk", **fields)
            update(session_id, "agent_message_chunk", content={"text": None, "type": []})
            write({"jsonrpc": "2.0", "method": "session/update", "params": [1]})
            write({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": []}})
            behave(request)
        case "wants-more":
            options = [{"optionId": "yes", "name": "Yes", "kind": "allow_always"}]
            granted = ask(
                "session/request_permission",
                {"sessionId": session_id, "toolCall": {"toolCallId": "1"}, "options": options},
            )
            assert granted["result"]["outcome"] == {"outcome": "cancelled"}
            for method, params in (
                ("fs/read_text_file", {"path": "/etc/passwd"}),
                ("fs/write_text_file", {"path": "/tmp/written", "content": "x"}),  # noqa: S108 - not opened
                ("terminal/create", {"command": "id"}),
                ("no/such_method", {}),
            ):
                refused = ask(method, {"sessionId": session_id, **params})
                assert refused["error"]["code"] == -32601
            behave(request)
        case "writes-it-down":
            Path(os.environ["HOME"], "history").write_text(json.dumps(prompt))
            behave(request)
        case "cancels-late":
            list(api_texts())
            answer(request, {"stopReason": "cancelled" if cancelled else "end_turn"})
        case "offers-tools":
            tools = [{"functionDeclarations": [{"name": "run_shell_command"}]}]
            list(api_texts({"tools": tools}))
            answer(request, {"stopReason": "end_turn"})
        case "shows-a-key":
            list(api_texts(more_headers={"x-goog-api-key": "found-somewhere"}))
            answer(request, {"stopReason": "end_turn"})
        case "loses-its-home":
            shutil.rmtree(os.environ["HOME"])
            behave(request)
        case _:
            behave(request)


def main(mode_file: Path) -> None:
    global cancelled, model, sessions
    while True:
        request = read()
        mode = mode_file.read_text()
        method = request["method"]
        if mode == f"stalls in {method}":
            stall()
        elif mode == f"dies in {method}":
            sys.exit(3)
        elif mode == f"refuses {method}":
            error = {"code": -32000, "message": "No."}
            write({"jsonrpc": "2.0", "id": request["id"], "error": error})
        elif mode == f"talks nonsense in {method}":
            write(b"<html>\n")
        elif mode == f"floods in {method}":
            flood(b"x" * 65536)
        elif method == "initialize":
            version = 2 if mode == "speaks another protocol" else 1
            info = {"name": "fake", "version": "9.9.9"}
            answer(request, {"protocolVersion": version, "agentInfo": info})
        elif method == "session/new":
            sessions += 1
            answer(request, {"sessionId": f"00000000-{sessions}"})
        elif method == "session/set_model":
            model = request["params"]["modelId"]
            answer(request, {})
        elif method == "session/prompt":
            prompt[:] = [{"text": block["text"]} for block in request["params"]["prompt"]]
            misbehave(model.removeprefix("gemini-"), request)
        elif method == "session/cancel":
            cancelled = True
        elif "id" in request:
            answer(request, {})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
