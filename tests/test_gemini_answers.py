"""How an answer ends, and which messages it is an answer to, through the real CLI."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from testing.google import scenarios
from tests.support import Product, chat, fresh_model, shared_daemon

pytestmark = pytest.mark.both_engines(quick=False)

# Another try or two are enough to see that there is one.
shared_product = shared_daemon("module", MAX_RETRIES=2, RETRY_DELAY="0.01")

FILTERED = (
    *("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE"),
    *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT"),
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("play", "reason", "content"),
    [
        (scenarios.answer("Whole."), "stop", "Whole."),
        (scenarios.answer("As it is.", finish_reason="OTHER"), "content_filter", "As it is."),
        (scenarios.answer("As it is.", finish_reason="NEW_ONE"), "content_filter", "As it is."),
        (scenarios.answer("Cut", finish_reason="MAX_TOKENS"), "length", "Cut"),
        (scenarios.empty(finish_reason="MAX_TOKENS"), "length", ""),
        (scenarios.thinking("Hm", finish_reason="MAX_TOKENS"), "length", ""),
        *(
            (scenarios.answer("I will", finish_reason=reason), "content_filter", "I will")
            for reason in FILTERED
        ),
        *((scenarios.empty(finish_reason=reason), "content_filter", "") for reason in FILTERED),
        (scenarios.thinking("Hm", finish_reason="SAFETY"), "content_filter", ""),
        *(
            (scenarios.blocked(reason), "content_filter", "")
            for reason in ("SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "OTHER")
        ),
    ],
    ids=str,
)
@ensureDeferred
async def test_an_answer_says_why_it_ended(
    product: Product, play: scenarios.Scenario, reason: str, content: str, stream: bool
) -> None:
    for ask in product.both_ports:
        product.api.play(play)
        reply = await ask(chat("Hi", stream=stream))
        assert reply.status == 200
        assert reply.content == content
        choice = (reply.data[-2] if stream else reply.json)["choices"][0]
        assert choice["finish_reason"] == reason
        if not stream:
            assert choice["message"]["content"] == content
    assert len(product.asked) == 2


BROKEN = ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reason", ["STOP", "OTHER", *BROKEN])
@ensureDeferred
async def test_an_empty_answer_is_tried_again(product: Product, reason: str, stream: bool) -> None:
    product.api.play(*[scenarios.empty(finish_reason=reason)] * 2, scenarios.answer("At last."))
    reply = await product.ask(chat("Hi", stream=stream, model=fresh_model()))
    assert reply.content == "At last."
    assert len(product.asked) == 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reason", ["STOP", *BROKEN])
@ensureDeferred
async def test_an_answer_that_stays_empty_is_an_error(
    product: Product, reason: str, stream: bool
) -> None:
    product.api.play(*[scenarios.empty(finish_reason=reason)] * 3)
    reply = await product.ask(chat("Hi", stream=stream, model=fresh_model()))
    assert (reply.status, reply.error["code"]) == (502, "upstream_error")
    assert reason in reply.error["message"]
    assert len(product.asked) == 3


@pytest.mark.parametrize("reason", BROKEN)
@ensureDeferred
async def test_an_answer_whose_call_came_out_wrong_is_an_error(
    product: Product, reason: str
) -> None:
    product.api.play(*[scenarios.answer("I look it up.", finish_reason=reason)] * 2)
    reply = await product.ask(chat("Hi", stream=True))
    assert reply.content == "I look it up."
    assert reason in reply.data[-1]["error"]["message"]
    assert "[DONE]" not in reply.data
    # The text was out: a second try would say it twice.
    assert len(product.asked) == 1
    # Here it was not.
    product.api.play(scenarios.answer("At last."))
    reply = await product.ask(chat("Hi", model=fresh_model()))
    assert reply.json["choices"][0]["message"] == {"role": "assistant", "content": "At last."}
    assert len(product.asked) == 3


@ensureDeferred
async def test_thoughts_alone_are_no_answer(product: Product) -> None:
    product.api.play(scenarios.thinking("Hm."), scenarios.thinking("Well.", "At last."))
    reply = await product.ask(chat("Hi", stream=True, model=fresh_model()))
    deltas = [chunk["choices"][0]["delta"] for chunk in reply.data[:-1]]
    thoughts = [{"reasoning_content": "Hm."}, {"reasoning_content": "Well."}]
    assert deltas[1:] == [*thoughts, {"content": "At last."}, {}]
    assert len(product.asked) == 2


# Messages


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content} | more


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content} | more


def system(content: Any, role: str = "system") -> dict[str, Any]:
    return {"role": role, "content": content}


PART = {"type": "text", "text": "Hi"}


@pytest.mark.parametrize(
    ("messages", "instruction", "turns"),
    [
        # An answer to be continued.
        ([user("Count."), assistant("One, ")], None, [("user", ["Count."]), ("model", ["One, "])]),
        ([assistant("One, ")], None, [("model", ["One, "])]),
        # Names.
        (
            [user("Hi", name="Ann"), user("Ho", name="Bob"), assistant("Yes?", name="Cy")],
            None,
            [("user", ["Ann: Hi", "Bob: Ho"]), ("model", ["Cy: Yes?"])],
        ),
        ([user([PART, PART], name="Ann")], None, [("user", ["Ann: Hi", "Hi"])]),
        ([user("Ann: Hi", name="Ann")], None, [("user", ["Ann: Hi"])]),
        ([user("Hi", name="/help")], None, [("user", ["/help: Hi"])]),
        # Two in a row.
        ([user("Hi"), user("Ho")], None, [("user", ["Hi", "Ho"])]),
        (
            [user("Hi"), assistant("A"), assistant("B"), user("Ho")],
            None,
            [("user", ["Hi"]), ("model", ["A", "B"]), ("user", ["Ho"])],
        ),
        # System messages anywhere.
        (
            [system("a"), system("b", "developer"), user("Hi"), system("c"), assistant("A")],
            "a\n\nb",
            [("user", ["Hi", "c"]), ("model", ["A"])],
        ),
        (
            [user("Hi"), assistant("A"), system("c"), system("d")],
            None,
            [("user", ["Hi"]), ("model", ["A"]), ("user", ["c", "d"])],
        ),
        ([system("a"), system("b")], "a", [("user", ["b"])]),
        # Empty contents.
        (
            [
                system(""),
                user(""),
                user(None),
                user([]),
                assistant(""),
                user("Hi"),
                assistant(None),
            ],
            None,
            [("user", ["Hi"])],
        ),
    ],
)
@ensureDeferred
async def test_messages_arrive_as_turns(
    product: Product, messages: list[Any], instruction: str | None, turns: list[Any]
) -> None:
    for ask in product.both_ports:
        for stream in (False, True):
            product.api.play(scenarios.answer("ok"))
            assert (await ask(chat(messages=messages, stream=stream))).content == "ok"
    for asked in product.asked:
        assert asked.system == instruction
        got = [(t["role"], [part["text"] for part in t["parts"]]) for t in asked.contents]
        assert got == turns
    assert len(product.asked) == 4
