"""Converts the pictures, audio and documents of a message to the API's inlineData."""

from __future__ import annotations

import binascii
import mimetypes
import re
from typing import Any

from gemproxy.chat.errors import ChatError, bad_request

SIZE_LIMIT = 20 * 1024 * 1024

_DATA_URL = re.compile(r"data:([^;,\s]*)((?:;[^;,]*)*),", re.I)
_AUDIO_FORMATS = {"mp3": "audio/mp3", "mpeg": "audio/mp3", "m4a": "audio/mp4", "pcm16": "audio/pcm"}
_ALIASES = {
    "image/jpg": "image/jpeg",
    "application/x-pdf": "application/pdf",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/x-aiff": "audio/aiff",
    "audio/x-flac": "audio/flac",
}

# ai.google.dev/gemini-api/docs: image, audio, video and document understanding
_IMAGES = frozenset(
    {"image/png", "image/jpeg", "image/webp", "image/heic", "image/heif", "image/gif"}
)
_AUDIO = "aac|aiff|basic|flac|l16|m4a|mp3|mp4|mpeg|mpga|ogg|opus|pcm|wav|webm"
_VIDEO = "3gpp|avi|flv|mov|mp4|mpeg|mpegps|mpg|quicktime|webm|wmv|x-flv|x-ms-wmv"
_TYPES = re.compile(
    rf"audio/(?:{_AUDIO})|video/(?:{_VIDEO})|text/[a-z0-9.+-]+|application/(?:pdf|json|rtf|xml)"
)

KINDS = frozenset({"image_url", "input_audio", "file", "video_url"})


def media_part(part: dict[str, Any], where: str) -> dict[str, Any]:
    """
    Convert a content part to an inlineData part.

    @param part: a part of one of KINDS.
    @raise ChatError: 400, the part is invalid; the error names it.
    """
    kind = part["type"]
    inner = part.get(kind)
    where = f"{where}.{kind}"
    if isinstance(inner, str) and kind.endswith("_url"):
        inner = {"url": inner}
    if not isinstance(inner, dict):
        raise bad_request(f"'{where}' must be an object.", where)
    if kind == "input_audio":
        format = inner.get("format")
        if not isinstance(format, str) or not re.fullmatch(r"[A-Za-z0-9-]{1,20}", format):
            raise bad_request(f"'{where}.format' must be an audio format.", f"{where}.format")
        format = format.lower()
        mime_type = _AUDIO_FORMATS.get(format, f"audio/{format}")
        return _inline(mime_type, inner.get("data"), f"{where}.data")
    if kind == "file":
        return _file(inner, where)
    return _url(inner.get("url"), f"{where}.url", images_only=kind == "image_url")


def is_remote(url: Any) -> bool:
    """Whether a URL is an http or https URL."""
    return isinstance(url, str) and url[:8].lower().startswith(("http://", "https://"))


def _file(inner: dict[str, Any], where: str) -> dict[str, Any]:
    data = inner.get("file_data")
    where = f"{where}.file_data"
    if not isinstance(data, str):
        raise bad_request(f"'{where}' must be a string: file ids are not supported.", where)
    if data[:5].lower() == "data:":
        return _url(data, where, images_only=False)
    name = inner.get("filename")
    guessed = mimetypes.guess_type(name)[0] if isinstance(name, str) else None
    return _inline(_known_as(guessed or "application/pdf"), data, where)


def _url(url: Any, where: str, images_only: bool) -> dict[str, Any]:
    if is_remote(url):
        raise bad_request(
            f"'{where}' must be a data: URL. To allow http(s) URLs, set FETCH_IMAGES=true.", where
        )
    match = _DATA_URL.match(url) if isinstance(url, str) else None
    if match is None:
        raise bad_request(f"'{where}' must be a data: URL.", where)
    if not match[2].lower().endswith(";base64"):
        raise bad_request(f"'{where}' must be base64-encoded.", where)
    mime_type = _known_as(match[1].lower())
    if images_only and not mime_type.startswith("image/") and mime_type != "application/pdf":
        raise _unsupported(mime_type, where)
    return _inline(mime_type, url[match.end() :], where)


def _known_as(mime_type: str) -> str:
    """Gemini's name for a MIME type."""
    return _ALIASES.get(mime_type, mime_type)


def _inline(mime_type: str, data: Any, where: str) -> dict[str, Any]:
    if mime_type not in _IMAGES and not _TYPES.fullmatch(mime_type):
        raise _unsupported(mime_type, where)
    if not isinstance(data, str) or not data:
        raise bad_request(f"'{where}' must be base64-encoded data.", where)
    if len(data) > SIZE_LIMIT * 4 // 3 + 4:
        raise bad_request(f"'{where}' is larger than {SIZE_LIMIT >> 20} MB.", where)
    try:
        decoded = binascii.a2b_base64(_padded(data), strict_mode=True)
    except (binascii.Error, ValueError):
        raise bad_request(f"'{where}' is not valid base64.", where) from None
    return {
        "inlineData": {
            "mimeType": mime_type,
            "data": binascii.b2a_base64(decoded, newline=False).decode(),
        }
    }


def _padded(data: str) -> str:
    """Normalise Base64: some encoders add line breaks or omit the padding."""
    data = "".join(data.split())
    return data + "=" * (-len(data) % 4)


def _unsupported(mime_type: str, where: str) -> ChatError:
    return bad_request(f"'{where}': the type '{mime_type[:60]}' is not supported.", where)
