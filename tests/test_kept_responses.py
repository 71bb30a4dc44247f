"""Responses that later requests refer to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import openai
import pytest
from openai import OpenAI
from pytest_twisted import async_yield_fixture, ensureDeferred

from testing.fake_newapi import document, stream
from tests.sdk import with_openai
from tests.support import Relay, running_relay

pytestmark = pytest.mark.slow

MODEL = "gemini-x"
_T = TypeVar("_T")


@async_yield_fixture
async def keeping(tmp_path: Path) -> AsyncIterator[Relay]:
    async with running_relay(RESPONSES_KEEP=2, DATA_DIR=tmp_path) as relay:
        yield relay


def with_sdk(relay: Relay, work: Callable[[OpenAI], _T], key: str = "k") -> Awaitable[_T]:
    return with_openai(relay.port, work, key)


def ask(relay: Relay, text: str, key: str = "k", **fields: Any) -> Any:
    relay.upstream.play(stream(f"answer to {text}"))
    return with_sdk(
        relay, lambda client: client.responses.create(model=MODEL, input=text, **fields), key
    )


def messages(relay: Relay) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in relay.upstream.calls[-1].json["messages"]]


@ensureDeferred
async def test_a_conversation_goes_on_by_the_id_of_its_last_response(keeping: Relay):
    first = await ask(keeping, "one", instructions="Be brief.")
    second = await ask(keeping, "two", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    await ask(keeping, "three", previous_response_id=second.id)
    assert messages(keeping) == [
        ("user", "one"),
        ("assistant", "answer to one"),
        ("user", "two"),
        ("assistant", "answer to two"),
        ("user", "three"),
    ]


@ensureDeferred
async def test_an_item_can_be_referred_to(keeping: Relay):
    first = await ask(keeping, "one")
    reference: Any = {"type": "item_reference", "id": first.output[0].id}
    await ask(keeping, [{"role": "user", "content": "x"}, reference])  # type: ignore[arg-type]
    assert messages(keeping) == [("user", "x"), ("assistant", "answer to one")]


@ensureDeferred
async def test_a_streamed_response_is_kept_too(keeping: Relay):
    keeping.upstream.play(stream("Hi"))

    def work(client: OpenAI) -> Any:
        with client.responses.stream(model=MODEL, input="x") as events:
            return events.get_final_response()

    final = await with_sdk(keeping, work)
    got = await with_sdk(keeping, lambda client: client.responses.retrieve(final.id))
    assert got.output_text == "Hi"


@ensureDeferred
async def test_it_can_be_shown_listed_and_deleted(keeping: Relay):
    first = await ask(keeping, "one")
    second = await ask(keeping, "two", previous_response_id=first.id)

    def work(client: OpenAI) -> None:
        responses = client.responses
        assert responses.retrieve(second.id).output_text == "answer to two"
        texts = [item.to_dict() for item in responses.input_items.list(second.id, order="asc")]
        assert [item["role"] for item in texts] == ["user", "assistant", "user"]
        with pytest.raises(openai.BadRequestError):
            responses.cancel(second.id)
        responses.delete(second.id)

    await with_sdk(keeping, work)
    keeping.upstream.play(document({"error": {"message": "who?"}}, 404))
    with pytest.raises(openai.NotFoundError, match="who"):
        # What is not kept here may be the upstream's.
        await with_sdk(keeping, lambda client: client.responses.retrieve(second.id))


@ensureDeferred
async def test_nobody_elses_and_no_more_than_so_many(keeping: Relay):
    first, second, third = [await ask(keeping, word) for word in ("one", "two", "three")]
    for id, key in ((first.id, "k"), (second.id, "other"), (third.id, "other")):
        with pytest.raises(openai.BadRequestError) as caught:
            await ask(keeping, "x", key, previous_response_id=id)
        assert caught.value.code == "previous_response_not_found"
        keeping.upstream._scripts.clear()
    assert (await ask(keeping, "x", previous_response_id=second.id)).output_text == "answer to x"


@ensureDeferred
async def test_what_is_not_to_be_stored_is_not(keeping: Relay):
    first = await ask(keeping, "one", store=False)
    with pytest.raises(openai.BadRequestError):
        await ask(keeping, "x", previous_response_id=first.id)


@ensureDeferred
async def test_without_the_setting_the_error_names_it(relay: Relay):
    with pytest.raises(openai.BadRequestError, match="RESPONSES_KEEP"):
        await ask(relay, "x", previous_response_id="resp_1")


@ensureDeferred
async def test_a_large_request_is_no_different(keeping: Relay):
    """It is translated in another process."""
    large = "x" * 2_000_000
    first = await ask(keeping, large)
    keeping.upstream.play(stream("Hi"))
    got = await with_sdk(
        keeping,
        lambda client: client.responses.create(
            model=MODEL, input=large, previous_response_id=first.id
        ),
    )
    assert got.output_text == "Hi"
    assert [len(text) for _, text in messages(keeping)] == [len(large), len(large) + 10, len(large)]


@ensureDeferred
async def test_what_is_large_is_not_kept(keeping: Relay) -> None:
    kept = await ask(keeping, "a" * 3_500_000)
    assert (await ask(keeping, "two", previous_response_id=kept.id)).output_text
    large = await ask(keeping, "a" * 8_100_000)
    with pytest.raises(openai.BadRequestError, match="not kept here"):
        await ask(keeping, "two", previous_response_id=large.id)
    assert "too large to be kept" in "".join(keeping.warnings)
