"""Parses request targets and maps them to paths of OpenAI's API."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

# The paths requested by clients whose base URL has an extra slash, no /v1, or two of them.
_PATHS_OF_THE_API = (
    rb"assistants|audio|batches|chat|completions|edits|embeddings|engines|files|fine_tuning|"
    rb"images|messages|models|moderations|realtime|rerank|responses|threads|uploads|"
    rb"vector_stores|videos"
)
# Where the model is named in a JSON body, besides the paths that are served for all models.
PATHS_WITH_A_MODEL = frozenset(
    b"/v1/" + path
    for path in (
        b"audio/speech",
        b"audio/transcriptions",
        b"audio/translations",
        b"completions",
        b"edits",
        b"embeddings",
        b"images/edits",
        b"images/variations",
        b"messages",
        b"messages/count_tokens",
        b"moderations",
        b"realtime/client_secrets",
        b"realtime/sessions",
        b"rerank",
        b"responses",
        b"responses/compact",
        b"responses/input_tokens",
        b"videos",
    )
)

_KNOWN = PATHS_WITH_A_MODEL | {b"/v1/chat/completions", b"/v1/images/generations"}

# What New-API serves beside /v1, and passes on from there: billing as clients ask for it, the usage
# of a token, Google's API, and those of Midjourney and Suno.
PASSED_PREFIXES = (
    "dashboard/billing",
    "api/usage/token",
    "v1beta",
    "v1alpha",
    "upload/v1beta",
    "upload/v1alpha",
    "mj",
    "suno",
)

_PASSED = re.compile(rb"/(?:%b)(?:/.*)?" % "|".join(PASSED_PREFIXES).encode(), re.S)
# Google's own form of a path: the model, and what to do with it.
_MODEL_IN_PATH = re.compile(rb"/v1(?:beta|alpha)?/models/(.+?)(:[^:/]*)?", re.S)
_GOOGLES_LIST = re.compile(rb"/v1(?:beta|alpha)/models/")
# A base URL with a version, to which Google's SDKs add another.
_TWO_VERSIONS = re.compile(rb"(?:/v1)+(?=/v1(?:beta|alpha)/)")
_CHAT_OF_GOOGLE = b"/v1beta/openai/"

_API_PATH = re.compile(rb"(?:/v1)*(/(?:%b)(?:/.*)?)" % _PATHS_OF_THE_API)

_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.I | re.S)
_ORIGIN_FORM = re.compile(rb"/[!-\"$-~]*")


def split_target(target: bytes) -> tuple[bytes | None, bytes]:
    """
    Split a request target into its authority, which is None unless it is an absolute URI, and its
    path with query. See RFC 9112 section 3.2.

    @raise ValueError: the target is neither a path nor an absolute http or https URI.
    """
    authority = None
    if absolute := _ABSOLUTE.fullmatch(target):
        authority, target = absolute[1], absolute[2]
        if not target.startswith(b"/"):
            target = b"/" + target
    if not _ORIGIN_FORM.fullmatch(target):
        raise ValueError("not a path")
    return authority, target


def leads_elsewhere(path: bytes) -> bool:
    """
    Whether a path has a segment that some server behind this proxy takes for C{.} or C{..}: also if
    it is encoded, once or twice, or goes on with a parameter as in C{..;x} (RFC 3986 section 3.3).
    """
    segments = re.split(rb"[/\\]", unquote_to_bytes(unquote_to_bytes(path)))
    return any(segment.partition(b";")[0] in (b".", b"..") for segment in segments)


def is_well_known(path: bytes) -> bool:
    """Whether it is one of those that most clients request, and is right as it is."""
    return path in _KNOWN


def tidy_path(path: bytes) -> bytes:
    """
    Correct the path of a client with a wrong base URL. A slash at the end is dropped where the path
    is known here; the upstream may have others with one.
    """
    if is_well_known(path):
        return path
    path = _TWO_VERSIONS.sub(b"", re.sub(rb"/{2,}", b"/", path), 1)
    if is_outside(path):
        return path.rstrip(b"/") if _GOOGLES_LIST.fullmatch(path) else path
    plain = path.rstrip(b"/") or b"/"
    meant = _API_PATH.fullmatch(plain)
    if meant is None:
        return plain
    tidy = b"/v1" + meant[1]
    return tidy if tidy in _KNOWN or tidy.startswith(b"/v1/models") else tidy + path[len(plain) :]


def is_outside(path: bytes) -> bool:
    """Whether it is a path below L{PASSED_PREFIXES}."""
    return _PASSED.fullmatch(path) is not None


def model_in_path(path: bytes) -> str | None:
    """
    The model that a path in Google's form is about, such as C{/v1beta/models/NAME:generateContent}.

    @param path: a tidy one.
    """
    match = _MODEL_IN_PATH.fullmatch(unquote_to_bytes(path))
    return None if match is None else match[1].strip(b"/").decode("utf-8", "replace")


def with_model(path: bytes, model: str) -> bytes:
    """A path of Google's form, about another model."""
    match = _MODEL_IN_PATH.fullmatch(unquote_to_bytes(path))
    method = (match[2] if match is not None else None) or b""
    return b"%b/models/%b%b" % (path.partition(b"/models/")[0], quote(model).encode(), method)


def names_a_model(path: bytes) -> bool:
    """Whether a JSON body that is posted to a tidy path names a model."""
    return path in PATHS_WITH_A_MODEL or path.startswith(_CHAT_OF_GOOGLE)
