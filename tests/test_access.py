"""Who is let in, by accounts, Host and Origin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.accounts.account import Account
from gemproxy.web.access import Access
from tests.tables import each

OPEN = Access()
KEYS = Access(needs_key=lambda: True)
TEAM = Account("team")
HOME = "localhost:3000"


def status(
    access: Access,
    host: str | None = HOME,
    origin: str | None = None,
    account: Account | None = None,
    path: bytes = b"/v1/models",
) -> int:
    """The status that a request is refused with; 200 for none."""
    error = access.refusal(path, host, origin, account)
    return 200 if error is None else error.status


@each(
    "host",
    [
        None,
        "localhost",
        "localhost:3000",
        "LOCALHOST:3000",
        "127.0.0.1:3000",
        "127.1.2.3",
        "[::1]:3000",
        "gemproxy:3002",
        "chat.localhost:3000",
        "192.168.1.5:3000",
        "host.docker.internal:3002",
        "box.lan",
        "Box.Local.:3000",
        "box.home.arpa",
    ],
)
def test_a_proxy_without_keys_goes_by_local_names(host: str | None) -> None:
    assert status(OPEN, host) == 200


@each(
    "host",
    [
        "evil.example:3000",
        "localhost.evil.example",
        "127.0.0.1.evil.example:3000",
        "127.0.0.1@evil.example",
        "evil.example#localhost",
        "evil.example:80@",
        "[::1",
        "[evil.example]",
        "",
        ":3000",
        "1.2.3",
        "evil.example.",
        "lan.evil.example",
        "evil.localx",
    ],
)
def test_a_stranger_s_name_for_a_proxy_without_keys_is_refused(host: str) -> None:
    error = OPEN.refusal(b"/v1/models", host, None, None)
    assert error is not None
    assert (error.status, error.code) == (403, "host_not_allowed")


def test_the_refusal_of_a_name_says_how_to_allow_it() -> None:
    error = OPEN.refusal(b"/v1/models", "evil.example" * 1000, None, None)
    assert error is not None
    assert "ALLOWED_HOSTS" in error.message
    assert len(error.message) < 400


def test_names_are_anybody_s_business_where_keys_are() -> None:
    assert status(KEYS, "chat.example", None, TEAM) == 200


@pytest.mark.parametrize(
    ("allowed", "welcome", "refused"),
    [
        (
            "chat.example",
            ("chat.example", "CHAT.example:3000", "chat.example."),
            ("a.chat.example", "evilchat.example", "chat.example.evil.example"),
        ),
        (".b.example", ("a.b.example:80", "x.a.b.example"), ("b.example", "evilb.example")),
    ],
)
def test_an_allowed_name_is_one_of_its_own(
    allowed: str, welcome: tuple[str, ...], refused: tuple[str, ...]
) -> None:
    access = Access(hosts=(allowed,))
    for host in welcome:
        assert status(access, host) == 200
        assert status(access, host, f"http://{host}") == 200
        assert access.is_own(host, host)
    for host in refused:
        assert status(access, host) == 403
        assert status(access, host, f"http://{host}") == 403
        assert not access.is_own(host, host)


def test_all_names_are_welcome_with_a_star_but_not_their_pages() -> None:
    access = Access(hosts=("*",))
    assert status(access, "any.example") == 200
    assert status(access, "any.example", "http://any.example") == 403


@each(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://localhost:8000",
        "http://localhost",
        "http://127.0.0.1:3000",
        "file://",
        "http://evil.example/localhost:3000",
        "http://localhost:3000@evil.example",
        "",
        "http://[::1",
        "x" * 100_000,
    ],
)
@each("needs_key", [False, True])
def test_pages_of_other_origins_are_refused_with_or_without_a_key(
    origin: str, needs_key: bool
) -> None:
    error = Access(lambda: needs_key).refusal(b"/v1/chat/completions", HOME, origin, TEAM)
    assert error is not None
    assert (error.status, error.code) == (403, "origin_not_allowed")
    assert len(error.message) < 400


def test_pages_of_its_own_address_are_welcome() -> None:
    assert status(OPEN, HOME, f"http://{HOME}") == 200


def test_a_page_whose_name_was_made_to_point_here_is_not_one_of_its_own() -> None:
    assert status(OPEN, "evil.example:3000", "http://evil.example:3000") == 403


def test_listed_pages_are_welcome_and_may_read() -> None:
    access = Access(origins=("https://chat.example", "http://localhost:8000"))
    for origin in access.origins:
        assert status(access, HOME, origin) == 200
        assert access.cors_headers(origin, False)["Access-Control-Allow-Origin"] == origin
    for origin in ("https://chat.example:444", "http://chat.example", "https://a.chat.example"):
        assert status(access, HOME, origin) == 403
        assert access.cors_headers(origin, False) == {}
    # What serves the page may serve the proxy as well.
    assert status(access, "chat.example", "https://chat.example") == 200


def test_all_pages_are_welcome_with_a_star() -> None:
    access = Access(origins=("*",))
    for origin in ("https://any.example", "null"):
        assert status(access, "any.example", origin) == 200
        headers = access.cors_headers(origin, True)
        assert headers["Access-Control-Allow-Origin"] == origin
        assert headers["Vary"] == "Origin"
        assert "POST" in headers["Access-Control-Allow-Methods"]
        assert "Authorization" in headers["Access-Control-Allow-Headers"]


def test_without_pages_there_are_no_headers_for_them() -> None:
    assert OPEN.cors_headers(None, True) == {}
    assert OPEN.cors_headers("https://chat.example", True) == {}
    assert Access(origins=("*",)).cors_headers(None, False) == {}


def test_an_account_opens_where_a_key_is_needed() -> None:
    assert status(KEYS, account=TEAM) == 200
    error = KEYS.refusal(b"/v1/models", HOME, None, None)
    assert error is not None
    assert (error.status, error.code) == (401, "invalid_api_key")
    for name in ("Authorization: Bearer KEY", "x-api-key", " api-key", "x-goog-api-key"):
        assert name in error.message


@pytest.mark.parametrize("path", [b"/health", b"/ready"])
def test_health_needs_no_key(path: bytes) -> None:
    assert status(KEYS, path=path) == 200


@pytest.mark.parametrize(
    "path", [b"/metrics", b"/v1/models", b"/health/", b"/healthy", b"/v1/health", b"/", b"*", b""]
)
def test_every_other_path_does(path: bytes) -> None:
    assert status(KEYS, path=path) == 401


def test_metrics_may_need_none() -> None:
    access = Access(needs_key=lambda: True, are_metrics_open=True)
    assert [status(access, path=path) for path in (b"/metrics", b"/metrics/x")] == [200, 401]


@given(
    st.none() | st.text(),
    st.none() | st.text(),
    st.binary(),
)
def test_nothing_that_a_client_may_send_is_too_much(
    host: str | None, origin: str | None, path: bytes
) -> None:
    lists = (Access(origins=("https://chat.example",)), Access(hosts=(".example",)))
    for access in (OPEN, KEYS, *lists, Access(origins=("*",))):
        error = access.refusal(path, host, origin)
        assert error is None or error.status in (401, 403)
        access.cors_headers(origin, True)


# Pages that send no Origin


@pytest.mark.parametrize(
    ("access", "site", "origin", "expected"),
    [
        (OPEN, "cross-site", None, 403),
        (OPEN, "same-site", None, 200),
        (OPEN, "same-origin", None, 200),
        # An address that was typed.
        (OPEN, "none", None, 200),
        (OPEN, None, None, 200),
        (Access(origins=("https://chat.example",)), "cross-site", None, 403),
        (Access(origins=("https://chat.example",)), "cross-site", "https://chat.example", 200),
        (Access(origins=("*",)), "cross-site", None, 200),
        (KEYS, "cross-site", None, 401),
    ],
)
def test_what_a_page_of_another_site_shows_or_links_to(
    access: Access, site: str | None, origin: str | None, expected: int
) -> None:
    for path in (b"/v1/models", b"/v1/files/x/content", b"/metrics"):
        error = access.refusal(path, HOME, origin, None, site)
        assert (200 if error is None else error.status) == expected


def test_it_may_come_with_a_key() -> None:
    assert KEYS.refusal(b"/v1/models", HOME, None, TEAM, "cross-site") is None
