"""The console in a real browser, on a real daemon."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import time
from typing import Any

import pytest
from playwright.sync_api import Browser, CDPSession, Page, Route, expect
from twisted.internet import reactor
from twisted.internet.task import deferLater

from gemproxy.database import open_database
from gemproxy.usage.recorder import FILE as USAGE_FILE
from gemproxy.usage.row import Row, bucket_of
from gemproxy.usage.tables import MIGRATIONS, write
from testing.fake_newapi import (
    DONE,
    EVENT_STREAM,
    Call,
    Script,
    chunk,
    document,
    event,
    events,
    stream,
    usage_chunk,
)
from testing.google import scenarios
from tests.browser import (
    barriers,
    chromium,
    in_browser,
    in_reactor,
    new_page,
    open_view,
    page,
    picture,
)
from tests.support import Product, Relay, Reply, chat, gpt, running_relay, until
from tests.test_processes import several

__all__ = ["chromium", "page"]

VIEWS = ("now", "plots", "journal", "try", "accounts", "usage", "routes", "settings", "checks")

# Each would run a script if it were taken for HTML, in one of the places where a text may stand.
HOSTILE = (
    "<img src=x onerror=pwned('img')>",
    "<script>pwned('script')</script>",
    "\"><svg onload=pwned('svg')>",
    "'><iframe srcdoc=\"<script>parent.pwned('frame')</script>\">",
    "</pre></td><details open ontoggle=pwned('toggle')>",
    "javascript:pwned('link')",
    "<a href=javascript:pwned('a')>{{7*7}}${7*7}</a>",
)


def serving(models: list[str], chat: Script) -> Script:
    """An upstream with these models, all of which answer alike."""
    listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in models]}

    async def serve(call: Call) -> None:
        await (document(listed) if call.target == "/v1/models" else chat)(call)

    return serve


@contextmanager
def running(**settings: Any) -> Iterator[Relay]:
    """A daemon while a test of the browser goes on."""
    context = running_relay(**settings)
    relay = in_reactor(context.__aenter__)
    try:
        yield relay
    finally:
        in_reactor(context.__aexit__, None, None, None)


PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8A"
    "AAAASUVORK5CYII="
)


@in_browser
def test_a_request_is_tried(page: Page, relay: Relay) -> None:
    """Text, thoughts and calls of a streamed answer, its events as they came, and its facts."""
    call = {"index": 0, "id": "c", "function": {"name": "look", "arguments": '{"up":1}'}}
    pictures = [{"image_url": {"url": url}} for url in (PICTURE, "https://elsewhere.invalid/x.png")]
    said = (
        chunk(delta={"reasoning_content": "Hm."}),
        chunk(delta={"images": pictures}),
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
    # One that somebody else would have to be asked for is not shown.
    assert log.get_by_role("img").evaluate_all("all => all.map((one) => one.naturalWidth)") == [1]
    expect(log).to_contain_text("stop · first token after")
    asked = json.loads(bytes(relay.upstream.calls[-1].body))
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]
    assert (asked["temperature"], asked["stream"]) == (0.5, True)


@in_browser
def test_a_try_is_stopped_and_an_error_is_shown(page: Page, relay: Relay) -> None:
    async def endless(call: Call) -> None:
        await call.whole()
        await call.head(headers=[EVENT_STREAM])
        await call.send(event(chunk("It begins")))
        await call.when_closed(20)

    relay.upstream.always(serving(["gpt-x"], endless))
    open_view(page, relay.port, "try")
    page.get_by_label("Model").fill("gpt-x")
    page.get_by_label("Message").fill("Go on")
    page.get_by_role("button", name="Send").click()
    log = page.get_by_role("log")
    expect(log).to_contain_text("It begins")
    page.get_by_role("button", name="Stop").click()
    expect(log).to_contain_text("stopped")
    in_reactor(relay.upstream.calls[-1].when_closed)
    refusal = {"error": {"message": "No such model here.", "code": "model_not_found"}}
    relay.upstream.always(serving(["gpt-x"], document(refusal, 404)))
    page.get_by_label("Message").fill("Again")
    page.get_by_role("button", name="Send").click()
    expect(log.get_by_role("alert")).to_have_text("404: No such model here.")
    # It can be sent again as it is.
    expect(page.get_by_label("Message")).to_have_value("Again")


@in_browser
def test_the_key_opens_it(page: Page) -> None:
    """The page never sees the cookie, and other sites cannot send it."""
    with running(ADMIN_KEY="the-admin-s-own-key", PROXY_API_KEYS="a-client-s-key") as relay:
        open_view(page, relay.port)
        key = page.get_by_label("Admin key")
        assert barriers(page) == []
        key.fill("a-client-s-key")
        key.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("ADMIN_KEY is required")
        key.fill("the-admin-s-own-key")
        key.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Now")
        [cookie] = page.context.cookies(f"http://localhost:{relay.port}/admin/login")
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("link", name="Routes").click()
        expect(page.get_by_role("table")).to_contain_text("newapi")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Admin key")).to_be_focused()


@in_browser
def test_what_is_missing_is_said_with_what_mends_it(page: Page, relay: Relay) -> None:
    in_reactor(relay.upstream.stop_listening)
    open_view(page, relay.port)
    problems = page.get_by_role("region", name="Something is missing")
    expect(problems).to_contain_text("upstream newapi")
    expect(problems.locator("code").first).to_contain_text("curl")
    in_reactor(relay.upstream.listen_again)


# --- What is under way.


async def hold(call: Call) -> None:
    """Begins to answer, and goes on until somebody goes."""
    await call.whole()
    await call.head(headers=[EVENT_STREAM])
    await call.send(event(chunk("It begins")))
    await call.when_closed(60)


@in_browser
def test_a_request_is_seen_and_ended(page: Page, relay: Relay) -> None:
    """By two clicks, since rows move; whoever was at the button by keyboard stays at the table."""
    relay.upstream.always(serving(["gpt-x"], hold))
    open_view(page, relay.port)
    summary = page.locator("#summary")
    expect(summary).to_have_text("No request is under way.")
    client = in_reactor(lambda: relay.begin(gpt(model="gpt-x", stream=True)))
    row = page.get_by_role("row").filter(has_text="gpt-x")
    expect(row).to_contain_text("streaming")
    expect(summary).to_have_text("1 request under way: 1 streaming.")
    row.get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(row.get_by_role("button")).to_have_text("Really?")
    page.keyboard.press("Enter")
    expect(row).to_have_count(0)
    expect(page.get_by_role("region", name="Requests under way")).to_be_focused()
    assert b"ended_by_operator" in in_reactor(client.reply).body


@in_browser
def test_gemini_is_tried_and_its_workers_and_keys_are_seen(product: Product, page: Page) -> None:
    """On its own port, with the real CLI."""
    open_view(page, product.port, "try")
    page.get_by_label("Model").fill("gemini-2.5-flash")
    page.get_by_label("Message").fill("Hello")
    product.api.play(scenarios.answer("Hello to you"))
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("log")).to_contain_text("Hello to you")
    names = ("gemini-2.5-flash", "gemini-2.5-pro", "gemini-3.8-flash")
    for name in names:
        product.api.play(scenarios.hang("It begins", after=1))
        in_reactor(product.begin, chat("Go on", model=name, stream=True))
    open_view(page, product.port)
    rows = page.get_by_role("region", name="Requests under way").get_by_role("row")
    for name in names:
        expect(rows.filter(has_text=name)).to_contain_text("streaming")
    workers = page.get_by_role("region", name="Workers")
    expect(workers).to_contain_text(str(product.worker_pids()[0]))
    expect(workers).to_contain_text("ready")
    keys = page.get_by_role("region", name="Keys for Gemini")
    expect(keys).to_contain_text("in use")
    expect(keys).not_to_contain_text("the-key")
    picture(page, "now")


@in_browser
def test_a_page_comes_back_when_the_daemon_does(page: Page) -> None:
    with running() as relay:
        open_view(page, relay.port)
        expect(page.get_by_text("Live.")).to_be_visible()
    expect(page.get_by_text("It is tried again.")).to_be_visible()
    with running(STREAM_PORT=relay.port):
        expect(page.get_by_text("Live.")).to_be_visible()


@pytest.mark.processes
@in_browser
def test_whichever_process_answers_the_console_is_that_of_all(page: Page, tmp_path: Path) -> None:
    settings = {
        "ADMIN_KEY": "the-admin-s-own-key",
        "LOG_DIR": "log",
        "USAGE_DAYS": "1",
        "DRAIN": "0",
    }
    context = several(tmp_path, **settings)
    daemon = in_reactor(context.__aenter__)
    try:
        in_reactor(daemon.begin_streams, 8)
        open_view(page, daemon.port)
        key = page.get_by_label("Admin key")
        key.fill("the-admin-s-own-key")
        key.press("Enter")
        summary = page.locator("#summary")
        expect(summary).to_have_text("8 requests under way: 8 streaming.")
        rows = page.get_by_role("region", name="Requests under way").locator("tbody tr")
        for left in range(7, 3, -1):
            button = rows.first.get_by_role("button")
            button.click()
            button.click()
            expect(rows).to_have_count(left)
        for view in VIEWS:
            open_view(page, daemon.port, view)
            expect(page.locator(f"main[data-shown='{view}']")).to_be_visible()
            expect(page.get_by_role("alert")).to_have_count(0)
        # Over connections of their own, which any process takes:
        [cookie] = page.context.cookies(f"http://localhost:{daemon.port}/admin/login")
        shown = {"Cookie": f"{cookie['name']}={cookie['value']}"}
        for _ in range(12):
            routes = in_reactor(partial(daemon.send, "GET", "/admin/routes", **shown))
            assert in_reactor(routes.reply).status == 200
    finally:
        in_reactor(context.__aexit__, None, None, None)


# --- The journal.


@in_browser
def test_an_exchange_is_found_opened_and_asked_again(page: Page, tmp_path: Path) -> None:
    """Its command for curl does the same once more."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    with running(LOG_DIR=tmp_path, LOG_KEEP=100) as relay:
        relay.upstream.always(
            serving(["gpt-5", "gpt-y"], stream("It is. Look up at noon.", usage=True))
        )
        asked = gpt("Why isn't the sky 'blue'?", model="gpt-5", stream=True)
        assert in_reactor(relay.ask, asked).status == 200
        in_reactor(relay.ask_all, [gpt(model="gpt-y")] * 54)
        in_reactor(until, lambda: len(list(tmp_path.iterdir())) >= 2 * 55, "all are written")
        open_view(page, relay.port, "journal")
        rows = page.get_by_role("table").locator("tbody tr")
        expect(rows).to_have_count(50)
        page.get_by_role("button", name="Older ones").click()
        expect(rows).to_have_count(55)
        expect(page.get_by_role("button", name="Older ones")).to_be_hidden()
        page.get_by_label("Text").fill("SKY")
        page.get_by_role("button", name="Search").click()
        expect(rows).to_have_count(1)
        page.get_by_role("link", name="gpt-5").click()
        expect(page.get_by_text("Why isn't the sky 'blue'?", exact=True)).to_be_visible()
        expect(page.get_by_role("heading", name="Answer").locator("..")).to_contain_text(
            "It is. Look up at noon."
        )
        relay.upstream.always(stream("At night it is not."))
        page.get_by_role("button", name="Ask again").click()
        again = page.get_by_role("heading", name="Asked again").locator("..")
        expect(again).to_contain_text("At night it is not.")
        assert barriers(page) == []
        picture(page, "journal")
        page.get_by_role("button", name="Copy as curl").click()
        expect(page.get_by_role("status")).to_have_text("Copied.")
        command = page.evaluate("navigator.clipboard.readText()")
        printed = subprocess.run(
            ["sh", "-c", f"{command} -sS"], capture_output=True, text=True, timeout=20, check=True
        ).stdout
        assert "At night it is not." in printed
        bodies = [json.loads(bytes(call.body)) for call in relay.upstream.calls if call.body]
        assert bodies[0] == bodies[-1] == bodies[-2]


# --- The usage.


async def recorded(relay: Relay, number: int) -> None:
    """Wait until so many requests are in the usage."""
    while True:
        reply = await relay.get("/admin/usage")
        if reply.status == 200 and reply.json["total"]["requests"] == number:
            return
        await deferLater(reactor, 0.05)


def write_a_day(path: Path) -> None:
    """A day in which three models were asked, the more the later it was."""
    connection = open_database(path / USAGE_FILE, MIGRATIONS)
    now = time()
    rows = [
        Row(
            time=now - 3600 * (23 - hour),
            account=account,
            model=model,
            upstream="newapi",
            status=429 if (hour * number) % 11 == 10 else 200,
            finish="stop",
            input=400 + 97 * hour,
            cached=0,
            output=90 + 31 * ((hour * 7 + number) % 13),
            reasoning=0,
            first_token=(wait := 0.2 + 0.03 * ((hour * 5 + number) % 17)),
            bucket=bucket_of(wait),
            duration=3.0,
            retries=0,
            cost=0.002 * (hour % 7 + 1),
            id=f"{hour:08}{number:08}",
        )
        for hour in range(24)
        for number, (account, model) in enumerate(ASKED)
        for _ in range(3 + (hour * (number + 3)) % (11 + 4 * number))
    ]
    with connection:
        write(connection, rows)
    connection.close()


ASKED = (("ann", "gemini-3.8-flash"), ("bob", "gpt-5"), ("ann", "claude-sonnet-4-5"))


@in_browser
def test_usage_is_plotted_and_summed_up(page: Page, tmp_path: Path) -> None:
    """Each plot has a table with the same for those who cannot see it."""
    write_a_day(tmp_path)
    with running(DATA_DIR=tmp_path, USAGE_DAYS=90) as relay:
        total = in_reactor(relay.get, "/admin/usage?from=24h").json["total"]
        open_view(page, relay.port, "plots")
        page.get_by_label("Group by").select_option("model")
        plot = page.get_by_role("figure", name="Requests")
        names = [model for _, model in ASKED]
        expect(plot.get_by_role("listitem")).to_have_count(len(names))
        picture(page, "plots")
        plot.get_by_text("As a table").click()
        heads = plot.get_by_role("columnheader")
        expect(heads).to_have_count(1 + len(names))
        assert set(heads.all_inner_texts()) == {"Time", *names}
        assert sum(map(int, plot.locator("td").all_inner_texts())) == total["requests"]
        page.get_by_label("Group by").select_option("")
        waits = page.get_by_role("figure", name="Time to first token")
        expect(waits.get_by_role("listitem")).to_have_text(["p50", "p95"])
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size({"width": 390, "height": 700})
        picture(page, "phone")
        open_view(page, relay.port, "usage")
        rows = page.get_by_role("table").get_by_role("row")
        expect(rows).to_have_count(5)
        expect(rows.last).to_contain_text(f"{total['requests']:,}")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download as CSV").click()
        assert "claude-sonnet-4-5" in download.value.path().read_text()


MESSAGES = [{"role": "user", "content": "Hello?"}]
GOOGLE = {"contents": [{"role": "user", "parts": [{"text": "Hello?"}]}]}
IN_DIALECTS = (
    ("/v1/chat/completions", {"messages": MESSAGES}),
    ("/v1/completions", {"prompt": "Hello?"}),
    ("/v1/responses", {"input": "Hello?"}),
    ("/v1/messages", {"messages": MESSAGES, "max_tokens": 100}),
)


@in_browser
def test_what_came_in_another_dialect_is_asked_again_in_it(page: Page, tmp_path: Path) -> None:
    """Streamed and not."""
    with running(LOG_DIR=tmp_path, LOG_KEEP=20) as relay:
        relay.upstream.always(only_chat)
        requests = [
            (path, {"model": "gpt-x", "stream": streamed} | fields)
            for path, fields in IN_DIALECTS
            for streamed in (True, False)
        ]
        requests += [
            (f"/v1beta/models/gpt-x:{method}", GOOGLE)
            for method in ("streamGenerateContent?alt=sse", "generateContent")
        ]
        for path, body in requests:
            reply = in_reactor(post, relay, path, body)
            assert reply.status == 200, (path, reply.body)
        in_reactor(until, lambda: len(list(tmp_path.iterdir())) >= 2 * len(requests), "written")
        for number, (path, body) in enumerate(requests, 1):
            open_view(page, relay.port, f"journal/{number}")
            expect(page.get_by_text("Hello?", exact=True)).to_be_visible()
            page.get_by_role("button", name="Ask again").click()
            again = page.get_by_role("heading", name="Asked again").locator("..")
            expect(again.get_by_text("Good day", exact=True)).to_be_visible()
            # OpenAI's streams tell the usage to those who ask for it.
            if not (body.get("stream") and path.endswith("completions")):
                expect(again).to_contain_text("9 tokens in, 2 out")
            assert path.partition("?")[0] in page.get_by_role("main").inner_text()


async def post(relay: Relay, path: str, body: Any) -> Reply:
    return await (await relay.send("POST", path, body)).reply()


async def only_chat(call: Call) -> None:
    """An upstream that speaks nothing but chat completions."""
    is_chat = call.target == "/v1/chat/completions"
    unknown = document({"error": {"message": "No such path."}}, 404)
    await (stream("Good ", "day", usage=True) if is_chat else unknown)(call)


# --- Accounts.


@in_browser
def test_an_account_is_added_changed_and_revoked(page: Page, tmp_path: Path) -> None:
    """Its key is shown once, and works until it is taken back."""
    with running(ADMIN_KEY="the-admin-s-own-key", DATA_DIR=tmp_path) as relay:
        relay.upstream.always(serving(["gpt-x"], stream("Hello")))

        def status(key: str) -> int:
            asked = partial(relay.ask, gpt(model="gpt-x"), Authorization=f"Bearer {key}")
            return int(in_reactor(asked).status)

        open_view(page, relay.port, "accounts")
        page.get_by_label("Admin key").fill("the-admin-s-own-key")
        page.keyboard.press("Enter")
        page.get_by_label("Name").fill("bob")
        page.get_by_label("Models").fill("gpt-*, claude-*")
        page.get_by_label("Requests a minute").fill("20")
        page.get_by_label("Budgets").fill("a lot")
        page.get_by_role("button", name="Add").click()
        expect(page.get_by_role("alert")).to_contain_text("'a lot' is no budget")
        page.get_by_label("Budgets").fill("5USD/month")
        page.get_by_role("button", name="Add").click()
        notice = page.get_by_role("region", name="The new key")
        expect(notice).to_be_focused()
        key = notice.locator("code").inner_text()
        row = page.get_by_role("row").filter(has_text="bob")
        for text in ("gpt-*, claude-*", "20 requests/min", "5USD/month"):
            expect(row).to_contain_text(text)
        assert status(key) == 200
        row.get_by_role("button", name="change bob").click()
        page.get_by_label("Models").fill("gpt-y")
        page.get_by_role("button", name="Save").click()
        expect(row).to_contain_text("gpt-y")
        assert status(key) in (403, 404)
        row.get_by_role("button", name="revoke bob").click()
        row.get_by_role("button", name="Really revoke bob?").click()
        expect(row).to_have_count(0)
        assert status(key) == 401


# --- Everything.


@in_browser
def test_no_view_has_a_barrier_or_is_wider_than_a_phone(page: Page, tmp_path: Path) -> None:
    """In light and dark."""
    page.set_viewport_size({"width": 360, "height": 740})
    with running(LOG_DIR=str(tmp_path / "log"), DATA_DIR=str(tmp_path), USAGE_DAYS="1") as relay:
        relay.upstream.always(serving(["gpt-x"], stream("Hello", usage=True)))
        in_reactor(relay.ask, gpt(model="gpt-x"))
        in_reactor(recorded, relay, 1)
        for view in VIEWS:
            page.emulate_media(color_scheme="light")
            open_view(page, relay.port, view)
            assert barriers(page) == [], view
            over = page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
            assert over <= 0, view
            page.emulate_media(color_scheme="dark")
            assert barriers(page, "color-contrast") == [], view


@in_browser
def test_a_keyboard_is_enough(page: Page, relay: Relay) -> None:
    open_view(page, relay.port, "routes")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    link = page.get_by_role("link", name="Settings")
    link.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Settings")
    expect(page.get_by_role("main")).to_be_focused()
    expect(link).to_have_attribute("aria-current", "page")


# A daemon's events in place of the real ones: there are a thousand requests, and ten times a second
# all of them change, the oldest end, and others begin.
MANY = """() => {
  const all = Array.from({ length: 1000 }, (_, number) => ({
    id: `${number}`.padStart(16, "0"), began: Date.now() / 1000, path: "/v1/chat/completions",
    route: "stream/x", model: `model-${number % 7}`, account: null, stream: true,
    client: "127.0.0.1", state: "streaming", retries: 0, tokens: 0, speed: 30, sent: 0,
  }));
  const { fetch } = window;
  let over;
  window.whenOver = new Promise((resolve) => (over = resolve));
  window.fetch = (url, options) => {
    if (!String(url).endsWith("admin/live")) return fetch(url, options);
    const encoder = new TextEncoder();
    const body = new ReadableStream({
      async start(controller) {
        const tell = (event, fields) => {
          const data = JSON.stringify({ time: Date.now() / 1000, ...fields });
          controller.enqueue(encoder.encode(`event: ${event}\\ndata: ${data}\\n\\n`));
        };
        tell("state", { requests: all, requests_total: 1000, workers: [], keys: [],
          upstreams: [], queues: {} });
        for (let turn = 1; turn <= 20; turn++) {
          await new Promise((resolve) => setTimeout(resolve, 100));
          const ended = all.splice(0, 20).map(({ id }) => id);
          const begun = ended.map((id) => ({ ...all[0], id: `${turn}${id.slice(2)}` }));
          tell("change", { requests: { ended, new: begun,
            changed: all.map(({ id }) => ({ id, tokens: turn * 10, speed: turn })) } });
          all.push(...begun);
        }
        over();
      },
    });
    const headers = { "content-type": "text/event-stream" };
    return Promise.resolve(new Response(body, { headers }));
  };
}"""


@in_browser
def test_a_thousand_requests_take_less_than_a_frame_s_time(page: Page, relay: Relay) -> None:
    """By the processor's time: the machine may be busy. All that an event causes counts."""
    page.add_init_script(f"({MANY})()")
    tools = page.context.new_cdp_session(page)
    tools.send("Performance.enable", {"timeDomain": "threadTicks"})
    open_view(page, relay.port)
    expect(page.locator("#summary")).to_contain_text("1,000 requests under way")
    before = busy_for(tools)
    page.evaluate("whenOver")
    spent = busy_for(tools) - before
    assert spent / 20 < 0.05
    rows = page.get_by_role("region", name="Requests under way").locator("tbody tr")
    assert rows.count() == 50
    expect(rows.first).to_contain_text("200")


def busy_for(tools: CDPSession) -> float:
    """The seconds that the page's thread has worked."""
    metrics = tools.send("Performance.getMetrics")["metrics"]
    return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))


# --- Texts of others.


@in_browser
def test_hostile_texts_stay_texts(chromium: Browser, tmp_path: Path) -> None:
    """
    Names of models and accounts, questions, answers and errors, in every view that shows them; the
    page's policy, which would refuse scripts, does not hold here.
    """
    page = new_page(chromium, bypass_csp=True)
    page.expose_function("pwned", lambda how: page.failures.append(how))
    kept = {"LOG_DIR": tmp_path / "log", "LOG_KEEP": 20, "DATA_DIR": tmp_path, "USAGE_DAYS": 1}
    with running(**kept) as relay:
        relay.upstream.always(serving([*HOSTILE], echo))
        for text in HOSTILE:
            asked = partial(gpt, text, model=text)
            assert in_reactor(relay.ask, asked()).status == 200
            assert in_reactor(relay.ask, asked(temperature=REFUSED)).status == 400
            in_reactor(relay.begin, asked(temperature=HELD, stream=True))
        in_reactor(recorded, relay, 2 * len(HOSTILE))
        page.route("**/admin/*", with_hostile_names)
        for view in ("now", "accounts", "usage", "journal"):
            open_view(page, relay.port, view)
            for text in HOSTILE:
                expect(page.get_by_text(text, exact=True).first).to_be_visible()
            assert page.locator(FOREIGN).count() == 0, view
        for number in range(len(HOSTILE)):
            open_view(page, relay.port, f"journal/{2 * number + 1}")
            expect(page.get_by_text(HOSTILE[number], exact=True)).to_have_count(3)
        open_view(page, relay.port, "try")
        page.get_by_label("Show raw events").check()
        log = page.get_by_role("log")
        for text in HOSTILE:
            page.get_by_label("Model").fill(text)
            page.get_by_label("Message").fill(text)
            page.get_by_role("button", name="Send").click()
            expect(log.get_by_text(text, exact=True)).to_have_count(3)
            page.get_by_role("button", name="New conversation").click()
        page.get_by_label("Temperature").fill(f"{REFUSED}")
        page.get_by_label("Message").fill(HOSTILE[0])
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_role("alert")).to_have_text(f"400: {HOSTILE[0]}")
        assert page.locator(FOREIGN).count() == 0
    page.context.close()
    assert page.failures == []


# The temperatures at which the upstream does not just say what it was told.
REFUSED, HELD = 2, 1


async def echo(call: Call) -> None:
    await call.whole()
    text = call.json["messages"][-1]["content"]
    if call.json.get("temperature") == REFUSED:
        await document({"error": {"message": text}}, 400)(call)
    elif call.json.get("temperature") == HELD:
        await hold(call)
    else:
        await stream(text)(call)


# What the page has none of by itself.
FOREIGN = "main img, main iframe, main script, main [ontoggle], svg[onload], a[href^=java]"


def with_hostile_names(route: Route) -> None:
    """What /admin answers, had accounts such names: the daemon allows none."""
    if route.request.url.endswith(("/live", "/login")):
        route.continue_()
    elif route.request.url.endswith("/keys"):
        limits = {"models": [], "budgets": [], "expires": None, "on": True, "is_setting": False}
        route.fulfill(json={"data": [limits | {"name": text, "key": text} for text in HOSTILE]})
    else:
        body = route.fetch().text()
        route.fulfill(body=body.replace('"account":null', f'"account":{json.dumps(HOSTILE[0])}'))
