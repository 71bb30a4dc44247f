"""The targets of requests: which are taken, and which paths of OpenAI's API they mean."""

from __future__ import annotations

import re

# What clients make of a base URL with a slash too many, without its /v1, or with two of them.
_PATHS_OF_THE_API = (
    rb"assistants|audio|batches|chat|completions|edits|embeddings|engines|files|fine_tuning|"
    rb"images|messages|models|moderations|realtime|rerank|responses|threads|uploads|"
    rb"vector_stores|videos"
)
_API_PATH = re.compile(rb"(?:/v1)*(/(?:%b)(?:/.*)?)" % _PATHS_OF_THE_API)

_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.I | re.S)
_ORIGIN_FORM = re.compile(rb"/[!-\"$-~]*")


def split_target(target: bytes) -> tuple[bytes | None, bytes]:
    """
    The authority that a request target names, if it is an absolute URI, and its path and query.
    See RFC 9112 section 3.2.

    @raise ValueError: the target is neither a path nor an absolute URI of http or https.
    """
    authority = None
    if absolute := _ABSOLUTE.fullmatch(target):
        authority, target = absolute[1], absolute[2]
        if not target.startswith(b"/"):
            target = b"/" + target
    if not _ORIGIN_FORM.fullmatch(target):
        raise ValueError("not a path")
    return authority, target


def tidy_path(path: bytes) -> bytes:
    """The path that a client with a sloppy base URL meant."""
    path = re.sub(rb"/{2,}", b"/", path).rstrip(b"/") or b"/"
    meant = _API_PATH.fullmatch(path)
    return path if meant is None else b"/v1" + meant[1]
