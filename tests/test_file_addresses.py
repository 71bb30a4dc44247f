"""The addresses of files that Gemini reads by itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.gemini.translate.file_addresses import file_uri
from tests.tables import each

FILES = "https://generativelanguage.googleapis.com/v1beta/files/"


@each(
    "address",
    [
        "https://www.youtube.com/watch?v=9hE5-98ZeCg",
        "https://youtube.com/watch?v=9hE5-98ZeCg&t=30s#x",
        "https://m.youtube.com/watch?list=PL1&v=9hE5-98ZeCg",
        "https://music.youtube.com/watch?v=9hE5_98ZeCg",
        "https://WWW.YouTube.com/watch?v=9hE5-98ZeCg",
        "https://www.youtube.com/shorts/9hE5-98ZeCg",
        "https://www.youtube.com/shorts/9hE5-98ZeCg?feature=share",
        "https://www.youtube.com/live/9hE5-98ZeCg",
        "https://www.youtube.com/embed/9hE5-98ZeCg",
        "https://youtu.be/9hE5-98ZeCg",
        "https://youtu.be/9hE5-98ZeCg?si=abc",
        FILES + "abc-123",
        "https://generativelanguage.googleapis.com/v1/files/abc",
        "gs://bucket/path",
        "gs://my.bucket-1/a/b c/\u00e9.pdf",
    ],
)
def test_an_address_is_passed_on_as_it_is(address: str):
    assert file_uri(address) == address


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("files/abc-123", FILES + "abc-123"),
        ("youtu.be/9hE5", "https://youtu.be/9hE5"),
        ("http://youtu.be/9hE5", "https://youtu.be/9hE5"),
        ("youtube.com/shorts/9hE5", "https://youtube.com/shorts/9hE5"),
        ("www.youtube.com/watch?v=9hE5", "https://www.youtube.com/watch?v=9hE5"),
        (" https://youtu.be/9hE5\n", "https://youtu.be/9hE5"),
    ],
)
def test_an_abbreviated_address_is_completed(written: str, meant: str):
    assert file_uri(written) == meant


@each(
    "address",
    [
        None,
        5,
        [],
        {},
        "",
        "https://www.youtube.com/",
        "https://www.youtube.com/@google",
        "https://www.youtube.com/watch?w=9hE5",
        "https://www.youtube.com/watch?v=",
        "https://www.youtube.com/playlist?list=9hE5",
        "https://www.youtube.com:8080/watch?v=9hE5",
        "https://www.youtube.com@a.example/watch?v=9hE5",
        "https://a.example/www.youtube.com/watch?v=9hE5",
        "https://a.example/?https://youtu.be/9hE5",
        "https://www.youtube.com.a.example/watch?v=9hE5",
        "https://notyoutube.com/watch?v=9hE5",
        "https://wwwXyoutube.com/watch?v=9hE5",
        "https://youtu.be/",
        "https://youtu.be/9hE5\r\nx: y",
        "https://youtu.be/9hE5 x",
        "ftp://youtu.be/9hE5",
        "http://generativelanguage.googleapis.com/v1beta/files/abc",
        "https://generativelanguage.googleapis.com/v1beta/models/abc",
        "https://generativelanguage.googleapis.com/v1beta/files/",
        "https://generativelanguage.googleapis.com/v1beta/files/a/../../models",
        "https://a.example/generativelanguage.googleapis.com/v1beta/files/abc",
        "https://generativelanguageXgoogleapis.com/v1beta/files/abc",
        "files/",
        "files/a/b",
        "files/../a",
        "file-abc",
        "gs://",
        "gs://bucket",
        "gs://bucket/",
        "gs:///path",
        "gs://bucket/a\nb",
        "gs://bucket/" + "a" * 3000,
    ],
)
def test_other_addresses_are_not_recognised(address: Any):
    assert file_uri(address) is None


@given(st.text())
def test_text_with_braces_stays_as_it_is(path: str):
    address = f"gs://bucket/{{0}}{{}}{path}"
    assert file_uri(address) in (address.strip(), None)
    assert file_uri("gs://bucket/{0}{}") == "gs://bucket/{0}{}"
