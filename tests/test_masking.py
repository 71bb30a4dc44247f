"""What is masked in texts that leave the daemon."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.util.masking import MASK, MOST_SHOWN_KEYS, Masking, shown_keys

# Few letters, so that keys overlap, repeat and contain each other.
KEYS = st.text("ab-", min_size=8, max_size=12)


@given(st.lists(KEYS, max_size=4), st.lists(KEYS | st.text("ab-ü\ud800", max_size=5)))
def test_no_known_key_is_left_and_nothing_else_is_touched(keys: list[str], pieces: list[str]):
    text = "".join(pieces)
    masked = Masking(keys).in_text(text)
    assert not any(key in masked for key in keys)
    if not any(key in text for key in keys):
        assert masked == text
    assert Masking(keys).in_bytes(text.encode("utf-8", "replace")) == masked.encode(
        "utf-8", "replace"
    )


def test_a_mask_is_not_masked_again():
    assert Masking(["key-of-a-client", "[secret]"]).in_text("key-of-a-client") == MASK


def test_the_longest_key_counts():
    longer = [f"sk-short-1{'-and-longer' * times}" for times in range(8)]
    masking = Masking(longer[:2]).with_keys(longer[2:])
    assert masking.in_text(", ".join(longer)) == ", ".join([MASK] * 8)


def test_short_words_are_no_keys():
    assert Masking(["", "none", "1234567"]).in_text("none of 1234567") == "none of 1234567"


@pytest.mark.parametrize("key", ['quote"and\\back', "grüße-grüße", "tab\tand\nline"])
def test_a_key_is_found_in_json_too(key: str):
    for ascii_only in (True, False):
        document = json.dumps({"said": f"My key is {key}."}, ensure_ascii=ascii_only)
        masked = Masking([key]).in_bytes(document.encode())
        assert json.loads(masked) == {"said": f"My key is {MASK}."}


@pytest.mark.parametrize(
    "key",
    [
        "AIza" + string.ascii_letters[:35],
        "AQ." + string.ascii_letters[:40],
        "ya29." + "a0-_" * 10,
        "ya29.c.c0-_" + "a0-_" * 10,
        "ya29.c.c0.aaaaa-b.cccccccc",
        "sk-" + "0" * 48,
        "sk-ant-api03-" + "a" * 80,
        "gsk_" + "a" * 52,
        "xai-" + "a" * 80,
    ],
)
def test_what_looks_like_a_key_is_masked_if_wished(key: str):
    text = f"Incorrect key: {key}. See https://x.example/?key={key}&a=b"
    assert Masking([]).in_text(text) == text
    masked = Masking([], lookalikes=True).in_text(text)
    assert masked == f"Incorrect key: {MASK}. See https://x.example/?key={MASK}&a=b"


def test_ordinary_words_do_not_look_like_keys():
    text = "The task-management-of-our-risk-assessments at sk-learn, AIzawa and x.sk-1."
    assert Masking([], lookalikes=True).in_text(text) == text


def test_a_credential_is_a_scheme_and_a_word():
    assert shown_keys(["Bearer sk-one-0001", "bearer  sk-two-0002", "sk-three-3"]) == [
        "sk-one-0001",
        "sk-two-0002",
        "sk-three-3",
    ]
    assert (
        shown_keys(["", "Bearer", "Basic YWJj", "Bearer ke\x01y-00001", "Bearer kéy-00001"]) == []
    )


def test_the_keys_that_a_client_shows_are_few():
    words = " ".join(f"word-{number:06d}" for number in range(1500))
    assert shown_keys([words, "Bearer sk-the-key-0001"]) == [
        "word-000000",
        "word-000001",
        "sk-the-key-0001",
    ]
    assert len(shown_keys(words.split())) == MOST_SHOWN_KEYS
    assert shown_keys(["sk-the-key-0001"] * 1500) == ["sk-the-key-0001"]
