"""The anthropic SDK against both ports."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest
import pytest_twisted
from anthropic import Anthropic
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from gemproxy.chat.jsontext import dumps
from testing.fake_newapi import document, events, stream
from testing.google import scenarios
from tests.support import Patience, Product, Relay, running_relay, shared_daemon

NEWEST = "gemini-3.8-flash"
HI: list[Any] = [{"role": "user", "content": "Hi"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
PNG = base64.b64encode(
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0\x1f\x15\xc4\x89"
).decode()

shared_product = shared_daemon("module", HEARTBEAT_INTERVAL=0.2, GEMINI_WORKERS=1)


def sdk(port: int, key: str = "none") -> Anthropic:
    return Anthropic(api_key=key, base_url=f"http://127.0.0.1:{port}", max_retries=0)


def both(product: Product) -> Iterator[Anthropic]:
    for port in (product.port, product.stream_port):
        yield sdk(port)


async def call(method: Callable[..., Any], **arguments: Any) -> Any:
    given = {"model": NEWEST, "max_tokens": 1000, "messages": HI} | arguments
    return await deferToThread(lambda: method(**given))


async def streamed(client: Anthropic, **arguments: Any) -> tuple[list[Any], Any]:
    """The events of the streaming helper, and the message that it made of them."""
    given = {"model": NEWEST, "max_tokens": 1000, "messages": HI} | arguments

    def read() -> tuple[list[Any], Any]:
        with client.messages.stream(**given) as events:
            return list(events), events.get_final_message()

    return await deferToThread(read)


def signed(part: dict[str, Any], signature: str) -> dict[str, Any]:
    return part | {"thoughtSignature": signature}


@ensureDeferred
async def test_a_message_and_its_stream(product: Product):
    usage = {
        "promptTokenCount": 30,
        "cachedContentTokenCount": 10,
        "candidatesTokenCount": 2,
        "thoughtsTokenCount": 4,
    }
    for client in both(product):
        product.api.play(*[scenarios.thinking("Hm.", "Hel", "lo", usage=usage)] * 2)
        whole = await call(client.messages.create, system="Be brief.")
        events, helped = await streamed(client, system="Be brief.")
        for message in (whole, helped):
            # Nobody asked for thoughts, and programs take the first block for the text.
            [block] = message.content
            assert (block.type, block.text) == ("text", "Hello")
            assert (message.stop_reason, message.model) == ("end_turn", NEWEST)
            assert message.id.startswith("msg_")
            counts = message.usage
            assert (counts.input_tokens, counts.cache_read_input_tokens) == (20, 10)
            assert (counts.output_tokens, counts.output_tokens_details.thinking_tokens) == (6, 4)
        assert [each.text for each in events if each.type == "text"] == ["Hel", "lo"]
        asked = product.asked[-1]
        assert asked.system == "Be brief."
        assert asked.texts == [("user", "Hi")]
        assert asked.generation_config["maxOutputTokens"] == 1000


@ensureDeferred
async def test_a_loop_of_tools_with_signed_thinking(product: Product):
    for client in both(product):
        product.api.play(
            scenarios.answer(
                signed(scenarios.thought("Hm."), "dGhvdWdodA=="),
                "Let me",
                signed(scenarios.text(" see."), "dGV4dA=="),
                [
                    signed(scenarios.call("get_weather", {"city": "Graz"}), "Y2FsbA=="),
                    scenarios.call("get_weather", {"city": "Wien"}),
                ],
            ),
            scenarios.answer("Sunny."),
        )
        thinking: Any = {"type": "adaptive"}
        wanted = {"tools": [WEATHER], "thinking": thinking}
        _, first = await streamed(client, **wanted)
        assert first.stop_reason == "tool_use"
        calls = [block for block in first.content if block.type == "tool_use"]
        assert [each.input for each in calls] == [{"city": "Graz"}, {"city": "Wien"}]
        # Gemini signed the answer. What the daemon remembers of that does not count here.
        forget_signatures(product)
        picture = {"type": "base64", "media_type": "image/png", "data": PNG}
        results = [
            {"type": "tool_result", "tool_use_id": calls[0].id, "content": "sunny"},
            {
                "type": "tool_result",
                "tool_use_id": calls[1].id,
                "content": [{"type": "image", "source": picture}],
            },
        ]
        history = [
            *HI,
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": results},
        ]
        last = await call(client.messages.create, messages=history, **wanted)
        assert last.content[-1].text == "Sunny."
        _, model, user = product.asked[-1].contents
        graz, wien = (part["functionCall"]["id"] for part in model["parts"][2:])
        assert model["parts"] == [
            {"text": "Hm.", "thought": True, "thoughtSignature": "dGhvdWdodA=="},
            {"text": "Let me see.", "thoughtSignature": "dGV4dA=="},
            {
                "functionCall": {"name": "get_weather", "args": {"city": "Graz"}, "id": graz},
                "thoughtSignature": "Y2FsbA==",
            },
            {"functionCall": {"name": "get_weather", "args": {"city": "Wien"}, "id": wien}},
        ]
        sunny, seen = (part["functionResponse"] for part in user["parts"])
        assert sunny["response"] == {"output": "sunny"}
        assert seen["parts"][0]["inlineData"]["mimeType"] == "image/png"


def forget_signatures(product: Product) -> None:
    for service in product.daemon:
        if engine := getattr(service, "engine", None):
            engine.signatures._known._known.clear()


@ensureDeferred
async def test_settings_of_a_request(product: Product):
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    picture = {"type": "base64", "media_type": "image/png", "data": PNG}
    document = {"type": "text", "media_type": "text/plain", "data": "A text."}
    for client in both(product):
        product.api.play(scenarios.answer('{"a":"b"}'))
        await call(
            client.beta.messages.create,
            betas=["some-beta-2031-01-01"],
            model="gemini-2.5-flash",
            thinking={"type": "enabled", "budget_tokens": 2000},
            output_config={"format": {"type": "json_schema", "schema": schema}},
            tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}],
            metadata={"user_id": "u"},
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "source": picture},
                        {"type": "document", "source": document, "title": "T"},
                        {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}},
                    ],
                },
                # Prefill.
                {"role": "assistant", "content": "{"},
            ],
        )
        asked = product.asked[-1]
        config = asked.generation_config
        assert config["thinkingConfig"] == {"includeThoughts": True, "thinkingBudget": 2000}
        assert config["responseJsonSchema"] == schema
        assert asked.body["tools"] == [{"googleSearch": {}}]
        image, title, text, hi = asked.contents[0]["parts"]
        assert image["inlineData"]["data"] == PNG
        assert [part["text"] for part in (title, text, hi)] == ["T", "A text.", "Hi"]
        assert asked.contents[1] == {"role": "model", "parts": [{"text": "{"}]}


@ensureDeferred
async def test_a_stop_sequence_ends_the_answer_and_is_named(product: Product):
    for client in both(product):
        for method in ("create", "stream"):
            product.api.play(scenarios.answer("One, two", ", EN", "D, three"))
            if method == "create":
                message = await call(client.messages.create, stop_sequences=["x", "END"])
            else:
                _, message = await streamed(client, stop_sequences=["x", "END"])
            assert message.content[0].text == "One, two, "
            assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")
            assert message.usage.output_tokens


@ensureDeferred
async def test_a_silent_model_is_pinged_for(product: Product):
    product.api.play(scenarios.answer("One", " two", delay=0.5, pace=0.5))
    body = {"model": NEWEST, "max_tokens": 9, "messages": HI, "stream": True}
    got = await (await product.send("POST", "/v1/messages", body)).reply()
    assert got.headers["content-type"].startswith("text/event-stream")
    names = [line[7:] for line in got.body.decode().splitlines() if line.startswith("event: ")]
    assert names[:2] == ["message_start", "ping"]
    assert names.count("ping") >= 2
    assert not got.comments
    for client in both(product):
        product.api.play(scenarios.answer("One", " two", delay=0.5, pace=0.5))
        assert (await streamed(client))[1].content[0].text == "One two"


@ensureDeferred
async def test_thoughts_that_are_not_shown_do_not_count_as_a_sign_of_life(product: Product):
    product.api.play(scenarios.thinking(["Hm."] * 10, "Yes.", pace=0.1))
    body = {"model": NEWEST, "max_tokens": 9, "messages": HI, "stream": True}
    got = await (await product.send("POST", "/v1/messages", body)).reply()
    before, _, _ = got.body.partition(b"content_block_start")
    assert before.count(b"event: ping") >= 2
    assert b"Hm." not in got.body


@pytest.mark.parametrize(
    ("scenario", "kind", "status", "type"),
    [
        (scenarios.error(400, "No."), anthropic.BadRequestError, 400, "invalid_request_error"),
        (scenarios.daily_quota(), anthropic.RateLimitError, 429, "rate_limit_error"),
        (scenarios.invalid_key(), anthropic.InternalServerError, 502, "api_error"),
    ],
)
@ensureDeferred
async def test_errors(product: Product, scenario: Any, kind: Any, status: int, type: str):
    for number, client in enumerate(both(product)):
        product.api.play(scenario)
        model = f"gemini-errors-{status}-{number}"
        with pytest.raises(kind) as caught:
            await call(client.messages.create, model=model)
        assert caught.value.status_code == status
        assert caught.value.body["type"] == "error"
        assert caught.value.body["error"]["type"] == type


@ensureDeferred
async def test_an_error_within_a_stream(product: Product):
    for client in both(product):
        product.api.play(scenarios.cut("One", after=1))
        with pytest.raises(anthropic.APIStatusError) as caught:
            await streamed(client)
        assert caught.value.body["error"]["type"] == "api_error"


@ensureDeferred
async def test_what_is_unknown_is_not_found(product: Product):
    for path, method in (("/v1/messages/batches", "POST"), ("/v1/messages", "GET")):
        got = await (await product.send(method, path, {} if method == "POST" else None)).reply()
        assert got.json["type"] == "error"
        kind = {404: "not_found_error", 405: "invalid_request_error"}[got.status]
        assert got.json["error"]["type"] == kind
    client = sdk(product.port)
    with pytest.raises(anthropic.NotFoundError):
        await call(client.messages.create, model="claude-opus-4")
    with pytest.raises(anthropic.NotFoundError):
        await deferToThread(client.models.retrieve, "claude-opus-4")


@ensureDeferred
async def test_google_counts_the_tokens_of_a_whole_request(product: Product):
    for client in both(product):
        counted = await deferToThread(
            client.messages.count_tokens,
            model=NEWEST,
            messages=[{"role": "user", "content": "x" * 400}],
            system="y" * 400,
            tools=[WEATHER],
        )
        assert counted.input_tokens == 200
        asked = product.asked[-1]
        assert asked.method == "countTokens"
        request = asked.body["generateContentRequest"]
        assert request["model"] == f"models/{NEWEST}"
        assert request["contents"] == [{"role": "user", "parts": [{"text": "x" * 400}]}]
        assert request["systemInstruction"] == {"parts": [{"text": "y" * 400}]}
        assert request["tools"][0]["functionDeclarations"][0]["name"] == "get_weather"


@ensureDeferred
async def test_models_are_listed_as_anthropic_does(product: Product):
    for client in both(product):
        listed = await deferToThread(lambda: list(client.models.list(limit=3)))  # noqa: B023
        names = [model.id for model in listed]
        assert len(names) == len(set(names)) > 3
        one = await deferToThread(client.models.retrieve, names[0])
        assert one == listed[0]
        assert one.max_input_tokens
    openai = await product.get("/v1/models")
    assert openai.json["object"] == "list"


# An upstream


@pytest_twisted.async_yield_fixture
async def locked(patience: Patience) -> Any:
    async with running_relay(patience, PROXY_API_KEYS="right", MAX_BODY=2000) as relay:
        yield relay


@ensureDeferred
async def test_what_admission_refuses_is_refused_in_the_dialect(locked: Relay):
    for kind, error in (
        ({"key": "wrong"}, anthropic.AuthenticationError),
        ({"key": "right"}, anthropic.APIStatusError),
    ):
        with pytest.raises(error) as caught:
            messages = [{"role": "user", "content": "x" * 5000}]
            await call(sdk(locked.port, **kind).messages.create, messages=messages)
        status, body = caught.value.status_code, caught.value.body
        assert body["type"] == "error"
        types = {401: "authentication_error", 413: "request_too_large"}
        assert body["error"]["type"] == types[status]
    with pytest.raises(anthropic.AuthenticationError) as caught:
        await deferToThread(sdk(locked.port, "wrong").models.list)
    assert caught.value.body["error"]["type"] == "authentication_error"


@ensureDeferred
async def test_what_an_upstream_does_not_speak_is_translated(relay: Relay):
    relay.upstream.play(document("404 page not found", 404), stream("Hel", "lo", usage=True))
    message = await call(sdk(relay.port).messages.create, model="gpt-x", system="s")
    assert message.content[0].text == "Hello"
    refused, asked = relay.upstream.calls
    assert refused.target.startswith("/v1/messages")
    assert asked.target == "/v1/chat/completions"
    assert asked.json["messages"] == [{"role": "system", "content": "s"}, *HI]
    assert asked.json["max_tokens"] == 1000


@ensureDeferred
async def test_a_stream_that_an_upstream_breaks_off_ends_with_an_error(relay: Relay):
    begun = dumps({"type": "message_start", "message": {"content": [], "usage": {}}})
    relay.upstream.play(events(b"event: message_start\ndata: " + begun + b"\n\n", then="cut"))
    with pytest.raises(anthropic.APIStatusError) as caught:
        await streamed(sdk(relay.port), model="gpt-x")
    assert caught.value.body["error"]["type"] == "api_error"


@ensureDeferred
async def test_tokens_of_other_models_are_counted_by_the_upstream_or_estimated(relay: Relay):
    count = sdk(relay.port).messages.count_tokens
    relay.upstream.play(document({"input_tokens": 7}))
    assert (await deferToThread(count, model="gpt-x", messages=HI)).input_tokens == 7
    relay.upstream.play(document("404 page not found", 404))
    long = [{"role": "user", "content": "x" * 4000}]
    for _ in range(2):
        counted = await deferToThread(count, model="gpt-x", messages=long)
        assert 1000 <= counted.input_tokens < 1100
    # Once it has said that it does not count, it is not asked again; messages still go there.
    assert len(relay.upstream.calls) == 2
    relay.upstream.play(document({"id": "msg_1"}))
    await call(sdk(relay.port).messages.create, model="gpt-x")
    assert relay.upstream.calls[-1].target.startswith("/v1/messages")


@ensureDeferred
async def test_another_gemproxy_counts_for_its_models(relay: Relay):
    relay.upstream.play(document({"input_tokens": 7}))
    count = sdk(relay.port).messages.count_tokens
    counted = await deferToThread(count, model="gemini/gemini-2.5-flash", messages=HI)
    assert counted.input_tokens == 7
    [asked] = relay.upstream.calls
    assert asked.target.startswith("/v1/messages/count_tokens")
    assert asked.json["model"] == "gemini-2.5-flash"


@ensureDeferred
async def test_small_models_are_mapped_by_the_routes(relay: Relay):
    daemon: Any = relay.daemon
    routes = {"claude-haiku-*": ("gemini/gemini-2.5-flash",)}
    daemon._router.use(daemon._config.upstreams, routes)
    relay.upstream.play(stream("ok", usage=True))
    name = "claude-haiku-4-5-20251001"
    message = await call(sdk(relay.port).messages.create, model=name)
    assert message.model == name
    assert relay.upstream.calls[-1].json["model"] == "gemini-2.5-flash"
