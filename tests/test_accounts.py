"""Who the clients are: by what they show, and what is recorded of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.logger import formatEvent

from gemproxy.accounts.account import Account, accounts_of_keys
from gemproxy.accounts.known_keys import KnownKeys, digest_of
from gemproxy.web.credentials import Credentials
from testing.fake_newapi import document, stream
from tests.support import gpt, running_relay, until

ACCOUNTS = accounts_of_keys(["first-key", "second-key"])
KNOWN = KnownKeys({digest_of(key): account for key, account in ACCOUNTS.items()})


def shown(query: bytes = b"", **headers: str | list[str]) -> Credentials:
    values = {name.replace("_", "-"): value for name, value in headers.items()}

    def of(name: bytes) -> list[str]:
        value = values.get(name.decode(), [])
        return [value] if isinstance(value, str) else value

    return Credentials.of(of, query)


@pytest.mark.parametrize(
    ("credentials", "name"),
    [
        (shown(authorization="Bearer first-key"), "key-1"),
        (shown(authorization="bearer second-key"), "key-2"),
        (shown(authorization="BEARER  second-key "), "key-2"),
        (shown(x_api_key="first-key"), "key-1"),
        (shown(api_key=" second-key "), "key-2"),
        (shown(x_goog_api_key="first-key"), "key-1"),
        (shown(b"alt=sse&key=first%2Dkey"), "key-1"),
        (shown(sec_websocket_protocol="realtime, openai-insecure-api-key.first-key"), "key-1"),
        (shown(sec_websocket_protocol=["a, b", "openai-insecure-api-key.second-key"]), "key-2"),
        # Each of them is enough: the other may be for the upstream.
        (shown(authorization="Bearer sk-for-the-upstream", x_api_key="first-key"), "key-1"),
        (shown(authorization="Bearer first-key", x_api_key="sk-for-the-upstream"), "key-1"),
        (shown(authorization=["Basic eDp5", "Bearer first-key"]), "key-1"),
        (shown(), None),
        (shown(b"key=&monkey=first-key", authorization="Bearer "), None),
        (shown(authorization="Bearer first-key second-key"), None),
        (shown(authorization="first-key"), None),
        (shown(authorization="Basic first-key"), None),
        (shown(x_api_key="Bearer first-key"), None),
        (shown(x_api_key=["x", "", "FIRST-KEY", "\udc80", "first-ke", "first-keyy"]), None),
        (shown(b"key=x&" * 20, authorization="Bearer first-key"), None),
    ],
)
def test_the_account_is_that_of_the_key(credentials: Credentials, name: str | None) -> None:
    found = KNOWN.find(credentials.keys())
    assert (found and found.name) == name


@given(st.text(), st.text(), st.binary())
def test_nothing_that_a_client_may_show_is_too_much(one: str, other: str, query: bytes) -> None:
    credentials = shown(query, authorization=one, api_key=other, sec_websocket_protocol=other)
    assert KNOWN.find(credentials.keys()) is None
    assert len(credentials.owner()) == 64


def test_the_owner_is_whoever_shows_the_same_however_it_is_shown() -> None:
    owners = {
        shown(authorization="Bearer k").owner(),
        shown(x_api_key="k").owner(),
        shown(b"key=k").owner(),
        shown(b"key=j").owner(),
        shown().owner(),
    }
    assert len(owners) == 4


def test_names_of_keys_show_nothing_of_them() -> None:
    assert list(accounts_of_keys(["a-secret", "b"]).values()) == [
        Account("key-1"),
        Account("key-2"),
    ]


@ensureDeferred
async def test_the_account_is_in_the_log_and_in_the_journal(tmp_path: Path) -> None:
    settings = {"PROXY_API_KEYS": "first-key,second-key", "LOG_DIR": tmp_path}
    async with running_relay(**settings) as relay:
        assert (await relay.ask(gpt(), x_api_key="second-key")).status == 200
        lines = [formatEvent(event) for event in relay.logged]
        assert any("account=key-2 route=" in line for line in lines)
        # Its output is written last.
        await until(lambda: list(tmp_path.glob("*_output.txt")), "the journal is written")
        (request,) = [json.loads(path.read_text()) for path in tmp_path.glob("*_input.json")]
        (answer,) = [path.read_text() for path in tmp_path.glob("*_output.txt")]
    assert request["account"] == "key-2"
    assert "account: key-2\n" in answer


@ensureDeferred
async def test_a_key_in_the_query_is_as_good_as_one_in_a_header(tmp_path: Path) -> None:
    """It is masked, and it says whose a response is, as others are."""
    key = "AKeyThatLooksLikeNone"
    async with running_relay(RESPONSES_KEEP=1, DATA_DIR=tmp_path) as relay:
        relay.upstream.always(document({"error": {"message": f"no {key}"}}, status=400))
        for path in ("/v1/chat/completions", "/v1/embeddings"):
            reply = await (await relay.send("POST", f"{path}?key={key}", gpt())).reply()
            assert reply.error["message"].startswith("no [secret]")
        relay.upstream.play(stream("Hi"))
        asked = {"model": "gemini-x", "input": "Hello"}
        reply = await (await relay.send("POST", f"/v1/responses?key={key}", asked)).reply()
        at = f"/v1/responses/{reply.json['id']}"
        assert (await relay.get(f"{at}?key={key}")).status == 200
        assert (await relay.get(f"{at}?key=another")).status == 400
