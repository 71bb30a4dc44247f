"""The types of data by their bytes, and of files by their names."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from gemproxy.gemini.translate.media_types import (
    type_by_extension,
    type_by_name,
    type_by_signature,
    type_of,
)
from tests.tables import each


def box(*brands: bytes) -> bytes:
    """The beginning of a file of ISO base media: an ftyp box, and another."""
    major, *others = brands
    size = 16 + 4 * len(others)
    return (
        size.to_bytes(4, "big") + b"ftyp" + major + bytes(4) + b"".join(others) + b"\0\0\0\x08mdat"
    )


BEGINNINGS: list[tuple[bytes, str]] = [
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png"),
    (b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
    (b"\xff\xd8\xff\xe1\0\x10Exif", "image/jpeg"),
    (b"RIFF\x0a\x00\x00\x00WEBPVP8 ", "image/webp"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (box(b"heic", b"mif1", b"heic"), "image/heic"),
    (box(b"heix"), "image/heic"),
    (box(b"mif1", b"mif1", b"heic"), "image/heic"),
    (box(b"mif1"), "image/heif"),
    (box(b"msf1", b"zzzz"), "image/heif"),
    (b"%PDF-1.7\n%\xe2\xe3", "application/pdf"),
    (b"\xef\xbb\xbf\0junk\n%PDF-1.7", "application/pdf"),
    (b"RIFF\n\0\0\0WAVEfmt ", "audio/wav"),
    (b"RF64\xff\xff\xff\xffWAVEds64", "audio/wav"),
    (b"ID3\x03\0\0\0", "audio/mp3"),
    (b"\xff\xfb\x90\x64", "audio/mp3"),
    (b"\xff\xf3\x40\xc4", "audio/mp3"),
    (b"\xff\xe3\x18\xc4", "audio/mp3"),
    (b"fLaC\0\0\0\x22", "audio/flac"),
    (b"OggS\0\x02", "audio/ogg"),
    (b"FORM\0\0\n\0AIFFCOMM", "audio/aiff"),
    (b"FORM\0\0\n\0AIFCFVER", "audio/aiff"),
    (b"\xff\xf1\x50\x80", "audio/aac"),
    (b"\xff\xf9\x4c\x80", "audio/aac"),
    (box(b"isom", b"isom", b"avc1"), "video/mp4"),
    (box(b"mp42", b"M4A "), "video/mp4"),
    (box(b"zzzz", b"mp42"), "video/mp4"),
    (box(b"M4A ", b"mp42", b"isom"), "audio/mp4"),
    (box(b"qt  "), "video/mov"),
    (box(b"3gp5"), "video/3gpp"),
    (b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webmB\x87", "video/webm"),
    (b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x1fB\x82\x01\0\0\0\0\0\0\x04webm", "video/webm"),
    (b"RIFF\n\0\0\0AVI LIST", "video/avi"),
    (b"\0\0\1\xba\x44", "video/mpeg"),
    (b"\0\0\1\xb3\x14", "video/mpeg"),
    (b"Hello,\tworld\r\n\f", "text/plain"),
    ("\ufeffZ\u00fcrich \U0001f600".encode(), "text/plain"),
    (b"See %PDF-1.7", "text/plain"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "text/plain"),
]


@each(("data", "mime_type"), BEGINNINGS)
@each("rest", [b"", b"\0\x80" * 3000])
def test_data_are_known_by_their_beginning(data: bytes, mime_type: str, rest: bytes):
    if mime_type == "text/plain" and rest:
        assert type_of(data + rest) != "text/plain"
    else:
        assert type_of(data + rest) == mime_type


@each(
    "data",
    [
        bytes(range(256)),
        b"\0",
        b"text\0",
        b"\x1b[31mred",
        b"text\x7f",
        "Z\u00fcrich".encode("latin-1"),
        "Hello".encode("utf-16"),
        b"PK\x03\x04",
        b"BM\0\0",
        b"RIFF\0\0\0\0ACON",
        b"\0RIFF\0\0\0\0WAVE",
        b"\xff\xfb",  # half of a frame's header
        b"\xff\xfb\xf0",  # no bit rate
        b"\xff\xfb\x9c",  # no sampling rate
        b"\xff\xeb\x90",  # no version
        b"\xff\xf1\x7c",  # no sampling rate
        b"\xff\xfe\x00",
        b"\x1a\x45\xdf\xa3\x9fB\x82\x88matroska",
        b"\x1a\x45\xdf\xa3" + bytes(200) + b"B\x82\x84webm",
        b"\0" * 1025 + b"%PDF-",
        box(b"avif", b"mif1", b"miaf"),
        box(b"mif1", b"avif"),
        box(b"crx ", b"isom"),
        box(b"zzzz"),
        b"\xff\xff\xff\xffftyp",
        b"\0\0\0\0ftypzzzz\0\0\0\0mp42",
        b"\xff\xff\xff\xffftypzzzz" + bytes(400) + b"mp42",
    ],
)
def test_other_data_are_not_known(data: bytes):
    assert type_of(data) is None


@each(
    ("name", "mime_type"),
    [
        ("a.png", "image/png"),
        ("a.b.JPG", "image/jpeg"),
        ("a.webp", "image/webp"),
        ("a.heic", "image/heic"),
        ("a.mp3", "audio/mp3"),
        ("a.flac", "audio/flac"),
        ("a.mov", "video/mov"),
        ("a.md", "text/markdown"),
        ("a.ts", "text/plain"),
        ("a.html", "text/html"),
        ("pdf", ""),
        ("a", ""),
        ("a.a", "application/octet-stream"),
        ("x\n/y z.pdf", "application/pdf"),
        ("x" * 5000 + ".pdf", "application/pdf"),
        ("a.zip", "application/zip"),
        ("a.nothing", ""),
        ("a.pdf ", ""),
        ("a.", ""),
        ("", ""),
        ("data:image/png,", ""),
        ("http://[/a.p\u00e9g", ""),
    ],
)
def test_a_file_is_known_by_the_end_of_its_name(name: str, mime_type: str):
    assert type_by_name(name) == mime_type


def test_an_extension_is_given_without_its_dot():
    assert type_by_extension("PDF") == "application/pdf"
    assert type_by_extension(".pdf") == type_by_extension("") == type_by_extension("pdf\n") == ""


@given(st.text(max_size=30) | st.from_regex(r"[a-z]*://?\[?.*\.[a-z]+"))
def test_any_name_has_a_type_or_none(name: str):
    assert re.fullmatch(r"(?:[a-z]+/[!-~]+)?", type_by_name(name))


@given(st.text())
def test_text_is_known_unless_it_has_control_characters(text: str):
    data = text.encode("utf-8", "replace")
    expected = None if re.search(r"[\0-\x08\x0b\x0e-\x1f\x7f]", text) else "text/plain"
    if type_by_signature(data) is None and "%PDF-" not in text:
        assert type_of(data) == expected


@example(b"\0\0\1\0ftyp" + b"mif1" * 3)
@given(
    st.binary()
    | st.builds(
        lambda size, rest: size + b"ftyp" + rest, st.binary(min_size=4, max_size=4), st.binary()
    )
)
def test_any_bytes_have_a_type_or_none(data: bytes):
    found: Any = type_of(data)
    assert found is None or re.fullmatch(r"[a-z]+/[a-z0-9]+", found)
