"""JSON parsing and rendering; lenient about lone surrogates, strict about nesting and numbers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

import orjson

from gemproxy.chat.json_structure import DEEPEST, few_places, is_deeper

# orjson reads an integer beyond 64 bits, which has 20 digits at least, as a float.
_LONG_INTEGER = re.compile(rb"(?<![^\s:,\[])-?[0-9]{20,}(?![0-9.eE])")
_VALUE_IS_LONG = re.compile(rb"\s*-?[0-9]{20,}(?![0-9.eE])")
_MANY_ZEROS = b"0" * 20
_DIGITS_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_PIECE = 1 << 20
# Bytes of a text that cannot be too deep: each level takes two.
_FLAT = 2 * DEEPEST

_WHITE_SPACE = " \t\r\n"
_VALUE = json.JSONDecoder()
_SURROGATE = re.compile("[\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _in_range(make: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if math.isinf(float(text)):
            raise ValueError("a number is out of range")
        return make(text)

    return parse


def joined_halves(text: str) -> str:
    """The text with pairs of surrogates made one character, and lone ones U+FFFD."""
    if text.isascii() or _SURROGATE.search(text) is None:
        return text
    return _SURROGATE.sub("\ufffd", _PAIR.sub(_joined, text))


def _joined(pair: re.Match[str]) -> str:
    return pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return joined_halves(value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


def loads(text: bytes, exactly: bool = True) -> Any:
    """
    Parse JSON. Lone surrogates, escaped or encoded, become U+FFFD.

    @param exactly: whether integers beyond 64 bits are to be exact, which takes more time.
    @raise ValueError: not JSON, not UTF-8, nested too deeply, or a number that is NaN, infinite
        or out of range.
    """
    _check_depth(text)
    return loads_checked(text) if exactly else peek(text)


def loads_checked(text: bytes) -> Any:
    """
    The same for a text whose depth is known to be limited.

    @raise ValueError: see L{loads}.
    """
    return _with_all_digits(text) if has_long_integer(text) else peek(text)


def peek(text: bytes) -> Any:
    """
    The same for what is only glanced at: its depth, which takes time to find out, is not limited,
    and integers beyond 64 bits are not exact.

    @raise ValueError: see L{loads}.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _with_all_digits(text)


def read(text: bytes, exactly: bool = False) -> Any:
    """
    Parse the JSON of a server that is not strict about it: NaN and infinite numbers become None,
    bytes that are not UTF-8 become U+FFFD. A lone surrogate is kept, because its other half may be
    in what comes next.

    @param exactly: whether integers beyond 64 bits are to be exact, which takes more time.
    @raise ValueError: not JSON, or nested too deeply.
    """
    _check_depth(text)
    if exactly and has_long_integer(text):
        return _read_leniently(text)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _read_leniently(text)


def _check_depth(text: bytes) -> None:
    if len(text) > _FLAT and is_deeper(text, DEEPEST):
        raise ValueError("nested too deeply")


def has_long_integer(text: bytes) -> bool:
    """Whether there may be an integer that does not fit in 64 bits. False is certain."""
    # Much faster than a search for the pattern, which few texts need.
    if len(text) < _PIECE:
        if text.translate(_DIGITS_AS_ZEROS).find(_MANY_ZEROS) < 0:
            return False
    elif (places := _starts_of_values(text)) is not None:
        return any(_VALUE_IS_LONG.match(text, place) for place in places)
    elif not any(
        _MANY_ZEROS in text[start : start + _PIECE + len(_MANY_ZEROS)].translate(_DIGITS_AS_ZEROS)
        for start in range(0, len(text), _PIECE)
    ):
        return False
    return _LONG_INTEGER.search(text) is not None


def _starts_of_values(text: bytes) -> list[int] | None:
    """Where a value may begin; None if there are many, as in a text that is no picture's."""
    places = [0]
    for byte in (b":", b",", b"["):
        before = few_places(text, byte)
        if before is None:
            return None
        places += [place + 1 for place in before]
    return places


def values(text: bytes, between: re.Pattern[str]) -> list[bytes]:
    """
    Tell several JSON values in a row apart. Each of them is as lenient as those of L{read}.

    @param between: matches what may be in front of each value but the first, or nothing.
    @raise ValueError: there is something else in the text.
    """
    # Each byte becomes one character, so that the places are the same.
    characters = text.decode("latin-1")
    found = []
    place = len(characters) - len(characters.lstrip(_WHITE_SPACE))
    try:
        while True:
            _, end = _VALUE.raw_decode(characters, place)
            found.append(text[place:end])
            if not characters[end:].strip(_WHITE_SPACE):
                return found
            place = end + len(match[0]) if (match := between.match(characters, end)) else end
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _with_all_digits(text: bytes) -> Any:
    # orjson rejects lone surrogates, which are valid JSON, and rounds long integers.
    try:
        parsed = json.loads(
            text.decode("utf-8", "surrogatepass"),
            parse_constant=_reject_constant,
            parse_float=_in_range(float),
            parse_int=_in_range(int),
        )
        return _without_surrogates(parsed)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _read_leniently(text: bytes) -> Any:
    try:
        decoded = text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        decoded = text.decode("utf-8", "replace")
    try:
        return json.loads(decoded, parse_constant=lambda _: None, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def dumps(value: Any, keep_halves: bool = False) -> bytes:
    """
    Render JSON in one line, as UTF-8. Lone surrogates become U+FFFD.

    @param keep_halves: render lone surrogates as escapes instead, for a reader who joins them with
        what comes next.
    @raise TypeError: the value contains something that JSON cannot represent.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        # orjson rejects lone surrogates, and integers beyond 64 bits.
        whole = value if keep_halves else _without_surrogates(value)
        text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "backslashreplace")
