"""Pictures, sounds and documents as the API's inlineData."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.chat.errors import ChatError
from gemproxy.gemini.translate.media import KINDS, SIZE_LIMIT, is_remote, media_part
from tests.strategies import json_values

BYTES = bytes(range(256))
DATA = base64.b64encode(BYTES).decode()


def image(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def audio(data: Any, format: Any = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": data, "format": format}}


def file(data: Any, **more: Any) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": data} | more}


def video(url: Any) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}}


def data_url(mime_type: str, data: str = DATA) -> str:
    return f"data:{mime_type};base64,{data}"


def refusal(part: Any) -> ChatError:
    with pytest.raises(ChatError) as caught:
        media_part(part, "here")
    error = caught.value
    assert (error.status, error.type) == (400, "invalid_request_error")
    assert f"'{error.param}'" in error.message
    assert len(error.message) < 300
    return error


@pytest.mark.parametrize(
    ("part", "mime_type"),
    [
        *(
            (image(data_url(f"image/{kind}")), f"image/{kind}")
            for kind in ("png", "jpeg", "webp", "heic", "heif", "gif")
        ),
        (image(data_url("image/jpg")), "image/jpeg"),
        (image(data_url("IMAGE/PNG")), "image/png"),
        (image(f"DATA:image/png;BASE64,{DATA}"), "image/png"),
        (image(f"data:image/png;name=a.png;base64,{DATA}"), "image/png"),
        (image(data_url("application/pdf")), "application/pdf"),
        ({"type": "image_url", "image_url": data_url("image/png")}, "image/png"),
        (image(data_url("image/png")) | {"detail": "high"}, "image/png"),
        (audio(DATA), "audio/wav"),
        (audio(DATA, "WAV"), "audio/wav"),
        (audio(DATA, "mp3"), "audio/mp3"),
        (audio(DATA, "mpeg"), "audio/mp3"),
        (audio(DATA, "m4a"), "audio/mp4"),
        (audio(DATA, "pcm16"), "audio/pcm"),
        *((audio(DATA, kind), f"audio/{kind}") for kind in ("aac", "flac", "ogg", "opus", "aiff")),
        (file(data_url("application/pdf")), "application/pdf"),
        (file(data_url("application/x-pdf")), "application/pdf"),
        (file(data_url("text/plain")), "text/plain"),
        (file(data_url("text/markdown")), "text/markdown"),
        (file(data_url("application/json")), "application/json"),
        (file(data_url("image/png")), "image/png"),
        (file(data_url("audio/mpeg")), "audio/mpeg"),
        (file(data_url("audio/x-wav")), "audio/wav"),
        (file(data_url("video/mp4")), "video/mp4"),
        (file(DATA), "application/pdf"),
        (file(DATA, filename="a.pdf"), "application/pdf"),
        (file(DATA, filename="a"), "application/pdf"),
        (file(DATA, filename=5), "application/pdf"),
        (file(DATA, filename="a.PNG"), "image/png"),
        (file(DATA, filename="a.wav"), "audio/wav"),
        (file(DATA, filename="a.txt"), "text/plain"),
        (file(data_url("text/csv"), filename="a.pdf"), "text/csv"),
        (video(data_url("video/mp4")), "video/mp4"),
    ],
)
def test_data_arrives_with_its_type(part: Any, mime_type: str):
    assert media_part(part, "here") == {"inlineData": {"mimeType": mime_type, "data": DATA}}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("AQ==", b"\1"),
        ("AQ", b"\1"),
        ("AQI", b"\1\2"),
        ("AQI=\n", b"\1\2"),
        ("AQ\r\nID\r\n", b"\1\2\3"),
        (" A Q I D ", b"\1\2\3"),
        ("+/+/", b"\xfb\xff\xbf"),
    ],
)
def test_sloppy_base64_is_sent_tidy(written: str, meant: bytes):
    for part in (image(data_url("image/png", written)), audio(written), file(written)):
        sent = media_part(part, "here")["inlineData"]["data"]
        assert sent == base64.b64encode(meant).decode()


@pytest.mark.parametrize(
    "data", ["!", "A", "AQ=A", "AQ===A", "AQ==AQ==", "A-_A", "\u00e9\u00e9\u00e9\u00e9"]
)
def test_what_is_not_base64_is_refused_by_name(data: str):
    assert refusal(image(data_url("image/png", data))).param == "here.image_url.url"
    assert refusal(audio(data)).param == "here.input_audio.data"
    assert refusal(file(data)).param == "here.file.file_data"
    assert "base64" in refusal(file(data)).message


@pytest.mark.parametrize(
    ("part", "param"),
    [
        *((image(url), "here.image_url.url") for url in (None, 1, "", "x", [], "blob:x", "data:")),
        *(
            (image(f"data:image/png{rest}"), "here.image_url.url")
            for rest in (",", ";base64", ";base64,", f",{DATA}", f";base64x,{DATA}", ";utf8,x")
        ),
        *(
            (image(url), "here.image_url.url")
            for url in ("http://a.example/b.png", "HTTPS://a.example/b.png", "ftp://a/b.png")
        ),
        *(
            (image(data_url(kind)), "here.image_url.url")
            for kind in ("", "png", "image/", "image/bmp", "image/svg+xml", "image/tiff")
        ),
        *(
            (image(data_url(kind)), "here.image_url.url")
            for kind in ("audio/wav", "video/mp4", "text/plain", "x" * 10_000)
        ),
        *(
            ({"type": "image_url", "image_url": inner}, "here.image_url")
            for inner in (None, 1, [], True)
        ),
        ({"type": "image_url"}, "here.image_url"),
        *((audio(data), "here.input_audio.data") for data in (None, 1, "", [], {})),
        *(
            (audio(DATA, format), "here.input_audio.format")
            for format in (None, 1, "", "a/b", "wav\n", "x" * 21, [])
        ),
        *((audio(DATA, format), "here.input_audio.data") for format in ("exe", "midi", "mp5")),
        ({"type": "input_audio", "input_audio": DATA}, "here.input_audio"),
        *((file(data), "here.file.file_data") for data in (None, 1, "", [], {})),
        ({"type": "file", "file": {"file_id": "file-1"}}, "here.file.file_data"),
        ({"type": "file", "file": "file-1"}, "here.file"),
        *(
            (file(data_url(kind)), "here.file.file_data")
            for kind in ("application/zip", "application/octet-stream", "audio/midi", "video/x")
        ),
        *((file(DATA, filename=name), "here.file.file_data") for name in ("a.zip", "a.svg")),
        (file("http://a.example/b.pdf"), "here.file.file_data"),
        (video("https://a.example/b.mp4"), "here.video_url.url"),
    ],
)
def test_a_malformed_part_is_refused_by_name(part: Any, param: str):
    assert refusal(part).param == param


def test_an_address_is_refused_with_the_setting_that_allows_it():
    assert "FETCH_IMAGES" in refusal(image("http://a.example/b.png")).message


def test_what_is_too_large_is_refused_by_name():
    most = base64.b64encode(bytes(SIZE_LIMIT)).decode()
    assert media_part(image(data_url("image/png", most)), "here")["inlineData"]["data"] == most
    more = base64.b64encode(bytes(SIZE_LIMIT + 100)).decode()
    for part, param in (
        (image(data_url("image/png", more)), "here.image_url.url"),
        (audio(more), "here.input_audio.data"),
        (file(more), "here.file.file_data"),
    ):
        error = refusal(part)
        assert error.param == param
        assert "20 MB" in error.message


@pytest.mark.parametrize(
    ("url", "remote"),
    [
        ("http://x", True),
        ("HTTPS://x", True),
        ("http:x", False),
        ("data:,http://x", False),
        (" http://x", False),
        ("", False),
        (None, False),
        (["http://x"], False),
    ],
)
def test_an_address_is_recognised_by_its_beginning(url: Any, remote: bool):
    assert is_remote(url) is remote


@given(st.binary(min_size=1))
def test_each_byte_arrives(data: bytes):
    text = base64.b64encode(data).decode()
    for part in (image(data_url("image/png", text)), audio(text), file(text)):
        assert base64.b64decode(media_part(part, "here")["inlineData"]["data"]) == data


@given(
    st.sampled_from(sorted(KINDS)),
    json_values("url", "data", "format", "file_data", "filename")
    | st.fixed_dictionaries(
        {},
        optional={
            "url": st.text() | st.from_regex(r"data:[a-z/;,=]*base64,.*"),
            "data": st.text() | st.from_regex(r"[A-Za-z0-9+/=\s]*"),
            "format": st.text() | st.sampled_from(["wav", "mp3"]),
            "file_data": st.text() | st.from_regex(r"data:[a-z/;,=]*base64,.*"),
            "filename": json_values(),
        },
    ),
)
def test_anything_is_taken_or_refused_by_name(kind: str, inner: Any):
    try:
        part = media_part({"type": kind, kind: inner}, "here")
    except ChatError as error:
        assert error.status == 400
        assert (error.param or "").startswith(f"here.{kind}")
    else:
        assert set(part) == {"inlineData"}
        assert set(part["inlineData"]) == {"mimeType", "data"}
        json.dumps(part)
