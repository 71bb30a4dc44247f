"""What the stand-in is told to play: the answer to one generateContent request, good or bad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, TypeAlias, TypedDict, Unpack

from attrs import field, frozen

from testing.google import refusals
from testing.google.refusals import Refusal

Part: TypeAlias = dict[str, Any]
"""One part of a content, in the API's own JSON: C{{"text": ...}}, C{{"functionCall": ...}}."""

Chunk: TypeAlias = tuple[Part, ...] | bytes
"""The parts of one streamed response; or bytes to send verbatim in its place."""

TOLD_CHUNKS = ("This ", "answer ", "never ", "comes to ", "an end.")


class FaultKind(Enum):
    """
    @cvar HANG: nothing more is sent, until the client goes or the stand-in stops.
    @cvar RESET: the connection is reset (TCP RST).
    @cvar CLOSE: the connection is closed (TCP FIN) without the end of the body.
    """

    HANG = "hang"
    RESET = "reset"
    CLOSE = "close"


@frozen
class Fault:
    """
    Something that goes wrong with the connection.

    @ivar after: the number of chunks that are sent before; 0 for none but the headers, C{None}
        for not even those.
    """

    kind: FaultKind
    after: int | None = None


@frozen
class Scenario:
    """
    How one request is answered.

    @ivar chunks: what is streamed, each in a write of its own; one document when not streamed.
    @ivar pace: seconds between two chunks.
    @ivar delay: seconds before the headers.
    @ivar first_chunk_delay: seconds between the headers and the first chunk.
    @ivar finish_reason: goes with the last chunk; C{None}: the answer ends without one.
    @ivar usage: fields of usageMetadata that replace or join the counted ones; C{None}: the
        answer has no usageMetadata.
    @ivar block_reason: the prompt is blocked, and there are no candidates.
    @ivar refusal: an error in place of an answer.
    @ivar fault: what happens to the connection on the way.
    """

    chunks: tuple[Chunk, ...] = ()
    pace: float = 0.0
    delay: float = 0.0
    first_chunk_delay: float = 0.0
    finish_reason: str | None = "STOP"
    usage: Mapping[str, Any] | None = field(factory=dict)
    block_reason: str | None = None
    refusal: Refusal | None = None
    fault: Fault | None = None

    def __attrs_post_init__(self) -> None:
        after = None if self.fault is None else self.fault.after
        if after is not None and not 0 <= after <= len(self.chunks):
            raise ValueError(f"no fault after {after} of {len(self.chunks)} chunks")


class Settings(TypedDict, total=False):
    """The fields of L{Scenario} that every kind of answer may set."""

    pace: float
    delay: float
    first_chunk_delay: float
    finish_reason: str | None
    usage: Mapping[str, Any] | None


def text(words: str) -> Part:
    return {"text": words}


def thought(words: str) -> Part:
    return {"text": words, "thought": True}


def call(name: str, args: Mapping[str, Any] | None = None) -> Part:
    return {"functionCall": {"name": name, "args": dict(args or {})}}


def inline(mime_type: str, data: str) -> Part:
    """A picture or a piece of sound, as Base64."""
    return {"inlineData": {"mimeType": mime_type, "data": data}}


def _chunk(given: str | bytes | Part | Sequence[Part]) -> Chunk:
    if isinstance(given, bytes):
        return given
    if isinstance(given, str):
        return (text(given),)
    if isinstance(given, dict):
        return (given,)
    return tuple(given)


def answer(*chunks: str | bytes | Part | Sequence[Part], **settings: Unpack[Settings]) -> Scenario:
    """
    @param chunks: each a text, a part, several parts, or bytes: those are sent verbatim in the
        place of a response, be it a mid-stream error object or no JSON at all.
    """
    return Scenario(tuple(_chunk(chunk) for chunk in chunks), **settings)


def thinking(
    thoughts: str | Sequence[str], *chunks: str | Part, **settings: Unpack[Settings]
) -> Scenario:
    """Thoughts, a chunk each, and then the answer."""
    if isinstance(thoughts, str):
        thoughts = (thoughts,)
    return answer(*map(thought, thoughts), *chunks, **settings)


def calls(*wanted: str | tuple[str, Mapping[str, Any]], **settings: Unpack[Settings]) -> Scenario:
    """
    Function calls, all in one chunk.

    @param wanted: the name of a function, or its name and arguments.
    """
    pairs = [(item, {}) if isinstance(item, str) else item for item in wanted]
    return answer([call(name, args) for name, args in pairs], **settings)


def empty(**settings: Unpack[Settings]) -> Scenario:
    """A candidate without content."""
    return Scenario(**settings)


def blocked(reason: str = "PROHIBITED_CONTENT", *, delay: float = 0.0) -> Scenario:
    """The prompt is refused by a filter: promptFeedback and no candidates."""
    return Scenario(block_reason=reason, delay=delay)


def garbage(*chunks: str, data: bytes = b"<html>no JSON</html>") -> Scenario:
    """Texts, and then an event (or a whole answer) that is not JSON."""
    return answer(*chunks, data)


def refuse(refusal: Refusal, *, delay: float = 0.0) -> Scenario:
    """An error in any words; those of Google are below."""
    return Scenario(refusal=refusal, delay=delay)


def error(
    status: int,
    message: str = "The stand-in was told to fail.",
    *,
    name: str | None = None,
    details: Sequence[Mapping[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
    delay: float = 0.0,
) -> Scenario:
    """See L{refusals.error}."""
    refusal = refusals.error(status, message, name=name, details=details, headers=headers)
    return refuse(refusal, delay=delay)


def rate_limited(retry_delay: float | None = 36.0) -> Scenario:
    """Too many requests in this minute; worth another try after C{retry_delay} seconds."""
    return refuse(refusals.minute_quota(retry_delay))


def bare_rate_limited() -> Scenario:
    """A 429 that says nothing about which quota or for how long."""
    return refuse(refusals.exhausted())


def daily_quota(retry_delay: float | None = None) -> Scenario:
    """The requests of the day are used up. Google may name a delay all the same."""
    return refuse(refusals.day_quota(retry_delay))


def invalid_key() -> Scenario:
    """Google does not know the API key."""
    return refuse(refusals.wrong_key())


def hang(*chunks: str, after: int | None = None) -> Scenario:
    """
    Silence on an open connection.

    @param chunks: texts to send; some are made up when there are none.
    @param after: see L{Fault.after}.
    """
    return _faulty(FaultKind.HANG, chunks, after)


def cut(*chunks: str, after: int | None = None, reset: bool = True) -> Scenario:
    """
    A broken connection.

    @param chunks: texts to send; some are made up when there are none.
    @param after: see L{Fault.after}.
    @param reset: whether by TCP RST or by FIN.
    """
    return _faulty(FaultKind.RESET if reset else FaultKind.CLOSE, chunks, after)


def _faulty(kind: FaultKind, chunks: Sequence[str], after: int | None) -> Scenario:
    parts = tuple((text(words),) for words in chunks or TOLD_CHUNKS)
    return Scenario(parts, finish_reason=None, fault=Fault(kind, after))
