"""The record of one request, used for the log line, the metrics and the journal."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import orjson
from attrs import define, field

from gemproxy.chat.chunks import Usage, index_of
from gemproxy.chat.jsontext import dumps, loads
from gemproxy.util.masking import NO_KEYS, Masking

TEXT_LIMIT = 2_000_000
# Names of parts, such as fields of deltas, come from upstreams: there may be only so many of them.
_PARTS_LIMIT = 1000
_NAME_LENGTH = 100
# Characters of an error in the log line.
_ERROR_LENGTH = 300
_MEDIA = re.compile(r"\s{0,100}data:([^;,]{0,100})[^,]{0,100},", re.I)
# What Google's API said is in the other fields of the delta.
_NOT_RECORDED = ("role", "google_responses")
# The keys that name the type of the data beside them.
_TYPE_KEYS = ("format", "media_type", "mime_type")


@define(eq=False)
class Exchange:
    """
    A request and its outcome.

    @ivar time: that of the request, in seconds since the epoch.
    @ivar began: the same on the clock that measures how long the answer takes, in seconds.
    @ivar request: the JSON sent by the client.
    @ivar account: the name of the client's account; None if it has none.
    @ivar path: what the client asked for, without the query, in which there may be keys.
    @ivar upstream: who answers, or was the last one to be asked: an upstream, or C{gemini}.
    @ivar upstream_request: what the upstream calls the request.
    @ivar cost: what the answer costs, in the currency of the prices; None if that is not known.
    @ivar masking: of the keys that must not appear in log and journal.
    """

    id: str
    time: float
    began: float
    route: str
    model: str
    stream: bool
    request: bytes = field(repr=False)
    masking: Masking = field(default=NO_KEYS, repr=False)
    account: str | None = None
    path: str | None = None
    upstream: str = "gemini"
    first_token: float | None = None
    duration: float | None = None
    retries: int = 0
    upstream_request: str | None = None
    status: int = 200
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    cost: float | None = None
    error: str | None = None
    # As UTF-8, which takes half of the memory of a list of strings.
    _texts: dict[str, bytearray] = field(factory=dict, repr=False)
    _input: bytes | None = field(default=None, repr=False)
    _size: int = 0

    def add(self, chunk: Any, now: float) -> None:
        """
        Record a chunk of the response, or a whole completion.

        @param now: the current time on the clock of C{began}, in seconds.
        """
        if not isinstance(chunk, dict):
            return
        usage = chunk.get("usage")
        if usage and isinstance(usage, dict):
            self.usage = usage
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            if choice.get("finish_reason"):
                self.finish_reason = str(choice["finish_reason"])
                native = choice.get("native_finish_reason")
                self.native_finish_reason = _one_word(native) if native else None
            delta = choice.get("delta")
            if not isinstance(delta, dict):
                continue
            index = choice.get("index")
            if type(index) is not int:
                index = index_of(index) or 0
            for kind, value in delta.items():
                if value and kind not in _NOT_RECORDED:
                    self.add_text(_text_of(kind, value), now, _part(index, kind)[:_NAME_LENGTH])

    def add_text(self, text: str, now: float, part: str = "content") -> None:
        """
        Record more text of a part of the response.

        @param now: see L{add}.
        """
        if self.first_token is None:
            self.first_token = now - self.began
        room = TEXT_LIMIT - self._size
        self._size += len(text)
        if room > 0:
            kept = self._texts.get(part)
            if kept is None:
                if len(self._texts) >= _PARTS_LIMIT:
                    return
                kept = self._texts[part] = bytearray()
            kept += text[:room].encode("utf-8", "replace")

    def discard(self, index: int) -> None:
        """Forget the texts of a choice, which is generated once more."""
        for part in [part for part in self._texts if part.startswith(_part(index, ""))]:
            if index or not part.startswith("choice "):
                self._size -= len(self._texts.pop(part).decode("utf-8", "replace"))

    @property
    def text_length(self) -> int:
        """The number of characters of the response so far."""
        return self._size

    def keep_input(self, content: bytes) -> None:
        """
        Keep the request as it is to be written, in place of what the client sent.

        @param content: what L{input} returns.
        """
        self._input, self.request = content, b""

    def forget(self) -> None:
        """Release the request and the texts: they are written."""
        self.request, self._input = b"", None
        self._texts.clear()

    @property
    def weight(self) -> int:
        """The bytes that the request and the texts take."""
        return len(self._input or self.request) + sum(map(len, self._texts.values()))

    def count(self, usage: Usage) -> None:
        self.usage = usage.as_json()

    def summary(self) -> str:
        """A summary of the exchange in one line, without texts."""
        facts = {
            "request": self.id,
            "account": self.account,
            "route": self.route,
            "model": json.dumps(self.model[:200]),
            "stream": self.stream,
            "status": self.status,
            "finish": self.finish_reason,
            "native_finish": self.native_finish_reason,
            "duration": _seconds(self.duration),
            "first_token": _seconds(self.first_token),
            "prompt_tokens": (self.usage or {}).get("prompt_tokens"),
            "completion_tokens": (self.usage or {}).get("completion_tokens"),
            "retries": self.retries,
            "upstream_request": self.upstream_request and _one_word(self.upstream_request),
            "error": self.error and self._quoted(self.error),
        }
        return " ".join([f"{name}={value}" for name, value in facts.items() if value is not None])

    def input(self) -> bytes:
        """The content of the request's file."""
        if self._input is not None:
            return self._input
        known = {name: value for name, value in self._asked().items() if value is not None}
        document = known | {"request": without_media(loads(self.request))}
        return self.masking.in_bytes(_readable(document))

    def _asked(self) -> dict[str, Any]:
        """What both files say of the request."""
        return {
            "id": self.id,
            "time": datetime.fromtimestamp(self.time, UTC).isoformat(timespec="milliseconds"),
            "account": self.account,
            "path": self.path,
            "route": self.route,
            "model": self.model,
            "stream": self.stream,
        }

    def output(self) -> bytes:
        """
        The content of the response's file: the facts, each in a line, a blank line and the text.
        The fact C{parts} is JSON: the name of each part of the text, the byte of the text at which
        it begins, and its length. L{gemproxy.journal_entry} reads it.
        """
        usage = self.usage or {}
        text, parts = self._parts_in_one()
        facts = self._asked() | {
            "upstream": self.upstream,
            "status": self.status,
            "finish_reason": self.finish_reason,
            "native_finish_reason": self.native_finish_reason,
            "prompt_tokens": usage.get("prompt_tokens"),
            "completion_tokens": usage.get("completion_tokens"),
            "cost": self.cost,
            "duration": _seconds(self.duration),
            "first_token": _seconds(self.first_token),
            "retries": self.retries,
            "upstream_request": self.upstream_request and _one_word(self.upstream_request),
            "error": self.error,
            "parts": dumps(parts).decode(),
        }
        # A line is a fact, whatever others have put into their words.
        lines = [
            f"{name}: {' '.join(str(value).split())}\n"
            for name, value in facts.items()
            if value is not None
        ]
        return self.masking.in_bytes("".join(lines).encode("utf-8", "replace")) + b"\n" + text

    def _parts_in_one(self) -> tuple[bytes, list[tuple[str, int, int]]]:
        """The text as it is written, and the name, the beginning and the length of each part."""
        mask = self.masking.in_bytes
        texts = {"content": bytearray(), **self._texts}
        written, parts = bytearray(), list[tuple[str, int, int]]()
        for name, text in texts.items():
            if name != "content":
                written += mask(f"\n\n--- {name} ---\n".encode("utf-8", "replace"))
            masked = mask(bytes(text))
            parts.append((name, len(written), len(masked)))
            written += masked
        if self._size > TEXT_LIMIT:
            written += b"\n\n--- truncated: the rest is not kept ---"
        written += b"\n"
        return bytes(written), parts

    def _quoted(self, text: str) -> str:
        """A text for the log: in one line, not too long, without keys."""
        return json.dumps(self.masking.in_text(" ".join(text.split()))[:_ERROR_LENGTH])


def _part(index: int, kind: str) -> str:
    """The name of a part of the journal."""
    return kind if not index else f"choice {index}: {kind}"


def _text_of(kind: str, value: Any) -> str:
    """How a field of a delta is written down."""
    if isinstance(value, str):
        return value
    kept = _without_sound(value) if kind == "audio" else without_media(value)
    return dumps(kept).decode() + "\n"


def _one_word(value: Any) -> str:
    return "_".join(str(value).split())[:100]


def _readable(document: Any) -> bytes:
    try:
        return orjson.dumps(document, option=orjson.OPT_INDENT_2)
    except TypeError:
        # orjson does not support integers beyond 64 bits.
        return json.dumps(document, ensure_ascii=False, indent=2).encode("utf-8", "replace")


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}s"


def without_media(value: Any) -> Any:
    """Replace each picture, audio or file by its type and size."""
    if isinstance(value, dict):
        kinds = {"data": _kind_of_data(value), "file_data": "file"}
        return {
            key: _described(kind, len(item))
            if isinstance(item, str) and (kind := kinds.get(key)) and not _MEDIA.match(item)
            else without_media(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [without_media(item) for item in value]
    if isinstance(value, str) and (media := _MEDIA.match(value)):
        return _described(media[1] or "data", len(value) - media.end())
    return value


def _without_sound(audio: Any) -> Any:
    """The same for a delta's C{audio}, which does not tell its format."""
    data = audio.get("data") if isinstance(audio, dict) else None
    return audio | {"data": _described("audio", len(data))} if isinstance(data, str) else audio


def _kind_of_data(value: dict[str, Any]) -> str | None:
    """The type of the base64 in an object; None if its C{data} are something else."""
    named = next((value[key] for key in _TYPE_KEYS if key in value), None)
    if named is None:
        return "data" if value.keys() <= {"data", "type"} else None
    return str(named)[:100] if "/" in str(named) else f"audio/{str(named)[:100]}"


def _described(kind: str, length: int) -> str:
    """@param length: of its base64."""
    return f"[{kind}, {length * 3 // 4} bytes]"
