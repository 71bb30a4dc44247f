"""
The wire format of the Agent Client Protocol: JSON-RPC 2.0, one object per line.

Source: agentclientprotocol.com, protocol version 1.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.shapes import as_object

PROTOCOL_VERSION = 1

_SHOWN_TEXT = 40
_SHOWN_LENGTH = 1000


class ProtocolViolation(Exception):
    """The peer sent an invalid message or an overlong line."""


@frozen
class Notification:
    method: str
    params: dict[str, Any]


@frozen
class Request:
    id: Any
    method: str


@frozen
class Result:
    id: Any
    result: dict[str, Any]


@frozen
class ErrorResponse:
    id: Any
    code: int
    message: str


Message = Notification | Request | Result | ErrorResponse


def encode_request(id: int, method: str, params: dict[str, Any]) -> bytes:
    return _line({"id": id, "method": method, "params": params})


def encode_notification(method: str, params: dict[str, Any]) -> bytes:
    return _line({"method": method, "params": params})


def encode_result(id: Any, result: dict[str, Any]) -> bytes:
    return _line({"id": id, "result": result})


def encode_method_not_found(id: Any) -> bytes:
    return _line({"id": id, "error": {"code": -32601, "message": "Method not found"}})


def _line(message: dict[str, Any]) -> bytes:
    return dumps({"jsonrpc": "2.0"} | message) + b"\n"


def decode(line: bytes) -> Message:
    """@raise ProtocolViolation: the line is not a JSON-RPC message."""
    try:
        message = loads(line)
    except ValueError:
        raise ProtocolViolation("a line that is not JSON") from None
    if not isinstance(message, dict):
        raise ProtocolViolation("a line that is not a JSON object")
    method = message.get("method")
    id = message.get("id")
    if isinstance(id, bool) or not isinstance(id, str | int | float | None):
        raise ProtocolViolation("a message whose id is neither a string nor a number")
    if isinstance(method, str):
        if "id" in message:
            return Request(id, method)
        return Notification(method, as_object(message.get("params")))
    if "id" not in message:
        raise ProtocolViolation("a message with neither method nor id")
    error = message.get("error")
    if error is not None:
        error = error if isinstance(error, dict) else {"message": error}
        code = error.get("code")
        return ErrorResponse(
            id,
            code if isinstance(code, int) else 0,
            str(error.get("message") or "unknown error"),
        )
    return Result(id, as_object(message.get("result")))


def shown(line: bytes) -> str:
    """A message for the log, with long strings truncated."""
    try:
        return dumps(_cut(loads(line))).decode()[:_SHOWN_LENGTH]
    except ValueError:
        return repr(line[:_SHOWN_TEXT])


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _SHOWN_TEXT else f"{value[:_SHOWN_TEXT]}... ({len(value)})"
    if isinstance(value, list):
        return [_cut(item) for item in value]
    if isinstance(value, dict):
        return {_cut(key): _cut(item) for key, item in value.items()}
    return value


class LineDecoder:
    """
    Splits a byte stream into lines.

    @ivar limit: the maximum length of a line in bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """
        Process more bytes; returns the lines that they complete, without line ends and blank lines.

        @raise ProtocolViolation: a line is longer than the limit.
        """
        *complete, rest = data.split(b"\n")
        lines = []
        for line in complete:
            self._add(line)
            lines.append(b"".join(self._pieces))
            self._pieces.clear()
            self._size = 0
        self._add(rest)
        return [line for line in lines if line.strip()]

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self.limit:
            raise ProtocolViolation(f"a line of more than {self.limit} bytes")
        if piece:
            self._pieces.append(piece)
