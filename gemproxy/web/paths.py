"""The paths of OpenAI's API, as clients with all kinds of base URLs write them."""

from __future__ import annotations

import re

# What clients make of a base URL with a slash too many, without its /v1, or with two of them.
_PATHS_OF_THE_API = (
    rb"assistants|audio|batches|chat|completions|edits|embeddings|engines|files|fine_tuning|"
    rb"images|messages|models|moderations|realtime|rerank|responses|threads|uploads|"
    rb"vector_stores|videos"
)
_API_PATH = re.compile(rb"(?:/v1)*(/(?:%b)(?:/.*)?)" % _PATHS_OF_THE_API)


def tidy_path(path: bytes) -> bytes:
    """The path that a client with a sloppy base URL meant."""
    path = re.sub(rb"/{2,}", b"/", path).rstrip(b"/") or b"/"
    meant = _API_PATH.fullmatch(path)
    return path if meant is None else b"/v1" + meant[1]
