"""Recognises the addresses of files that Gemini reads by itself."""

from __future__ import annotations

import re
from typing import Any

_LONGEST = 2048
_FILES = "https://generativelanguage.googleapis.com/v1beta/files/"
_REST = r"(?:[?&#/][!-~]*)?"

# ai.google.dev/gemini-api/docs: video understanding, Files API and file input methods. The group
# is what stands for the braces.
_ADDRESSES = tuple(
    (re.compile(pattern), address)
    for pattern, address in (
        (
            r"(?:https?://)?((?i:(?:www\.|m\.|music\.)?youtube\.com)/"
            r"(?:watch\?(?:[!-~]*&)?v=|(?:shorts|live|embed)/)[A-Za-z0-9_-]{1,64}" + _REST + ")",
            "https://{}",
        ),
        (
            r"(?:https?://)?((?i:youtu\.be)/[A-Za-z0-9_-]{1,64}" + _REST + ")",
            "https://{}",
        ),
        (
            r"https://((?i:generativelanguage\.googleapis\.com)/v1[a-z0-9]*/files/[A-Za-z0-9_-]{1,64})",
            "https://{}",
        ),
        (r"files/([A-Za-z0-9_-]{1,64})", _FILES + "{}"),
        (r"(gs://[a-z0-9][a-z0-9._-]{1,221}/[^\x00-\x1f\x7f]+)", "{}"),
    )
)


def file_uri(address: Any) -> str | None:
    """
    The C{fileUri} of a YouTube video, of a file at the Files API (also by its name, such as
    C{files/abc}) or of one in Google Cloud Storage; None if it is none of these.
    """
    if not isinstance(address, str) or len(address) > _LONGEST:
        return None
    address = address.strip()
    for pattern, uri in _ADDRESSES:
        if match := pattern.fullmatch(address):
            return uri.format(match[1])
    return None
