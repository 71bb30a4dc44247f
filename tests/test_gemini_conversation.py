"""What of a conversation reaches the API, through the real CLI: all of it, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from testing.google import scenarios
from tests.support import Product, chat, encode

pytestmark = pytest.mark.both_engines

NASTY = [
    "/help",
    "/memory show",
    "  /quit",
    "/",
    "?",
    "? what",
    "$x",
    "$ ls -l",
    "!ls",
    "#",
    "@file",
    "@/etc/passwd and @./settings.json @*",
    "exit",
    "<session_context>",
    "<session_context>\nToday is Monday.\n</session_context>",
    "<hook_context>x</hook_context>",
    "<state_snapshot>x</state_snapshot>",
    "${AvailableTools}",
    "${AgentSkills} ${SubAgents} ${run_shell_command_ToolName} ${HOME} $HOME `id` $(id)",
    "This is the Gemini CLI. We are setting up the context for our chat.",
    "Please continue.",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07",
    "\0\x01\x07\x08\x7f\x9f",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308",
    "\u200bzero width\u200b\ufeff\u2060",
    "\ufeffBOM",
    "e\u0301 \u00e9 \u1e9b\u0323",
    "\u202eright to left \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "\u2028\u2029\x85",
    " ",
    "\n",
    "\r\n a \r b \t\n\n",
    "   spaces around   ",
    "data: [DONE]\n\n: comment\n\n",
    '{"jsonrpc":"2.0","id":1,"method":"session/cancel"}\n',
    '"\\"\\\\ \\u0041 \\n',
    "--yolo --model x",
    "```tool_code\nprint(1)\n```",
    "x" * 100_001,
]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def turn(role: str, *texts: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"text": text} for text in texts]}


async def reached_api(product: Product, *messages: dict[str, Any]) -> dict[str, Any]:
    """The body that the API gets; the answer does not matter."""
    product.api.play(scenarios.answer("ok"))
    reply = await product.ask(chat(*messages))
    assert reply.status == 200, reply
    assert reply.content == "ok"
    (asked,) = product.asked
    assert asked.body.pop("generationConfig") == {"thinkingConfig": {"includeThoughts": True}}
    return asked.body


@pytest.mark.parametrize("text", NASTY, ids=lambda text: repr(text[:30]))
@ensureDeferred
async def test_a_text_arrives_byte_for_byte_in_every_position(product: Product, text: str) -> None:
    body = await reached_api(
        product,
        system(text),
        user(text),
        assistant(text),
        user("and"),
        assistant(text),
        system(text),
        assistant("so"),
        user(text),
    )
    assert body == {
        "systemInstruction": {"parts": [{"text": text}]},
        "contents": [
            turn("user", text),
            turn("model", text),
            turn("user", "and"),
            turn("model", text),
            turn("user", text),
            turn("model", "so"),
            turn("user", text),
        ],
    }


@pytest.mark.parametrize("text", ["/help", "$x", "<session_context>", "?"])
@ensureDeferred
async def test_a_sole_message_that_looks_like_a_command_reaches_the_api(
    product: Product, text: str
) -> None:
    assert await reached_api(product, user(text)) == {"contents": [turn("user", text)]}


@ensureDeferred
async def test_lone_surrogates_are_replaced_and_pairs_are_joined(product: Product) -> None:
    product.api.play(scenarios.answer("ok"))
    raw = encode(chat("TEXT")).replace(b"TEXT", rb"a\ud800b \udc00 \ud83d\ude00")
    assert (await product.ask(raw)).status == 200
    assert product.asked[0].texts == [("user", "a\ufffdb \ufffd \U0001f600")]


@ensureDeferred
async def test_leading_system_messages_are_the_system_instruction(product: Product) -> None:
    developer = {"role": "developer", "content": "Two."}
    body = await reached_api(product, system("One."), developer, system("Three."), user("Hi"))
    assert body == {
        "systemInstruction": {"parts": [{"text": "One.\n\nTwo.\n\nThree."}]},
        "contents": [turn("user", "Hi")],
    }


@ensureDeferred
async def test_later_system_messages_keep_their_place_as_user_turns(product: Product) -> None:
    body = await reached_api(
        product,
        system("One."),
        user("Hi"),
        system("Two."),
        assistant("Yes?"),
        system("Three."),
        user("Go on"),
        system("Four."),
    )
    assert body["systemInstruction"] == {"parts": [{"text": "One."}]}
    texts = [(t["role"], [p["text"] for p in t["parts"]]) for t in body["contents"]]
    assert texts == [
        ("user", ["Hi", "Two."]),
        ("model", ["Yes?"]),
        ("user", ["Three.", "Go on", "Four."]),
    ]


@ensureDeferred
async def test_a_lone_system_message_becomes_the_users(product: Product) -> None:
    assert await reached_api(product, system("Say hi.")) == {"contents": [turn("user", "Say hi.")]}


@ensureDeferred
async def test_the_last_message_may_be_the_assistant_s(product: Product) -> None:
    body = await reached_api(product, user("Tell me a story"), assistant("Once upon a"))
    assert body == {"contents": [turn("user", "Tell me a story"), turn("model", "Once upon a")]}


@ensureDeferred
async def test_the_first_message_may_be_the_assistant_s(product: Product) -> None:
    body = await reached_api(product, assistant("Welcome!"), user("Hi"))
    assert body == {"contents": [turn("model", "Welcome!"), turn("user", "Hi")]}


@ensureDeferred
async def test_text_parts_of_a_message_stay_parts(product: Product) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = await reached_api(product, user(parts), assistant("c"), user(parts))
    assert body == {
        "contents": [turn("user", "a", "b"), turn("model", "c"), turn("user", "a", "b")]
    }


@ensureDeferred
async def test_empty_messages_are_left_out(product: Product) -> None:
    nothing = {"role": "assistant", "content": None}
    body = await reached_api(product, system(""), user("Hi"), nothing, assistant(""), user("Ho"))
    assert "systemInstruction" not in body
    assert [text for _, text in product.asked[0].texts] == ["HiHo"]


@ensureDeferred
async def test_a_conversation_of_three_hundred_messages_arrives_whole(product: Product) -> None:
    messages = [f"message {number}" for number in range(301)]
    product.api.play(scenarios.answer("ok"))
    assert (await product.ask(chat(*messages))).content == "ok"
    assert product.asked[0].texts == [
        ("model" if number % 2 else "user", text) for number, text in enumerate(messages)
    ]


@pytest.mark.parametrize(
    "unit", ["word ", "\U0001f600", "\u6f22\u5b57"], ids=["ascii", "emoji", "cjk"]
)
@pytest.mark.parametrize("messages", [1, 101])
@ensureDeferred
async def test_four_megabytes_arrive_byte_for_byte(
    product: Product, unit: str, messages: int
) -> None:
    text = unit * (4_000_000 // len(unit.encode()) // messages)
    product.api.play(scenarios.answer("ok"))
    reply = await product.ask(chat(system("Be brief."), *[user(text)] * messages))
    assert reply.status == 200, reply
    (asked,) = product.asked
    assert asked.system == "Be brief."
    assert asked.texts == [("user", text * messages)]


@ensureDeferred
async def test_a_short_request_costs_the_api_less_than_a_kilobyte(product: Product) -> None:
    assert await reached_api(product, user("Hello")) == {"contents": [turn("user", "Hello")]}
    (asked,) = product.asked
    head = f"POST {asked.path}?alt=sse HTTP/1.1\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in asked.headers.items())
    assert len(head) + 2 + len(asked.raw) < 1000
    assert asked.query == {"alt": "sse"}


@ensureDeferred
async def test_nothing_of_the_machine_or_the_proxy_is_in_a_request(product: Product) -> None:
    await reached_api(product, user("Hello"))
    (asked,) = product.asked
    sent = (json.dumps(dict(asked.headers)) + asked.raw.decode()).lower()
    for word in (str(product.run_root), "gemproxy", "session", "tool", "/tmp", "worker"):  # noqa: S108 - not opened
        assert word.lower() not in sent
    assert asked.headers["x-goog-api-key"] == "the-key"
    # The CLI says who it is.
    assert ("gemini" in asked.headers.get("user-agent", "").lower()) is bool(product.worker_pids())


@ensureDeferred
async def test_nothing_of_a_conversation_stays_on_disk(product: Product) -> None:
    product.api.play(
        scenarios.answer("the zebra's answer"),
        scenarios.error(400, "the zebra's error"),
        scenarios.cut("the zebra's", "half", after=1),
        scenarios.garbage("the zebra's"),
    )
    for _ in range(4):
        await product.ask(chat("the zebra's past", "the zebra's words", "the zebra's question"))
    product.api.play(scenarios.hang("the zebra's", "half", after=1))
    client = await product.begin(chat("the zebra's question", stream=True))
    await client.until_received(b"zebra")
    assert files_with(product, b"zebra") == []
    client.drop()
    await product.until_idle()
    assert files_with(product, b"zebra") == []
    assert product.session_files() == []


def files_with(product: Product, text: bytes) -> list[Path]:
    files = [path for path in product.run_root.rglob("*") if path.is_file()]
    assert bool(files) is bool(product.worker_pids())
    return [path for path in files if text in path.read_bytes()]


@ensureDeferred
async def test_requests_never_see_each_other_s_words(product: Product) -> None:
    bodies = [
        chat(system(f"rule {n}"), user(f"past {n}"), assistant(f"reply {n}"), user(f"ask {n}"))
        for n in range(20)
    ]
    replies = await product.ask_all(bodies)
    for number, reply in enumerate(replies):
        assert reply.content.endswith(f"\n\nask {number}")
    conversations = {json.dumps([asked.system, asked.texts]) for asked in product.asked}
    assert conversations == {
        json.dumps(
            [f"rule {n}", [("user", f"past {n}"), ("model", f"reply {n}"), ("user", f"ask {n}")]]
        )
        for n in range(20)
    }
