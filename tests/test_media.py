"""Pictures, sounds and documents as the API's inlineData."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemproxy.chat.errors import ChatError
from gemproxy.gemini.translate.media import KINDS, SIZE_LIMIT, is_remote, media_part
from tests.strategies import json_values
from tests.tables import each

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


def source(data: Any, media_type: Any) -> dict[str, Any]:
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": media_type, "data": data},
    }


GS_PICTURE = ("gs://b-1/a.webp", "image/webp")


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


@each(
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
        (file(DATA, filename="a.pdf"), "application/pdf"),
        (file(DATA, format="pdf"), "application/pdf"),
        (file(DATA, mime_type="text/csv", filename="a.pdf"), "text/csv"),
        (file(DATA, mime_type="application/zip", filename="a.pdf"), "application/pdf"),
        (file(DATA) | {"mime_type": "text/csv"}, "text/csv"),
        (file(DATA, filename="a.PNG"), "image/png"),
        (file(DATA, filename="a.wav"), "audio/wav"),
        (file(DATA, filename="a.txt"), "text/plain"),
        (file(data_url("text/csv"), filename="a.pdf"), "text/csv"),
        (video(data_url("video/mp4")), "video/mp4"),
        (image(f" data: image/png ; base64 ,{DATA}\n"), "image/png"),
        (image(f"data:image/png;base64;x=y,{DATA}"), "image/png"),
        (image(data_url("")) | {"mime_type": "image/webp"}, "image/webp"),
        (image(data_url("image/x-png")), "image/png"),
        (image(data_url("png")), "image/png"),
        (audio(DATA, "audio/wav"), "audio/wav"),
        (audio(DATA, "Audio/WAV;codecs=1"), "audio/wav"),
        (audio(DATA, "audio/x-wav; codecs=1"), "audio/wav"),
        (audio(DATA, "audio/webm;codecs=opus"), "audio/webm"),
        (audio(DATA, "video/webm"), "audio/webm"),
        (audio(DATA, "audio/L16;rate=24000"), "audio/l16;rate=24000"),
        (audio(DATA, "audio/L16; codec=pcm; rate=24000"), "audio/l16;rate=24000"),
        (audio(DATA, "audio/pcm"), "audio/pcm"),
        (audio(data_url("audio/L16;rate=8000"), None), "audio/l16;rate=8000"),
        (audio(data_url("audio/mp3")), "audio/mp3"),
        (audio(data_url("video/webm"), None), "audio/webm"),
        (audio(data_url("")), "audio/wav"),
        (audio(data_url("application/octet-stream"), "mp3"), "audio/mp3"),
        ({"type": "input_image", "image_url": data_url("image/png")}, "image/png"),
        ({"type": "input_image", "image_url": {"url": data_url("image/png")}}, "image/png"),
        ({"type": "input_file", "file_data": data_url("text/csv")}, "text/csv"),
        ({"type": "input_file", "file_data": DATA, "filename": "a.pdf"}, "application/pdf"),
        (source(DATA, "image/png"), "image/png"),
        (source(DATA, "application/pdf"), "application/pdf"),
        (source(data_url("image/gif"), "image/png"), "image/gif"),
        (source(data_url(""), "image/png"), "image/png"),
        (
            {"type": "image", "source": {"type": "url", "url": data_url("image/png")}},
            "image/png",
        ),
    ],
)
def test_data_arrives_with_its_type(part: Any, mime_type: str):
    assert media_part(part, "here") == {"inlineData": {"mimeType": mime_type, "data": DATA}}


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF"
PDF = b"%PDF-1.7\n"
WAV = b"RIFF\n\0\0\0WAVEfmt "
MP4 = b"\0\0\0\x14ftypisom\0\0\0\0mp42"


@each(
    ("make", "data", "mime_type"),
    [
        (lambda data: image(data_url("", data)), PNG, "image/png"),
        (lambda data: image(data_url("application/octet-stream", data)), JPEG, "image/jpeg"),
        (lambda data: image(data_url("binary/octet-stream", data)), PDF, "application/pdf"),
        (lambda data: image(data_url("image/*", data)), PNG, "image/png"),
        (lambda data: file(data_url("", data)), WAV, "audio/wav"),
        (lambda data: file(data), PNG, "image/png"),
        (lambda data: file(data), PDF, "application/pdf"),
        (lambda data: file(data), b"Hello", "text/plain"),
        (lambda data: file(data, filename=5), PDF, "application/pdf"),
        (lambda data: file(data, filename="a"), PDF, "application/pdf"),
        (lambda data: file(data, filename="a.bin"), MP4, "video/mp4"),
        (lambda data: file(data, filename="a.sh"), b"#!/bin/sh\n", "text/plain"),
        (lambda data: video(data_url("", data)), MP4, "video/mp4"),
        (lambda data: audio(data, None), WAV, "audio/wav"),
        (lambda data: audio(data, ""), WAV, "audio/wav"),
        (lambda data: audio(data, "application/octet-stream"), WAV, "audio/wav"),
        (lambda data: audio(data, None), MP4, "audio/mp4"),
        (lambda data: audio(data_url("", data), None), WAV, "audio/wav"),
        (lambda data: {"type": "input_audio", "input_audio": {"data": data}}, WAV, "audio/wav"),
        (lambda data: source(data, None), PNG, "image/png"),
        (lambda data: {"type": "input_file", "file_data": data}, PDF, "application/pdf"),
    ],
)
def test_a_missing_type_is_taken_from_the_bytes(make: Any, data: bytes, mime_type: str):
    text = base64.b64encode(data).decode()
    assert media_part(make(text), "here") == {"inlineData": {"mimeType": mime_type, "data": text}}


@pytest.mark.parametrize(
    ("declared", "data", "mime_type"),
    [
        ("image/jpeg", PNG, "image/png"),
        ("image/png", JPEG, "image/jpeg"),
        ("image/bmp", PNG, "image/png"),
        ("image/png", PDF, "image/png"),
        ("image/png", WAV, "image/png"),
        ("image/png", b"Hello", "image/png"),
        ("application/pdf", PNG, "application/pdf"),
        ("text/plain", PNG, "text/plain"),
        ("audio/wav", PNG, "audio/wav"),
    ],
)
def test_the_bytes_of_a_picture_win_over_its_declared_type(
    declared: str, data: bytes, mime_type: str
):
    text = base64.b64encode(data).decode()
    for part in (file(data_url(declared, text)), file(text, mime_type=declared)):
        sent = media_part(part, "here")["inlineData"]
        assert sent == {"mimeType": mime_type, "data": text}


@pytest.mark.parametrize(
    ("url", "mime_type", "meant"),
    [
        ("data:text/plain,Hello%20world", "text/plain", b"Hello world"),
        ("data:,Hello", "text/plain", b"Hello"),
        ("data:;charset=utf-8,Z%C3%BCrich", "text/plain", "Z\u00fcrich".encode()),
        ("data:text/plain;charset=utf-8,Z\u00fcrich", "text/plain", "Z\u00fcrich".encode()),
        ("data:text/csv,a,b%0Ac,d", "text/csv", b"a,b\nc,d"),
        ("data:application/json,{%22a%22:1}", "application/json", b'{"a":1}'),
        ("data:text/plain,100% =%3D=\n=", "text/plain", b"100% ===\n="),
        ("data:text/plain,A+B%2b_", "text/plain", b"A+B+_"),
    ],
)
def test_percent_encoded_text_is_accepted(url: str, mime_type: str, meant: bytes):
    data = base64.b64encode(meant).decode()
    assert media_part(file(url), "here") == {"inlineData": {"mimeType": mime_type, "data": data}}


@given(st.text(), st.text("%0aF=\r\n \t_", max_size=30))
def test_percent_encoding_is_decoded_as_browsers_do(text: str, odd: str):
    for written in (text, odd, quote(text, errors="replace"), quote(text, "/", errors="replace")):
        sent = media_part(file(f"data:text/plain,{written}"), "here")["inlineData"]["data"]
        encoded = written.encode("utf-8", "replace")
        assert base64.b64decode(sent) == unquote_to_bytes(encoded)


def test_text_full_of_percent_signs_is_refused():
    assert "percent" in refusal(file("data:text/plain," + "%" * 1_000_000)).message
    assert "base64" in refusal(file("data:text/plain;base64," + "%" * 1_000_000)).message
    text = base64.b64encode(b"%" * 1000).decode()
    assert media_part(file("data:," + "%" * 1000), "here")["inlineData"]["data"] == text


YOUTUBE = "https://www.youtube.com/watch?v=9hE5-98ZeCg"
FILE = "https://generativelanguage.googleapis.com/v1beta/files/abc"


@each(
    ("part", "uri", "mime_type"),
    [
        (video(YOUTUBE), YOUTUBE, None),
        ({"type": "video_url", "video_url": YOUTUBE}, YOUTUBE, None),
        (video("https://youtu.be/9hE5"), "https://youtu.be/9hE5", None),
        (image(YOUTUBE), YOUTUBE, None),
        (file(YOUTUBE), YOUTUBE, None),
        (file("youtu.be/9hE5"), "https://youtu.be/9hE5", None),
        (video(YOUTUBE) | {"mime_type": "video/mp4"}, YOUTUBE, "video/mp4"),
        (video(YOUTUBE) | {"mime_type": "video/*"}, YOUTUBE, None),
        (image(FILE), FILE, None),
        (image(FILE) | {"mime_type": "image/jpg"}, FILE, "image/jpeg"),
        ({"type": "image_url", "image_url": {"url": FILE, "format": "png"}}, FILE, "image/png"),
        (file(FILE, format="application/pdf"), FILE, "application/pdf"),
        ({"type": "file", "file": {"file_id": "files/abc"}}, FILE, None),
        ({"type": "file", "file": {"file_id": FILE, "filename": "a.pdf"}}, FILE, "application/pdf"),
        ({"type": "file", "file": {"file_id": FILE, "filename": "a.zip"}}, FILE, None),
        (
            {"type": "file", "file": {"file_id": FILE, "filename": "a.pdf", "format": "text/csv"}},
            FILE,
            "text/csv",
        ),
        ({"type": "file", "file": {"url": "gs://b-1/a.pdf"}}, "gs://b-1/a.pdf", "application/pdf"),
        ({"type": "file", "file": {"file_url": "gs://b-1/a.x"}}, "gs://b-1/a.x", None),
        ({"type": "file", "file": {"file_data": None, "file_id": "files/abc"}}, FILE, None),
        ({"type": "input_file", "file_id": "files/abc", "filename": "a.csv"}, FILE, "text/csv"),
        ({"type": "input_file", "file_url": YOUTUBE}, YOUTUBE, None),
        ({"type": "input_image", "image_url": FILE}, FILE, None),
        ({"type": "input_image", "file_id": "files/abc"}, FILE, None),
        ({"type": "image", "source": {"type": "url", "url": "gs://b-1/a.webp"}}, *GS_PICTURE),
    ],
)
def test_an_address_that_gemini_reads_is_passed_on(part: Any, uri: str, mime_type: str | None):
    expected = {"fileUri": uri} if mime_type is None else {"fileUri": uri, "mimeType": mime_type}
    assert media_part(part, "here") == {"fileData": expected}


def test_file_data_that_could_be_a_name_are_base64():
    sent = media_part(file("files/abcdef", filename="a.pdf"), "here")
    assert sent == {"inlineData": {"mimeType": "application/pdf", "data": "files/abcdef"}}


@each(
    ("written", "meant"),
    [
        ("AQ==", b"\1"),
        ("AQ", b"\1"),
        ("AQI", b"\1\2"),
        ("AQI=\n", b"\1\2"),
        ("AQ\r\nID\r\n", b"\1\2\3"),
        (" A Q I D ", b"\1\2\3"),
        ("+/+/", b"\xfb\xff\xbf"),
        ("-_-_", b"\xfb\xff\xbf"),
        ("-/+_", b"\xfb\xff\xbf"),
        ("-_-_AQ", b"\xfb\xff\xbf\1"),
        ("%2B%2f%2b/AQ%3D%3D%0A", b"\xfb\xff\xbf\1"),
        ("AQ%3d", b"\1"),
        ("AQ=", b"\1"),
        ("AQ=====", b"\1"),
        ("AQID=", b"\1\2\3"),
        ("AQID====\n", b"\1\2\3"),
        ("A\tQ\v==\f", b"\1"),
        ("AR==", b"\1"),
        ("AQIDAR==", b"\1\2\3\1"),
    ],
)
def test_sloppy_base64_is_sent_tidy(written: str, meant: bytes):
    for part in (
        image(data_url("image/png", written)),
        audio(written),
        audio(data_url("audio/wav", written)),
        file(written, filename="a.pdf"),
        source(written, "image/png"),
    ):
        sent = media_part(part, "here")["inlineData"]["data"]
        assert sent == base64.b64encode(meant).decode()


@each(
    "data",
    [
        "!",
        "A",
        "AQIDA",
        "AQ=A",
        "AQ===A",
        "AQ==AQ==",
        "A%",
        "A%zz",
        "A%C3%A9A",
        "A*_A",
        "=",
        " ",
        "\u00e9\u00e9\u00e9\u00e9",
    ],
)
def test_what_is_not_base64_is_refused_by_name(data: str):
    assert refusal(image(data_url("image/png", data))).param == "here.image_url.url"
    assert refusal(audio(data)).param == "here.input_audio.data"
    assert refusal(file(data)).param == "here.file.file_data"
    assert "base64" in refusal(file(data)).message


@each(
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
            for kind in ("", "x", "image/", "image/bmp", "image/svg+xml", "image/tiff")
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
            for format in (None, 1, "", "a/b", "image/png", "wav\n", "x" * 21, [])
        ),
        *((audio(DATA, format), "here.input_audio.data") for format in ("exe", "midi", "mp5")),
        ({"type": "input_audio", "input_audio": DATA}, "here.input_audio"),
        *((file(data), "here.file.file_data") for data in (None, 1, "", [], {})),
        *((file(DATA, filename=name), "here.file.file_data") for name in (None, 5, "a")),
        *(
            ({"type": "file", "file": {"file_id": id}}, "here.file.file_id")
            for id in ("file-1", "files/", 5, ["files/abc"], data_url("application/pdf"))
        ),
        ({"type": "file", "file": {"url": "http://a.example/b.pdf"}}, "here.file.url"),
        ({"type": "file", "file": {"file_url": 5}}, "here.file.file_url"),
        ({"type": "file", "file": {"file_id": FILE, "format": "x/y"}}, "here.file.file_id"),
        ({"type": "input_file"}, "here.file_data"),
        ({"type": "input_file", "file_id": "file-1"}, "here.file_id"),
        ({"type": "input_file", "file_url": "https://a.example/b.pdf"}, "here.file_url"),
        ({"type": "input_image"}, "here.image_url"),
        ({"type": "input_image", "image_url": "x"}, "here.image_url"),
        ({"type": "input_image", "image_url": {"url": "x"}}, "here.image_url.url"),
        ({"type": "input_image", "file_id": "file-1"}, "here.file_id"),
        ({"type": "image"}, "here.source"),
        ({"type": "image", "source": DATA}, "here.source"),
        ({"type": "image", "source": {"type": "base64"}}, "here.source.data"),
        ({"type": "image", "source": {"type": "url", "url": "x"}}, "here.source.url"),
        (source(DATA, None), "here.source.data"),
        (source(DATA, "audio/wav"), "here.source.data"),
        (audio(data_url("text/plain")), "here.input_audio.data"),
        (audio(data_url("image/png"), None), "here.input_audio.data"),
        (audio("iVBORw0KGgo=", None), "here.input_audio.data"),
        (audio("SGVsbG8=", None), "here.input_audio.data"),
        (image("data:text/plain,Hello"), "here.image_url.url"),
        (image(data_url("application/octet-stream")), "here.image_url.url"),
        (file("data:application/pdf,%25PDF-"), "here.file.file_data"),
        (file("data:application/octet-stream,abc"), "here.file.file_data"),
        (video("https://www.youtube.com/@google"), "here.video_url.url"),
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
    # Videos are not fetched.
    assert "FETCH_IMAGES" not in refusal(video("http://a.example/b.mp4")).message


def test_what_is_too_large_is_refused_by_name():
    most = base64.b64encode(bytes(SIZE_LIMIT)).decode()
    assert media_part(image(data_url("image/png", most)), "here")["inlineData"]["data"] == most
    more = base64.b64encode(bytes(SIZE_LIMIT + 100)).decode()
    for part, param in (
        (image(data_url("image/png", more)), "here.image_url.url"),
        (audio(more), "here.input_audio.data"),
        (file(more), "here.file.file_data"),
        (source(more, "image/png"), "here.source.data"),
        (file(f"data:text/plain,{more}"), "here.file.file_data"),
        (file("data:text/plain," + "a" * (SIZE_LIMIT + 1)), "here.file.file_data"),
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
    sloppy = base64.urlsafe_b64encode(data).decode().rstrip("=") + "\n"
    for part in (
        image(data_url("image/png", text)),
        audio(text),
        file(text, filename="a.pdf"),
        source(sloppy, "image/png"),
        image(data_url("image/png", quote(text, ""))),
    ):
        assert base64.b64decode(media_part(part, "here")["inlineData"]["data"]) == data


_TEXTS = (
    st.text()
    | st.from_regex(r"\s?data:[a-z/;,=]*(base64)?,.*")
    | st.from_regex(r"[A-Za-z0-9+/=_%\s-]*")
    | st.sampled_from([YOUTUBE, FILE, "files/abc", "gs://bucket/a.pdf", "http://a.example/"])
    | st.sampled_from(
        [
            data_url(kind, base64.b64encode(data).decode())
            for kind in ("", "image/png", "application/octet-stream", "text/plain", "video/mp4")
            for data in (PNG, PDF, WAV, MP4, b"Hello")
        ]
    )
)
_NAMES = st.text() | st.sampled_from(["wav", "audio/wav", "image/png", "pdf", "a.pdf", "//[a.png"])
_FIELDS = {
    "url": _TEXTS,
    "data": _TEXTS,
    "file_data": _TEXTS,
    "file_id": _TEXTS,
    "file_url": _TEXTS,
    "format": _NAMES,
    "mime_type": _NAMES,
    "media_type": _NAMES,
    "filename": _NAMES,
}
_VALUES = {key: json_values() | texts for key, texts in _FIELDS.items()}
_INNER = json_values(*_FIELDS) | _TEXTS | st.fixed_dictionaries({}, optional=_VALUES)


@settings(max_examples=3 * settings().max_examples)
@given(
    st.sampled_from(sorted(KINDS)),
    st.fixed_dictionaries(
        {},
        optional=_VALUES
        | dict.fromkeys(["image_url", "video_url", "input_audio", "file", "source"], _INNER),
    ),
    _INNER,
)
def test_anything_is_taken_or_refused_by_name(kind: str, fields: dict[str, Any], inner: Any):
    key = {"image": "source", "input_image": "image_url"}.get(kind, kind)
    for part in (fields | {"type": kind}, fields | {"type": kind, key: inner}):
        try:
            sent = media_part(part, "here")
        except ChatError as error:
            assert (error.status, error.type) == (400, "invalid_request_error")
            assert (error.param or "").startswith("here.")
            assert f"'{error.param}'" in error.message
        else:
            json.dumps(sent)
            ((key_sent, value),) = sent.items()
            if key_sent == "inlineData":
                assert value.keys() == {"mimeType", "data"}
                assert base64.b64encode(base64.b64decode(value["data"])).decode() == value["data"]
            else:
                assert key_sent == "fileData"
                assert {"fileUri"} <= value.keys() <= {"fileUri", "mimeType"}
