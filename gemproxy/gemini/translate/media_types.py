"""Tells the MIME type of data from its bytes, and of a file from its name. Names are Gemini's."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Callable

# ftyp boxes are short; the limit keeps a lie about their size harmless.
_MOST_OF_BOX = 256
# Readers of PDF skip what stands before its header, up to this place.
_PDF_HEADER_BEFORE = 1024
# \t, \n, \f and \r are used in texts.
_CONTROLS = bytes({*range(0x20), 0x7F} - set(b"\t\n\f\r"))


def _byte(fits: Callable[[int], bool]) -> bytes:
    """A pattern for one byte."""
    return b"[" + b"".join(b"\\x%02x" % byte for byte in range(256) if fits(byte)) + b"]"


# ISO 11172-3: sync word, any version, layer III; bit rate and sampling rate are in the table.
_MP3_FRAME = (
    rb"\xff"
    + _byte(lambda byte: byte & 0xE6 == 0xE2 and byte & 0x18 != 0x08)
    + _byte(lambda byte: 0x10 <= byte < 0xF0 and byte & 0x0C != 0x0C)
)
# ISO 13818-7: sync word, layer 0; the sampling rate is in the table.
_ADTS_FRAME = (
    rb"\xff" + _byte(lambda byte: byte & 0xF6 == 0xF0) + _byte(lambda byte: byte & 0x3C <= 0x30)
)

_SIGNATURES = tuple(
    (re.compile(signature, re.DOTALL), mime_type)
    for signature, mime_type in (
        (rb"\x89PNG\r\n\x1a\n", "image/png"),
        (rb"\xff\xd8\xff", "image/jpeg"),
        (rb"RIFF.{4}WEBP", "image/webp"),
        (rb"GIF8[79]a", "image/gif"),
        (rb"%PDF-", "application/pdf"),
        (rb"(?:RIFF|RF64).{4}WAVE", "audio/wav"),
        (rb"ID3[\x02-\x04]", "audio/mp3"),
        (_MP3_FRAME, "audio/mp3"),
        (rb"fLaC", "audio/flac"),
        (rb"OggS\x00", "audio/ogg"),
        (rb"FORM.{4}AIF[FC]", "audio/aiff"),
        (_ADTS_FRAME, "audio/aac"),
        # EBML with the document type webm; Matroska has another.
        (rb"\x1a\x45\xdf\xa3.{0,64}?\x42\x82.{1,8}?webm", "video/webm"),
        (rb"RIFF.{4}AVI ", "video/avi"),
        (rb"\x00\x00\x01[\xb3\xba]", "video/mpeg"),
    )
)

# mp4ra.org: brands of files of ISO base media; None for those that Gemini does not take.
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "image/heic"),
    **dict.fromkeys((b"mif1", b"msf1"), "image/heif"),
    **dict.fromkeys((b"avif", b"avis", b"crx "), None),
    **dict.fromkeys((b"M4A ", b"M4B ", b"M4P "), "audio/mp4"),
    **dict.fromkeys((b"3gp4", b"3gp5", b"3gp6", b"3gp7", b"3g2a"), "video/3gpp"),
    **dict.fromkeys((b"mp41", b"mp42", b"avc1", b"M4V ", b"MSNV", b"dash", b"f4v "), "video/mp4"),
    **dict.fromkeys((b"isom", *(b"iso%d" % number for number in range(2, 10))), "video/mp4"),
    b"qt  ": "video/mov",
}
# These say only how the file is laid out; other brands beside them say more.
_GENERAL_BRANDS = frozenset({b"mif1", b"msf1"})

# Where Python's table depends on its version, or names another type.
_EXTENSIONS = {
    "3gp": "video/3gpp",
    "aac": "audio/aac",
    "aif": "audio/aiff",
    "aiff": "audio/aiff",
    "avi": "video/avi",
    "csv": "text/csv",
    "flac": "audio/flac",
    "flv": "video/x-flv",
    "heic": "image/heic",
    "heif": "image/heif",
    "m4a": "audio/mp4",
    "md": "text/markdown",
    "mov": "video/mov",
    "mp3": "audio/mp3",
    "mp4": "video/mp4",
    "mpeg": "video/mpeg",
    "mpg": "video/mpeg",
    "oga": "audio/ogg",
    "ogg": "audio/ogg",
    "opus": "audio/opus",
    "rtf": "application/rtf",
    "ts": "text/plain",
    "wav": "audio/wav",
    "webm": "video/webm",
    "webp": "image/webp",
    "wmv": "video/wmv",
}
# Python's table alone, without those of the system.
_MORE_EXTENSIONS = mimetypes.MimeTypes()
_EXTENSION = re.compile(r"[A-Za-z0-9]{1,10}")
_LONGEST_NAME = 1000


def type_by_signature(data: bytes) -> str | None:
    """The type of binary data; None if its beginning does not tell."""
    if data[4:8] == b"ftyp":
        return _type_by_brand(data)
    return next((known for signature, known in _SIGNATURES if signature.match(data)), None)


def type_of(data: bytes) -> str | None:
    """The type of data of any kind; None if it is neither a known one nor text in UTF-8."""
    known = type_by_signature(data)
    if known is not None:
        return known
    if _is_text(data):
        return "text/plain"
    return "application/pdf" if b"%PDF-" in data[:_PDF_HEADER_BEFORE] else None


def type_by_name(name: str) -> str:
    """The type of a file by the extension of its name; "" if unknown."""
    return type_by_extension(name[-_LONGEST_NAME:].rpartition(".")[2]) if "." in name else ""


def type_by_extension(extension: str) -> str:
    """The type of files with an extension, given without its dot; "" if unknown."""
    if not _EXTENSION.fullmatch(extension):
        return ""
    extension = extension.lower()
    return _EXTENSIONS.get(extension) or _MORE_EXTENSIONS.guess_type(f"a.{extension}")[0] or ""


def _type_by_brand(data: bytes) -> str | None:
    end = min(int.from_bytes(data[:4], "big"), len(data), _MOST_OF_BOX)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))]
    # The sort is stable: the major brand stays first among those that say something.
    brands.sort(key=_GENERAL_BRANDS.__contains__)
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)


def _is_text(data: bytes) -> bool:
    if len(data.translate(None, _CONTROLS)) < len(data):
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
