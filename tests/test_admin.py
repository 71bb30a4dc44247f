"""The door of /admin: keys, and the pages of other sites."""

from __future__ import annotations

from pytest_twisted import ensureDeferred

from gemproxy.web.access import is_same_origin
from tests.support import running_relay

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


def test_the_browser_is_believed_where_a_proxy_has_changed_the_host():
    assert is_same_origin("https://gem.example", "10.0.0.7", "same-origin")
    assert not is_same_origin("https://gem.example", "gem.example", "cross-site")
    assert not is_same_origin("https://gem.example", None, None)
