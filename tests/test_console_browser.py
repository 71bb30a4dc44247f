"""The console in a real browser, on a real daemon."""

from __future__ import annotations

import json

from playwright.sync_api import Page, expect

from testing.fake_newapi import (
    DONE,
    Call,
    Script,
    chunk,
    document,
    event,
    events,
    usage_chunk,
)
from tests.browser import barriers, chromium, in_browser, open_view, page
from tests.support import Relay

__all__ = ["chromium", "page"]


def serving(models: list[str], chat: Script) -> Script:
    """An upstream with these models, all of which answer alike."""
    listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in models]}

    async def serve(call: Call) -> None:
        await (document(listed) if call.target == "/v1/models" else chat)(call)

    return serve


@in_browser
def test_a_request_is_tried(page: Page, relay: Relay) -> None:
    """Text, thoughts and calls of a streamed answer, its events as they came, and its facts."""
    call = {"index": 0, "id": "c", "function": {"name": "look", "arguments": '{"up":1}'}}
    said = (
        chunk(delta={"reasoning_content": "Hm."}),
        chunk("Hello "),
        chunk("there"),
        chunk(delta={"tool_calls": [call]}),
        chunk(finish="stop"),
        usage_chunk(),
    )
    relay.upstream.always(serving(["gpt-x"], events(*map(event, said), DONE)))
    open_view(page, relay.port, "try")
    expect(page.get_by_label("Model")).to_have_value("gpt-x")
    page.get_by_label("System text").fill("Be brief.")
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_label("Show raw events").check()
    page.get_by_label("Message").fill("Hi")
    page.get_by_label("Message").press("Control+Enter")
    log = page.get_by_role("log")
    expect(log).to_contain_text("Hello there")
    expect(log).to_contain_text("Hm.")
    expect(log).to_contain_text('look({"up":1})')
    expect(log).to_contain_text("[DONE]")
    expect(log).to_contain_text("stop · first token after")
    asked = json.loads(bytes(relay.upstream.calls[-1].body))
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]
    assert (asked["temperature"], asked["stream"]) == (0.5, True)
    assert barriers(page) == []
