"""The console's files as they are served, and what they may not do."""

from __future__ import annotations

import re

import pytest
from pytest_twisted import ensureDeferred

from gemproxy.web.gemini_proxy import GeminiProxy
from gemproxy.web.stream_proxy import StreamProxy
from tests.support import ROOT, Relay, running_relay

FOLDER = ROOT / "gemproxy" / "console"
NAMES = sorted(path.name for path in FOLDER.iterdir())


@pytest.mark.parametrize("proxy", [GeminiProxy, StreamProxy])
def test_both_ports_have_it(proxy: type[GeminiProxy | StreamProxy]) -> None:
    rules = {rule.rule for rule in proxy.app.url_map.iter_rules()}
    assert {"/console", "/console/<name>"} <= rules


@ensureDeferred
async def test_it_needs_no_key_and_may_do_nothing_but_ask_the_daemon() -> None:
    """What it asks for does, below /admin."""
    async with running_relay(PROXY_API_KEYS="a-key", ADMIN_KEY="another-key") as relay:
        page = await relay.get("/console")
        assert (await relay.get("/admin/routes")).status == 401
    assert page.status == 200
    assert page.body == (FOLDER / "index.html").read_bytes()
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-cache"


@ensureDeferred
async def test_a_slash_at_its_end_leads_to_it(relay: Relay) -> None:
    reply = await relay.get("/console/?x=1")
    assert (reply.status, reply.headers["location"]) == (302, "../console")


@ensureDeferred
async def test_each_file_has_its_type_and_is_sent_once(relay: Relay) -> None:
    types = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg"}
    for name in NAMES:
        file = await relay.get(f"/console/{name}")
        assert file.body == (FOLDER / name).read_bytes()
        assert file.headers["content-type"].startswith(types[name.rpartition(".")[2]])
        again = await relay.send("GET", f"/console/{name}", If_None_Match=file.headers["etag"])
        reply = await again.reply()
        assert (reply.status, reply.body) == (304, b"")
    assert (await relay.get("/console/nothing.js")).error["code"] == "unknown_url"
    assert relay.upstream.calls == []


@pytest.mark.parametrize("name", NAMES)
def test_no_file_takes_a_text_for_html(name: str) -> None:
    """What comes from outside is text; and the page's policy refuses what is written in it."""
    text = (FOLDER / name).read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    assert not re.search(r"DOMParser|srcdoc|createContextualFragment|new Function", text)
    assert not re.search(r"<script>|<style|\son\w+=[\"']|\sstyle=|javascript:", text)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
