"""The door of /admin: keys, and the pages of other sites."""

from __future__ import annotations

from typing import Any

from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from gemproxy.web.access import is_same_origin
from gemproxy.web.admin_sessions import LIFETIME, AdminSessions
from tests.support import Reply, running_relay

KEY = "key-of-the-admin-1"
EVIL = {"Origin": "https://evil.example"}
SHOWN = {"Authorization": f"Bearer {KEY}"}


@ensureDeferred
async def test_with_a_key_nothing_opens_but_the_key():
    async with running_relay(ADMIN_KEY=KEY, CORS_ORIGINS="*") as relay:
        for method, path, headers, status in (
            ("GET", "/admin/routes", {}, 401),
            ("GET", "/admin/nothing", {}, 401),
            ("GET", "/admin/nothing", SHOWN, 404),
            ("GET", "/admin/../admin/routes", {}, 400),
            ("PUT", "/admin/routes", SHOWN, 405),
            # A page that knows the key may use it; no browser adds it by itself.
            ("POST", "/admin/reload", SHOWN | EVIL, 200),
        ):
            reply = await (await relay.send(method, path, **headers)).reply()
            assert reply.status == status, (method, path)
            if status != 400:
                assert reply.headers["cache-control"] == "no-store"


@ensureDeferred
async def test_without_a_key_it_is_closed_to_the_pages_of_other_sites():
    async with running_relay(CORS_ORIGINS="*") as relay:
        for headers, status in (
            ({}, 200),
            (EVIL, 403),
            ({"Sec_Fetch_Site": "cross-site"}, 403),
            ({"Sec_Fetch_Site": "same-site", "Origin": "http://localhost"}, 403),
            ({"Sec_Fetch_Site": "same-origin"}, 200),
            ({"Origin": "http://localhost"}, 200),
        ):
            for method, path in (("GET", "/admin/routes"), ("POST", "/admin/reload")):
                reply = await (await relay.send(method, path, **headers)).reply()
                assert reply.status == status, (method, headers)


@ensureDeferred
async def test_without_a_key_it_is_closed_to_what_only_looks_like_this_machine():
    """The clients of a proxy on it, and pages whose host name resolves to it."""
    for settings, headers, status in (
        ({}, ["Host: 127.0.0.1:3000"], 200),
        ({}, ["Host: localhost", "X-Forwarded-For: 203.0.113.7"], 403),
        ({}, ["Host: localhost", "x-forwarded-proto: https"], 403),
        ({}, ["Host: localhost", "CF-Connecting-IP: 127.0.0.1"], 403),
        ({"TRUSTED_PROXIES": "127.0.0.1"}, ["Host: localhost", "X-Forwarded-For: ::1"], 200),
        ({"ALLOWED_HOSTS": "*"}, ["Host: evil.example", "Origin: http://evil.example"], 403),
        ({"CORS_ORIGINS": "*"}, ["Host: evil.example", "Sec-Fetch-Site: same-origin"], 403),
    ):
        async with running_relay(**settings) as relay:
            client = await relay.connect()
            lines = ["GET /admin/routes HTTP/1.1", *headers, "", ""]
            client.transport.write("\r\n".join(lines).encode())
            assert (await client.reply()).status == status, (settings, headers)


def test_the_browser_is_believed_where_a_proxy_has_changed_the_host():
    assert is_same_origin("https://gem.example", "10.0.0.7", "same-origin")
    assert not is_same_origin("https://gem.example", "gem.example", "cross-site")
    assert not is_same_origin("https://gem.example", None, None)


# Browsers


@ensureDeferred
async def test_a_browser_logs_in_and_out():
    """With the keys of clients, too, which open nothing here."""
    settings = {"ADMIN_KEY": KEY, "PROXY_API_KEYS": "key-of-a-client", "CORS_ORIGINS": "*"}
    async with running_relay(TRUSTED_PROXIES="127.0.0.1", **settings) as relay:

        async def say(method: str, path: str, body: Any = None, **headers: str) -> Reply:
            return await (await relay.send(method, path, body, **headers)).reply()

        told = await say("GET", "/admin/login")
        assert told.json == {"open": False, "code": "invalid_api_key", "needs_key": True}
        for body, status in (
            ({"key": "key-of-a-client"}, 401),
            ({"key": None}, 400),
            (b"no JSON", 400),
            (b"x" * 200_000, 413),
        ):
            reply = await say("POST", "/admin/login", body)
            assert (reply.status, "set-cookie" in reply.headers) == (status, False)
        for headers, status in (EVIL, 403), ({"Sec_Fetch_Site": "same-site"}, 403), ({}, 200):
            reply = await say("POST", "/admin/login", {"key": KEY}, **headers)
            assert (reply.status, "set-cookie" in reply.headers) == (status, status == 200)
        cookie, *flags = reply.headers["set-cookie"].split("; ")
        assert {flag.lower() for flag in flags} == {
            f"max-age={reply.json['seconds']}",
            "path=/admin",
            "httponly",
            "samesite=strict",
        }
        shown = {"Cookie": cookie}
        for headers, status in ({}, 200), (EVIL, 403), ({"Cookie": cookie + "x"}, 401):
            for method, path in ("GET", "/admin/routes"), ("POST", "/admin/reload"):
                assert (await say(method, path, **(shown | headers))).status == status
        assert (await say("GET", "/admin/login", **shown)).json["open"]
        # It opens nothing else.
        assert (await say("GET", "/v1/models", **shown)).status == 401
        assert (await say("POST", "/admin/logout", **shown)).status == 200
        assert (await say("GET", "/admin/routes", **shown)).status == 401
        tls = await say("POST", "/admin/login", {"key": KEY}, X_Forwarded_Proto="https")
        assert "secure" in tls.headers["set-cookie"].lower()


@ensureDeferred
async def test_where_there_is_no_key_nobody_logs_in():
    async with running_relay() as relay:
        assert (await relay.get("/admin/login")).json["open"]
        reply = await (await relay.send("POST", "/admin/login", {"key": ""})).reply()
        assert (reply.status, "set-cookie" in reply.headers) == (200, False)
    async with running_relay(PROXY_API_KEYS="key-of-a-client") as relay:
        told = (await relay.get("/admin/login")).json
        assert told == {"open": False, "code": "admin_closed", "needs_key": False}
        reply = await (await relay.send("POST", "/admin/login", {"key": ""})).reply()
        assert reply.status == 403


def test_sessions_end_in_time_and_are_not_many():
    clock = Clock()
    sessions = AdminSessions(clock.seconds, most=2)
    first, second, third = sessions.begin(), sessions.begin(), sessions.begin()
    assert [*map(sessions.knows, (first, second, third, ""))] == [False, True, True, False]
    clock.advance(LIFETIME - 1)
    assert sessions.knows(third)
    clock.advance(1)
    assert not sessions.knows(third)
