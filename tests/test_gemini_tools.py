"""Functions of the client, through the real CLI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from gemproxy.gemini.translate.names import gemini_name
from testing.google import scenarios
from tests.support import Product, Reply, chat

pytestmark = pytest.mark.both_engines

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Where, as in \u00abK\u00f6ln\u00bb"},
        "wait_for_previous": {"type": "boolean"},
        "deep": {"$ref": "#/$defs/x"},
    },
    "$defs": {"x": {"anyOf": [{"type": "null"}, {"enum": [1, "a"]}]}},
    "required": ["city"],
    "additionalProperties": False,
}


def tool(name: str = "get_weather", **more: Any) -> dict[str, Any]:
    function = {"name": name, "description": f"About {name}.", "parameters": SCHEMA}
    return {"type": "function", "function": function | more}


TOOLS = [tool(), tool("mcp_oai_time", strict=True), tool("run_shell_command"), tool("_a-b.c:d")]


def reply_of(reply: Reply) -> tuple[str, list[Any], str]:
    """Content, calls (the deltas put together where it was streamed) and finish reason."""
    if reply.headers["content-type"] == "application/json":
        choice = reply.json["choices"][0]
        message = choice["message"]
        calls = message.get("tool_calls") or []
        return message["content"] or "", calls, choice["finish_reason"]
    assert reply.data[-1] == "[DONE]"
    text, calls, reason = "", [], ""
    for chunk in reply.data[:-1]:
        (choice,) = chunk["choices"]
        assert not reason
        reason = choice["finish_reason"] or ""
        text += choice["delta"].get("content") or ""
        for delta in choice["delta"].get("tool_calls", ()):
            if delta["index"] == len(calls):
                calls.append({key: value for key, value in delta.items() if key != "index"})
            else:
                call = calls[delta["index"]]["function"]
                call["arguments"] += delta["function"]["arguments"]
    return text, calls, reason


def called(calls: list[Any]) -> list[tuple[str, Any]]:
    assert all(call["type"] == "function" for call in calls)
    return [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls]


@ensureDeferred
async def test_functions_are_declared_to_the_model_unchanged(product: Product) -> None:
    for ask in product.both_ports:
        for stream in (False, True):
            product.api.play(scenarios.answer("ok"))
            assert (await ask(chat("Hi", tools=TOOLS, stream=stream))).content == "ok"
    declared = [
        {
            "name": tool["function"]["name"],
            "description": tool["function"]["description"],
            "parametersJsonSchema": SCHEMA,
        }
        for tool in TOOLS
    ]
    for asked in product.asked:
        assert asked.body["tools"] == [{"functionDeclarations": declared}]
        assert "toolConfig" not in asked.body
    assert len(product.asked) == 4


@ensureDeferred
async def test_no_functions_are_declared_but_the_client_s(product: Product) -> None:
    product.api.play(scenarios.answer("ok"))
    await product.ask(chat("Hi"))
    assert "tools" not in product.asked[0].body


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (
            {"type": "function", "function": {"name": "mcp_oai_time"}},
            {"mode": "ANY", "allowedFunctionNames": ["mcp_oai_time"]},
        ),
    ],
)
@ensureDeferred
async def test_the_choice_of_functions_arrives(product: Product, choice: Any, config: Any) -> None:
    for stream in (False, True):
        product.api.play(scenarios.answer("ok"))
        reply = await product.ask(chat("Hi", tools=TOOLS, tool_choice=choice, stream=stream))
        assert reply.content == "ok"
    for asked in product.asked:
        assert asked.body["toolConfig"] == {"functionCallingConfig": config}
        assert len(asked.functions) == len(TOOLS)


@pytest.mark.parametrize(
    "choice", ["any", {"type": "function", "function": {"name": "unknown"}}, 1]
)
@ensureDeferred
async def test_a_malformed_tool_choice_is_a_bad_request(product: Product, choice: Any) -> None:
    reply = await product.ask(chat("Hi", tools=TOOLS, tool_choice=choice))
    assert (reply.status, reply.error["param"]) == (400, "tool_choice")
    assert not product.asked


ARGS = {"city": 'K\u00f6ln\u2028"\\', "wait_for_previous": True, "deep": [1, {"x": None}]}


@pytest.mark.parametrize(
    ("play", "text", "wanted"),
    [
        (scenarios.calls(("get_weather", ARGS)), "", [("get_weather", ARGS)]),
        (scenarios.calls("mcp_oai_time"), "", [("mcp_oai_time", {})]),
        (
            scenarios.calls(("get_weather", ARGS), "_a-b.c:d", ("get_weather", {"city": "b"})),
            "",
            [("get_weather", ARGS), ("_a-b.c:d", {}), ("get_weather", {"city": "b"})],
        ),
        (
            scenarios.answer([scenarios.call("a", {"n": 1})], [scenarios.call("b", {"n": 2})], ()),
            "",
            [("a", {"n": 1}), ("b", {"n": 2})],
        ),
        (
            scenarios.answer("Let me ", "see.", [scenarios.call("get_weather", ARGS)]),
            "Let me see.",
            [("get_weather", ARGS)],
        ),
        (
            scenarios.answer([scenarios.text("Let me see."), scenarios.call("get_weather", ARGS)]),
            "Let me see.",
            [("get_weather", ARGS)],
        ),
        (
            scenarios.thinking("Hm.", [scenarios.call("get_weather", ARGS)], "more"),
            "more",
            [("get_weather", ARGS)],
        ),
    ],
    ids=["one", "no arguments", "several", "chunks", "text before", "text beside", "thoughts"],
)
@ensureDeferred
async def test_calls_are_handed_to_the_client(
    product: Product, play: scenarios.Scenario, text: str, wanted: list[Any]
) -> None:
    for ask in product.both_ports:
        for stream in (False, True):
            product.api.play(play)
            content, calls, reason = reply_of(await ask(chat("Hi", tools=TOOLS, stream=stream)))
            assert (content, called(calls), reason) == (text, wanted, "tool_calls")
            ids = [call["id"] for call in calls]
            assert all(ids)
            assert len(set(ids)) == len(ids)
    await product.until_idle()
    assert len(product.asked) == 4


@ensureDeferred
async def test_calls_stream_as_deltas(product: Product) -> None:
    product.api.play(scenarios.answer("So:", [scenarios.call("a", {"n": 1}), scenarios.call("b")]))
    reply = await product.ask(chat("Hi", tools=TOOLS, stream=True))
    deltas = [chunk["choices"][0]["delta"] for chunk in reply.data[:-1]]
    first, second = (
        d["tool_calls"][0]["id"] for d in deltas if "id" in d.get("tool_calls", [{}])[0]
    )
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "So:"},
        *(
            {"tool_calls": [delta]}
            for index, id, name, arguments in ((0, first, "a", '{"n":1}'), (1, second, "b", "{}"))
            for delta in (
                {
                    "index": index,
                    "id": id,
                    "type": "function",
                    "function": {"name": name, "arguments": ""},
                },
                {"index": index, "function": {"arguments": arguments}},
            )
        ),
        {},
    ]


@ensureDeferred
async def test_one_call_alone_is_handed_on_where_no_more_are_wanted(product: Product) -> None:
    for stream in (False, True):
        product.api.play(scenarios.calls("a", "b"))
        body = chat("Hi", tools=TOOLS, parallel_tool_calls=False, stream=stream)
        _, calls, reason = reply_of(await product.ask(body))
        assert (called(calls), reason) == ([("a", {})], "tool_calls")


BUILT_IN = [
    ("run_shell_command", {"command": "touch MARK"}),
    ("write_file", {"file_path": "MARK", "content": "x"}),
    ("replace", {"file_path": "MARK", "old_string": "", "new_string": "x"}),
    ("read_file", {"file_path": "/etc/passwd"}),
    ("read_many_files", {"paths": ["/etc/passwd"]}),
    ("list_directory", {"path": "/"}),
    ("glob", {"pattern": "*"}),
    ("google_web_search", {"query": "x"}),
    ("web_fetch", {"prompt": "http://127.0.0.1/"}),
    ("save_memory", {"fact": "MARK"}),
    ("activate_skill", {"name": "x"}),
]


def files_in(folder: Path) -> set[Path]:
    """All but those that the CLI keeps of its sessions."""
    inside = {path.relative_to(folder) for path in folder.rglob("*")}
    return {path for path in inside if "tmp" not in path.parts}


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize(("name", "args"), BUILT_IN, ids=[name for name, _ in BUILT_IN])
@ensureDeferred
async def test_a_tool_of_the_cli_s_own_never_runs(
    product: Product, tmp_path: Path, name: str, args: dict[str, Any], declared: bool
) -> None:
    mark = str(tmp_path / "mark")
    args = {key: json.loads(json.dumps(args[key]).replace("MARK", mark)) for key in args}
    before = files_in(product.run_root)
    product.api.play(scenarios.answer("Let me.", [scenarios.call(name, args)]))
    more = {"tools": [tool(name)]} if declared else {}
    text, calls, reason = reply_of(await product.ask(chat("Hi", **more)))
    # It is the client's to judge.
    assert (text, called(calls), reason) == ("Let me.", [(name, args)], "tool_calls")
    await product.until_idle()
    assert not files_in(tmp_path)
    assert files_in(product.run_root) <= before
    assert len(product.asked) == 1


# Calls and results in the history


def call(id: str, name: str, arguments: str, **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    } | more


def result(id: str, content: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


HISTORY = [
    {"role": "user", "content": "Weather in A and B?"},
    {
        "role": "assistant",
        "content": "I look.",
        "reasoning_content": "Hm.",
        "tool_calls": [
            call("c1", "get_weather", '{"city": "A"}'),
            call("c2", "run_shell_command", ""),
        ],
    },
    result("c1", '{"celsius": 20}'),
    result("c2", [{"type": "text", "text": "/help"}]),
    {"role": "assistant", "content": None, "tool_calls": [call("c3", "f", "{}")]},
    result("c3", ""),
    {"role": "user", "content": "And?"},
]


def contents(*signatures: dict[str, Any]) -> list[Any]:
    """The history as native parts; signatures go with the first call of each turn."""
    first, second = signatures or ({}, {})
    return [
        {"role": "user", "parts": [{"text": "Weather in A and B?"}]},
        {
            "role": "model",
            "parts": [
                {"text": "I look."},
                {"functionCall": {"name": "get_weather", "args": {"city": "A"}, "id": "c1"}}
                | first,
                {"functionCall": {"name": "run_shell_command", "args": {}, "id": "c2"}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {
                    "functionResponse": {
                        "name": "get_weather",
                        "response": {"celsius": 20},
                        "id": "c1",
                    }
                },
                {
                    "functionResponse": {
                        "name": "run_shell_command",
                        "response": {"output": "/help"},
                        "id": "c2",
                    }
                },
            ],
        },
        {
            "role": "model",
            "parts": [{"functionCall": {"name": "f", "args": {}, "id": "c3"}} | second],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "f", "response": {"output": ""}, "id": "c3"}},
                {"text": "And?"},
            ],
        },
    ]


@ensureDeferred
async def test_calls_and_results_arrive_as_native_parts(product: Product) -> None:
    for ask in product.both_ports:
        for stream in (False, True):
            product.api.play(scenarios.answer("ok"))
            reply = await ask(chat(*HISTORY, tools=TOOLS, stream=stream))
            assert reply.content == "ok"
    assert [asked.contents for asked in product.asked] == [contents()] * 4


@ensureDeferred
async def test_the_newest_models_get_a_signature_with_each_step(product: Product) -> None:
    signature = {"thoughtSignature": "skip_thought_signature_validator"}
    product.api.play(scenarios.answer("ok"))
    assert (await product.ask(chat(*HISTORY, model="gemini-3-pro-preview"))).content == "ok"
    assert product.asked[0].contents == contents(signature, signature)


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_a_name_that_google_does_not_take_is_the_client_s_own(
    product: Product, stream: bool
) -> None:
    strange = {"type": "function", "function": {"name": "1. Get weather\u2026"}}
    product.api.play(scenarios.calls(gemini_name("1. Get weather\u2026")), scenarios.answer("ok"))
    _, calls, _ = reply_of(await product.ask(chat("Hi", tools=[strange], stream=stream)))
    assert calls[0]["function"]["name"] == "1. Get weather\u2026"
    history = ["Hi", {"role": "assistant", "tool_calls": calls}, result(calls[0]["id"], "x")]
    assert (await product.ask(chat(*history, tools=[strange]))).content == "ok"
    [declared] = product.asked[0].body["tools"][0]["functionDeclarations"]
    called = product.asked[1].contents[1]["parts"][0]["functionCall"]
    assert declared["name"] == called["name"] == gemini_name("1. Get weather\u2026")


@pytest.mark.parametrize("kept_by_client", [False, True])
@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_a_signature_comes_back_to_the_model(
    product: Product, stream: bool, kept_by_client: bool
) -> None:
    signed = scenarios.call("get_weather", ARGS) | {"thoughtSignature": "c2lnbmVk"}
    product.api.play(scenarios.answer([signed, scenarios.call("other")]), scenarios.answer("ok"))
    _, calls, _ = reply_of(
        await product.ask(chat("Hi", model="gemini-3-pro-preview", tools=TOOLS, stream=stream))
    )
    kept = calls[0]["extra_content"] if kept_by_client else calls[0].pop("extra_content")
    assert kept == {"google": {"thought_signature": "c2lnbmVk"}}
    history = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        *(result(call["id"], "x") for call in calls),
    ]
    assert (await product.ask(chat(*history, model="gemini-3-pro-preview"))).content == "ok"
    parts = product.asked[1].contents[1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == ["c2lnbmVk", None]
    assert [part["functionCall"]["args"] for part in parts] == [ARGS, {}]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "assistant", "tool_calls": "x"}, "messages[1].tool_calls"),
        ({"role": "assistant", "tool_calls": [{}]}, "messages[1].tool_calls[0].function.name"),
    ],
)
@ensureDeferred
async def test_a_history_that_makes_no_sense_is_a_bad_request(
    product: Product, message: Any, param: str
) -> None:
    reply = await product.ask(chat("Hi", message, "Go on"))
    assert (reply.status, reply.error["param"]) == (400, param)
    assert not product.asked


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_a_loop_of_three_turns_costs_three_requests_of_the_api(
    product: Product, stream: bool
) -> None:
    product.api.play(
        scenarios.calls(("get_weather", {"city": "A"}), ("get_weather", {"city": "B"})),
        scenarios.answer("Now the time.", [scenarios.call("mcp_oai_time")]),
        scenarios.answer("Sunny, at noon."),
    )
    messages: list[Any] = [{"role": "user", "content": "Weather and time?"}]
    wanted = [
        [("get_weather", {"city": "A"}), ("get_weather", {"city": "B"})],
        [("mcp_oai_time", {})],
        [],
    ]
    for number, expected in enumerate(wanted):
        body = chat(*messages, tools=TOOLS, stream=stream)
        text, calls, reason = reply_of(await product.ask(body))
        assert called(calls) == expected
        assert reason == ("tool_calls" if calls else "stop")
        assert len(product.asked) == number + 1
        messages.append({"role": "assistant", "content": text, "tool_calls": calls})
        messages += [result(call["id"], f"result of {call['id']}") for call in calls]
    assert text == "Sunny, at noon."
    ids = [call["id"] for message in messages for call in message.get("tool_calls", ())]
    assert len(set(ids)) == 3
    last = product.asked[-1].contents
    assert [turn["role"] for turn in last] == ["user", "model", "user", "model", "user"]
    parts = [part for turn in last for part in turn["parts"]]
    sent_calls = [part["functionCall"] for part in parts if "functionCall" in part]
    sent_results = [part["functionResponse"] for part in parts if "functionResponse" in part]
    assert [call["id"] for call in sent_calls] == [r["id"] for r in sent_results] == ids
    assert [r["response"] for r in sent_results] == [{"output": f"result of {id}"} for id in ids]
    assert [call["name"] for call in sent_calls] == [r["name"] for r in sent_results]
    await product.until_idle()
    assert len(product.asked) == 3
