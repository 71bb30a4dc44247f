"""The paths that sloppy clients ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.web.paths import model_in_path, tidy_path
from tests.tables import each

CHAT = b"/v1/chat/completions"
MODELS = b"/v1/models"


@each(
    ("path", "meant"),
    [
        (CHAT, CHAT),
        (b"/chat/completions", CHAT),
        (b"/v1//chat/completions", CHAT),
        (b"//v1///chat//completions//", CHAT),
        (b"/v1/v1/chat/completions", CHAT),
        (b"/v1//v1/v1/chat/completions/", CHAT),
        (b"/v1/chat/completions/", CHAT),
        (b"/chat/completions/", CHAT),
        (MODELS, MODELS),
        (b"/models", MODELS),
        (b"/models/", MODELS),
        (b"/v1//models", MODELS),
        (b"/v1/v1/models//", MODELS),
        (b"/models/gemini-2.5-pro", b"/v1/models/gemini-2.5-pro"),
        (b"/v1/v1/models/gemini-2.5-pro", b"/v1/models/gemini-2.5-pro"),
        (b"/v1/models/gemini-2.5-pro/", b"/v1/models/gemini-2.5-pro"),
        (b"/models/models/gemini-2.5-pro/", b"/v1/models/models/gemini-2.5-pro"),
        (b"/v1/models/org/name//", b"/v1/models/org/name"),
        (b"/models/v1/models", b"/v1/models/v1/models"),
        (b"/models/chat/completions", b"/v1/models/chat/completions"),
        (b"/v1/models/a%2Fb%0Ac", b"/v1/models/a%2Fb%0Ac"),
        (b"/health", b"/health"),
        (b"//health/", b"/health"),
        (b"/v1/files//", b"/v1/files/"),
        (b"/files/", b"/v1/files/"),
        (b"/v1/embeddings/", b"/v1/embeddings"),
        (b"/v1", b"/v1"),
        (b"/v1/", b"/v1"),
        (b"/v1/health", b"/v1/health"),
        (b"/v2/models", b"/v2/models"),
        (b"/models.json", b"/models.json"),
        (b"/chats/completions", b"/chats/completions"),
        (b"/v1models", b"/v1models"),
        (b"/embeddings", b"/v1/embeddings"),
        (b"/v1/v1/images//generations/", b"/v1/images/generations"),
        (b"/chat", b"/v1/chat"),
        (b"/v1/chat/completions/x", b"/v1/chat/completions/x"),
        (b"/x/v1/models", b"/x/v1/models"),
        (b"/V1/models", b"/V1/models"),
        (b"/", b"/"),
        (b"//", b"/"),
        (b"", b"/"),
        (b"*", b"*"),
    ],
)
def test_a_path_is_taken_for_what_was_meant(path: bytes, meant: bytes):
    assert tidy_path(path) == meant


@given(
    st.lists(
        st.sampled_from([b"/", b"//", b"v1", b"models", b"chat", b"completions", b"a", b"\n"])
    ).map(b"".join)
)
def test_a_tidy_path_stays_as_it_is(path: bytes):
    tidy = tidy_path(path)
    assert tidy_path(tidy) == tidy
    assert b"//" not in tidy


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        (b"/api/usage/token/", b"/api/usage/token/"),
        (b"/api/usage/token", b"/api/usage/token"),
        (b"//api//usage/token//", b"/api/usage/token/"),
        (b"/dashboard/billing/usage", b"/dashboard/billing/usage"),
        (b"/v1beta/models/", b"/v1beta/models"),
        (b"/v1beta/files/", b"/v1beta/files/"),
        (b"/v1beta/", b"/v1beta/"),
        (b"/mj/", b"/mj/"),
        (b"/mjx/", b"/mjx"),
        (b"/dashboard/", b"/dashboard"),
        (b"/x/v1beta/", b"/x/v1beta"),
    ],
)
def test_outside_of_the_api_a_slash_at_the_end_stays(path: bytes, meant: bytes):
    assert tidy_path(path) == meant


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (b"/v1beta/models/gemini-3:generateContent", "gemini-3"),
        (b"/v1/models/gemini-3:generateContent", "gemini-3"),
        (b"/v1beta/models/gemini-3", "gemini-3"),
        (b"/v1beta/models/org%2Fgemini-3%3AcountTokens", "org/gemini-3"),
        (b"/v1beta/models", None),
        (b"/v1beta/openai/models", None),
        (b"/v1/modelsx/a:b", None),
    ],
)
def test_a_path_in_googles_form_names_a_model(path: bytes, model: str | None):
    assert model_in_path(path) == model
