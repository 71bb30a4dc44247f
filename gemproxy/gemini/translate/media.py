"""Converts the pictures, audio and documents of a message to the API's inlineData or fileData."""

from __future__ import annotations

import binascii
import re
import string
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from gemproxy.chat.errors import ChatError, bad_request
from gemproxy.gemini.translate.file_addresses import file_uri
from gemproxy.gemini.translate.media_types import (
    type_by_extension,
    type_by_name,
    type_by_signature,
    type_of,
)

SIZE_LIMIT = 20 * 1024 * 1024

KINDS = frozenset(
    {"image_url", "input_audio", "file", "video_url", "image", "input_image", "input_file"}
)

_LONGEST_BASE64 = SIZE_LIMIT * 4 // 3 + 4
_LONGEST_HEADER = 1000
_AUDIO_FORMATS = {"mp3": "audio/mp3", "mpeg": "audio/mp3", "m4a": "audio/mp4", "pcm16": "audio/pcm"}
_AUDIO_FORMAT = re.compile(
    r"(?:(?:(?:audio|video)/)?[a-z0-9.+-]{1,20}|(?:application|binary)/octet-stream)"
    r"(?:;[ -~]{0,100})?",
    re.I,
)
_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "application/x-pdf": "application/pdf",
    "application/ogg": "audio/ogg",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/x-aiff": "audio/aiff",
    "audio/x-flac": "audio/flac",
    "audio/x-m4a": "audio/mp4",
    "audio/x-mp3": "audio/mp3",
    "video/x-msvideo": "video/avi",
}
_UNKNOWN = frozenset({"", "application/octet-stream", "binary/octet-stream"})
# Recorders of sound name the container, which is that of a video.
_SOUND_IN = {"video/mp4": "audio/mp4", "video/webm": "audio/webm"}

# ai.google.dev/gemini-api/docs: image, audio, video and document understanding
_IMAGES = frozenset(
    {"image/png", "image/jpeg", "image/webp", "image/heic", "image/heif", "image/gif"}
)
_AUDIO = "aac|aiff|basic|flac|l16|m4a|mp3|mp4|mpeg|mpga|ogg|opus|pcm|wav|webm"
_VIDEO = "3gpp|avi|flv|mov|mp4|mpeg|mpegps|mpg|quicktime|webm|wmv|x-flv|x-ms-wmv"
_TEXT = re.compile(r"text/[a-z0-9.+-]+|application/(?:json|rtf|xml)")
_TYPES = re.compile(
    rf"audio/(?:{_AUDIO})|audio/(?:l16|pcm);rate=\d+|video/(?:{_VIDEO})|application/pdf"
    rf"|{_TEXT.pattern}"
)
# Sound without a header: nothing else says its sampling rate.
_RAW_SOUND = frozenset({"audio/l16", "audio/pcm"})
_RATE = re.compile(r"(?:^|;) *rate *= *(\d{1,6}) *(?:;|$)", re.I)

_ANY = ("",)
_PICTURES = ("image/", "application/pdf")
_SOUNDS = ("audio/", "video/")

_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_WHITESPACE = string.whitespace.encode()
# Percent signs that are no escapes stand for themselves. Replacing millions takes seconds.
_MOST_ODD = 100_000
_NO_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


@frozen
class _Hints:
    """
    What a client says of a file beside its data.

    @ivar mime_type: "" if it is unknown.
    @ivar by_name: the type by the file's name; "" if it is unknown.
    """

    mime_type: str = ""
    by_name: str = ""

    def best(self) -> str:
        """The first type that Gemini takes, else any."""
        types = (self.mime_type, self.by_name)
        return next(filter(_is_supported, types), self.mime_type or self.by_name)


def media_part(part: dict[str, Any], where: str) -> dict[str, Any]:
    """
    Convert a content part to an inlineData or fileData part.

    @param part: a part of one of KINDS.
    @raise ChatError: 400, the part is invalid; the error names it.
    """
    kind = part["type"]
    if kind == "input_file":
        return _file(part, part, where)
    key = {"image": "source", "input_image": "image_url"}.get(kind, kind)
    inner = part.get(key)
    if kind == "input_image" and not inner and part.get("file_id"):
        return _by_id(part["file_id"], f"{where}.file_id", _hints(part))
    where = f"{where}.{key}"
    at = f"{where}.url"
    if isinstance(inner, str) and key.endswith("_url"):
        # In input_image this is the specified form; in the others some clients abbreviate.
        at = where if kind == "input_image" else at
        inner = {"url": inner}
    if not isinstance(inner, dict):
        raise bad_request(f"'{where}' must be an object.", where)
    if kind == "input_audio":
        return _audio(inner, where)
    if kind == "file":
        return _file(inner, part, where)
    if kind == "image" and inner.get("url") is None:
        return _source(inner, where)
    takes = _ANY if kind == "video_url" else _PICTURES
    return _url(inner.get("url"), at, _hints(inner, part), takes)


def is_remote(url: Any) -> bool:
    """Whether a URL is an http or https URL."""
    return isinstance(url, str) and url[:8].lower().startswith(("http://", "https://"))


def _audio(inner: Mapping[str, Any], where: str) -> dict[str, Any]:
    format = inner.get("format")
    if format in (None, ""):
        mime_type = ""
    elif not isinstance(format, str) or not _AUDIO_FORMAT.fullmatch(format):
        raise bad_request(f"'{where}.format' must be an audio format.", f"{where}.format")
    elif "/" in format:
        mime_type = _mime_type(format)
    else:
        format = format.lower()
        mime_type = _mime_type(_AUDIO_FORMATS.get(format, f"audio/{format}"))
    data = inner.get("data")
    at = f"{where}.data"
    if _is_data_url(data):
        return _url(data, at, _Hints(mime_type), _SOUNDS)
    content, encoded = _decoded(data, at)
    if mime_type in _UNKNOWN and type_of(content) is None:
        at = f"{where}.format"
        raise bad_request(f"'{at}' must be an audio format: the data do not tell it.", at)
    return _inline(mime_type, content, encoded, at, takes=_SOUNDS)


def _file(inner: Mapping[str, Any], part: Mapping[str, Any], where: str) -> dict[str, Any]:
    keys = ("file_data", "file_id", "url", "file_url")
    key = next((key for key in keys if inner.get(key)), "file_data")
    data = inner.get(key)
    where = f"{where}.{key}"
    hints = _hints(inner, part)
    if key == "file_id":
        return _by_id(data, where, hints)
    if not isinstance(data, str):
        raise bad_request(f"'{where}' must be a string.", where)
    # Base64 has none of these. A name such as files/abc could be base64, so it must be a file_id.
    if key != "file_data" or any(sign in data[:20] for sign in ":."):
        return _url(data, where, hints, _ANY)
    content, encoded = _decoded(data, where)
    return _inline("", content, encoded, where, hints)


def _by_id(file_id: Any, where: str, hints: _Hints) -> dict[str, Any]:
    uri = file_uri(file_id)
    if uri is None:
        raise bad_request(
            f"'{where}' must be the name of a file at Google, such as files/abc, or its address.",
            where,
        )
    return _file_data(uri, where, hints)


def _source(source: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The source of an image in Anthropic's API."""
    data = source.get("data")
    where = f"{where}.data"
    hints = _hints(source)
    if _is_data_url(data):
        return _url(data, where, hints, _PICTURES)
    content, encoded = _decoded(data, where)
    return _inline(hints.mime_type, content, encoded, where, takes=_PICTURES)


def _url(url: Any, where: str, hints: _Hints, takes: tuple[str, ...]) -> dict[str, Any]:
    uri = file_uri(url)
    if uri is not None:
        return _file_data(uri, where, hints)
    if is_remote(url) and takes is _PICTURES:
        raise bad_request(
            f"'{where}' must be a data: URL. To allow http(s) URLs, set FETCH_IMAGES=true.", where
        )
    comma = url.find(",", 0, _LONGEST_HEADER) if _is_data_url(url) else -1
    if comma < 0:
        raise bad_request(
            f"'{where}' must be a data: URL, or the address of a YouTube video or of a file at "
            "Google.",
            where,
        )
    header = url[:comma].strip()[len("data:") :]
    mime_type = _mime_type(header)
    data = url[comma + 1 :]
    if any(parameter.strip().lower() == "base64" for parameter in header.split(";")[1:]):
        content, encoded = _decoded(data, where)
    else:
        # RFC 2397: without base64 the data are percent-encoded, and the default type is this one.
        mime_type = mime_type or "text/plain"
        if not _TEXT.fullmatch(mime_type):
            raise bad_request(f"'{where}' must be base64-encoded.", where)
        content, encoded = _percent_decoded(data, where)
    return _inline(mime_type, content, encoded, where, hints, takes)


def _is_data_url(url: Any) -> bool:
    return isinstance(url, str) and url[:100].lstrip()[:5].lower() == "data:"


def _hints(*objects: Mapping[str, Any]) -> _Hints:
    def first(*keys: str) -> str:
        values = (each.get(key) for each in objects for key in keys)
        return next((value for value in values if isinstance(value, str) and value), "")

    mime_type = _mime_type(first("format", "mime_type", "media_type"))
    return _Hints("" if mime_type in _UNKNOWN else mime_type, type_by_name(first("filename")))


def _mime_type(text: str) -> str:
    """
    Gemini's name for a MIME type with or without parameters, or for a format such as png; "" if it
    is missing or a range such as image/*.
    """
    named, _, parameters = text[:_LONGEST_HEADER].partition(";")
    named = named.strip().lower()
    if named and "/" not in named:
        named = type_by_extension(named) or named
    if named.endswith("/*"):
        return ""
    named = _ALIASES.get(named, named)
    rate = _RATE.search(parameters) if named in _RAW_SOUND else None
    return named if rate is None else f"{named};rate={rate[1]}"


def _is_supported(mime_type: str) -> bool:
    return mime_type in _IMAGES or _TYPES.fullmatch(mime_type) is not None


def _file_data(uri: str, where: str, hints: _Hints) -> dict[str, Any]:
    if hints.mime_type and not _is_supported(hints.mime_type):
        raise _unsupported(hints.mime_type, where)
    in_uri = type_by_name(uri.rpartition("/")[2]) if uri.startswith("gs:") else ""
    mime_type = next(filter(_is_supported, (hints.mime_type, hints.by_name, in_uri)), None)
    return {"fileData": {"fileUri": uri} | ({"mimeType": mime_type} if mime_type else {})}


def _inline(
    mime_type: str,
    content: bytes,
    encoded: str,
    where: str,
    hints: _Hints = _Hints(),
    takes: tuple[str, ...] = _ANY,
) -> dict[str, Any]:
    """
    @param mime_type: the declared type; it may be unknown.
    @param encoded: the content in base64.
    @param takes: what the types that are accepted begin with.
    """
    if mime_type in _UNKNOWN:
        mime_type = hints.best()
        if not _is_supported(mime_type):
            mime_type = type_of(content) or mime_type
    if mime_type.startswith("image/"):
        # The API refuses pictures of another type than the declared one.
        found = type_by_signature(content)
        mime_type = found if found in _IMAGES else mime_type
    if takes is _SOUNDS:
        mime_type = _SOUND_IN.get(mime_type, mime_type)
    if not mime_type:
        raise bad_request(
            f"'{where}': the data do not tell their type, and no MIME type is given.", where
        )
    if not _is_supported(mime_type) or not mime_type.startswith(takes):
        raise _unsupported(mime_type, where)
    return {"inlineData": {"mimeType": mime_type, "data": encoded}}


def _decoded(data: Any, where: str) -> tuple[bytes, str]:
    """The content of base64 data, and the data as the API takes them."""
    if not isinstance(data, str) or not data:
        raise bad_request(f"'{where}' must be base64-encoded data.", where)
    _check_length(len(data), _LONGEST_BASE64, where)
    try:
        content = binascii.a2b_base64(data, strict_mode=True)
    except (binascii.Error, ValueError):
        content = _decoded_leniently(data, where)
    else:
        # Large data need not be encoded again, unless unused bits are set at their end.
        if _encoded(binascii.a2b_base64(data[-4:])) == data[-4:]:
            return content, data
    return content, _encoded(content)


def _decoded_leniently(data: str, where: str) -> bytes:
    """Base64 in the URL-safe alphabet, percent-encoded, in lines, or with wrong padding."""
    try:
        raw = _without_escapes(data) if "%" in data else data.encode("ascii")
        raw = raw.translate(_URL_SAFE, _WHITESPACE).rstrip(b"=")
        content = binascii.a2b_base64(raw + b"=" * (-len(raw) % 4), strict_mode=True)
    except (binascii.Error, ValueError):
        content = b""
    if not content:
        raise bad_request(f"'{where}' is not valid base64.", where)
    return content


def _percent_decoded(data: str, where: str) -> tuple[bytes, str]:
    _check_length(len(data), _LONGEST_BASE64, where)
    try:
        content = _without_escapes(data)
    except ValueError:
        raise bad_request(f"'{where}' is not valid percent-encoding.", where) from None
    _check_length(len(content), SIZE_LIMIT, where)
    return content, _encoded(content)


def _without_escapes(text: str) -> bytes:
    """
    Decode percent-encoding. Quoted-printable is the same with another sign, and its decoder is
    fast for millions of escapes, which L{urllib.parse.unquote_to_bytes} is not.

    @raise ValueError: there are too many percent signs that are no escapes.
    """
    raw, odd = _NO_ESCAPE.subn(b"%25", text.encode("utf-8", "replace"), count=_MOST_ODD)
    if odd == _MOST_ODD:
        raise ValueError("not percent-encoded")
    return binascii.a2b_qp(raw.replace(b"=", b"%3D").replace(b"%", b"="))


def _encoded(content: bytes) -> str:
    return binascii.b2a_base64(content, newline=False).decode()


def _check_length(length: int, most: int, where: str) -> None:
    if length > most:
        raise bad_request(f"'{where}' is larger than {SIZE_LIMIT >> 20} MB.", where)


def _unsupported(mime_type: str, where: str) -> ChatError:
    return bad_request(f"'{where}': the type '{mime_type[:60]}' is not supported.", where)
