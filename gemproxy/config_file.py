"""The configuration file: TOML with settings, upstreams and routes. No I/O."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from attrs import field, frozen

CONVERSIONS = ("auto", "on", "off")
# Those of L{gemproxy.dialects.registry}.
DIALECT_NAMES = ("completions", "messages", "native", "responses")

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_CURRENCY = re.compile(r"[A-Z]{3}")
# What is in the file beside settings.
_TABLES = ("upstream", "routes", "prices")
_RESERVED = ("gemini", "google", "models")
# The names of headers whose values are secrets: Authorization, Cookie, X-Api-Key, X-Auth-Token...
_SECRET_HEADER = re.compile(r"auth|cookie|key|secret|token", re.I)


class BadFile(ValueError):
    """The file is invalid; the message says where and why, without the file's name."""


@frozen
class UpstreamConfig:
    """
    One upstream.

    @ivar url: its base URL.
    @ivar keys: the keys to send in turn; empty to pass on the client's own.
    @ivar models: patterns of the names of models that are this upstream's, with C{*}.
    @ivar prefix: what chooses this upstream in front of a model's name, before a C{/}.
    @ivar convert: whether requests that do not stream are turned into ones that do: one of
        CONVERSIONS; None for the setting.
    @ivar timeout: seconds without data after which a request is cancelled; None for the setting.
    @ivar proxy: the URL of the proxy to go through; None for what the environment says.
    @ivar headers: headers to send with each request.
    @ivar dialects: those that it speaks beside chat completions, of DIALECT_NAMES; None to find
        out.
    """

    name: str
    url: str
    keys: tuple[str, ...] = field(default=(), repr=False)
    models: tuple[str, ...] = ()
    prefix: str = ""
    convert: str | None = None
    timeout: float | None = None
    proxy: str | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    dialects: tuple[str, ...] | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """What of it must not be shown: keys, credentials in headers, the proxy's password."""
        credentials = [value for name, value in self.headers if _SECRET_HEADER.search(name)]
        words = [word for value in credentials for word in value.split()]
        password = urlsplit(self.proxy or "").password
        return (*self.keys, *words, *([unquote(password)] if password else []))


@frozen
class PriceConfig:
    """
    What a million tokens of a model cost. Of several prices that fit, the first one counts.

    @ivar models: patterns of the names of models, with C{*}; an upstream may stand in front, as in
        C{newapi/gpt-*}.
    @ivar input: for the prompt.
    @ivar output: for what is generated.
    @ivar cached: for what of the prompt was cached; None if that costs the same.
    @ivar reasoning: for thoughts, likewise.
    @ivar prompts_over: the price is for longer prompts than so many tokens.
    @ivar until: the last day (UTC) on which it is the price; None if no end is known.
    """

    models: tuple[str, ...]
    input: float
    output: float
    cached: float | None = None
    reasoning: float | None = None
    prompts_over: int = -1
    until: date | None = None


@frozen
class PriceListConfig:
    """
    @ivar as_of: the day on which the prices were read; None only if there are none.
    @ivar currency: its code, such as C{USD}.
    """

    as_of: date | None = None
    currency: str = "USD"
    per_million: tuple[PriceConfig, ...] = ()

    @property
    def known_currency(self) -> str | None:
        """That of the prices; None if there are none."""
        return self.currency if self.per_million else None


@frozen
class FileConfig:
    """
    @ivar settings: the text of each setting, by its environment variable.
    @ivar routes: the targets of each explicit route, in the order in which they are tried.
    """

    settings: Mapping[str, str] = field(factory=dict)
    upstreams: tuple[UpstreamConfig, ...] = ()
    routes: Mapping[str, tuple[str, ...]] = field(factory=dict)
    prices: PriceListConfig = PriceListConfig()


def parse_config_file(
    text: str, settings: Collection[str], read_secret: Callable[[str], str]
) -> FileConfig:
    """
    @param settings: the environment variables of all settings.
    @param read_secret: the content of a file that holds a secret; raises ValueError.
    @raise BadFile: the file is invalid.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadFile(f"it is not TOML: {error}") from None
    known = {name.lower(): name for name in settings}
    given: dict[str, str] = {}
    for key, value in document.items():
        if key in _TABLES:
            continue
        name = known.get(key.lower().replace("-", "_"))
        if name is None:
            raise BadFile(f"'{key}' is no setting{_suggestion(key, [*known, *_TABLES])}")
        given[name] = _text(key, value)
    upstreams = _upstreams(document.get("upstream", []), read_secret)
    prices = document.get("prices", {})
    if not isinstance(prices, dict):
        raise BadFile("prices must be written below [prices].")
    return FileConfig(
        given,
        upstreams,
        _routes(document.get("routes", {})),
        _prices(_Reader(prices, "prices", read_secret)),
    )


def _suggestion(key: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(key.lower(), known, 1)
    return f"; did you mean '{close[0]}'?" if close else "."


def _text(where: str, value: Any) -> str:
    """The value of a setting, as it would be written in a variable."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    raise BadFile(f"'{where}' must be a text, a number, true, false, or a list of texts.")


def _upstreams(value: Any, read_secret: Callable[[str], str]) -> tuple[UpstreamConfig, ...]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadFile("upstreams must be written as [[upstream]].")
    upstreams = tuple(
        _upstream(_Reader(item, f"upstream {number}", read_secret))
        for number, item in enumerate(value, 1)
    )
    for what in ("name", "prefix"):
        seen: set[str] = set()
        for upstream in upstreams:
            word = getattr(upstream, what)
            if word in seen:
                raise BadFile(f"two upstreams have the {what} '{word}'.")
            seen.add(word)
    return upstreams


def _upstream(reader: _Reader) -> UpstreamConfig:
    name = reader.text("name")
    if name is None or not _NAME.fullmatch(name) or name in _RESERVED:
        raise reader.bad("name", "must be small letters, digits, '-', '.', '_', and not 'gemini'")
    reader.where = f"upstream '{name}'"
    url = reader.text("url")
    if url is None or not _is_url(url, "http", "https"):
        raise reader.bad("url", "must be an http:// or https:// URL")
    key = reader.secret("key")
    keys = reader.texts("keys") + ((key,) if key is not None else ())
    if not all(one and one.isascii() and one.isprintable() and " " not in one for one in keys):
        raise reader.bad("key", "must be printable ASCII characters without spaces")
    convert = reader.text("convert")
    if convert is not None and convert not in CONVERSIONS:
        raise reader.bad("convert", f"must be one of {', '.join(CONVERSIONS)}")
    proxy = reader.secret("proxy")
    if proxy is not None and not _is_url(proxy, "http", "https", "socks5", "socks5h"):
        raise reader.bad("proxy", "must be the URL of a proxy")
    prefix = reader.text("prefix")
    prefix = name if prefix is None else prefix.strip("/")
    if not _NAME.fullmatch(prefix) or prefix in _RESERVED:
        raise reader.bad("prefix", "must be small letters, digits, '-', '.', '_'")
    upstream = UpstreamConfig(
        name,
        url.rstrip("/"),
        keys,
        reader.texts("models"),
        prefix,
        convert,
        reader.seconds("timeout"),
        proxy,
        reader.headers("headers"),
        _dialects(reader),
    )
    reader.check_rest()
    return upstream


def _dialects(reader: _Reader) -> tuple[str, ...] | None:
    if not reader.has("dialects"):
        return None
    dialects = reader.texts("dialects")
    if not set(dialects) <= set(DIALECT_NAMES):
        raise reader.bad("dialects", f"may have {', '.join(DIALECT_NAMES)}")
    return dialects


def _is_url(text: str, *schemes: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme.lower() in schemes and bool(parts.hostname) and not parts.fragment


def _routes(value: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise BadFile("routes must be written below [routes].")
    routes = {}
    for name, targets in value.items():
        listed = [targets] if isinstance(targets, str) else targets
        if (
            not isinstance(listed, list)
            or not listed
            or not all(isinstance(target, str) and target for target in listed)
        ):
            raise BadFile(f"route '{name}' must be a text such as \"newapi/gpt-4o\", or a list.")
        routes[name] = tuple(listed)
    return routes


def _prices(reader: _Reader) -> PriceListConfig:
    as_of, currency = reader.day("as_of"), reader.text("currency") or "USD"
    if not _CURRENCY.fullmatch(currency):
        raise reader.bad("currency", "must be a code such as USD")
    prices = tuple(_price(item) for item in reader.tables("per_million"))
    if prices and as_of is None:
        raise reader.bad("as_of", "must be the day on which the prices were read")
    reader.check_rest()
    return PriceListConfig(as_of, currency, prices)


def _price(reader: _Reader) -> PriceConfig:
    models = reader.texts("models")
    if not models:
        raise reader.bad("models", "must be there")
    reader.where = f"prices of '{models[0]}'"
    given, made = reader.number("input"), reader.number("output")
    if given is None or made is None:
        raise reader.bad("input", "and 'output' must be there")
    cached, reasoning = reader.number("cached"), reader.number("reasoning")
    over = reader.number("prompts_over")
    price = PriceConfig(
        models,
        given,
        made,
        cached,
        reasoning,
        -1 if over is None else int(over),
        reader.day("until"),
    )
    reader.check_rest()
    return price


class _Reader:
    """
    Reads the fields of a table, each by its type.

    @ivar where: what the table is called in errors.
    """

    def __init__(
        self, item: Mapping[str, Any], where: str, read_secret: Callable[[str], str]
    ) -> None:
        """@param read_secret: see L{parse_config_file}."""
        self.where = where
        self._item = item
        self._read_secret = read_secret
        self._read: set[str] = set()

    def bad(self, name: str, rule: str) -> BadFile:
        return BadFile(f"{self.where}: '{name}' {rule}.")

    def _get(self, name: str) -> Any:
        self._read.add(name)
        return self._item.get(name)

    def has(self, name: str) -> bool:
        return name in self._item

    def text(self, name: str) -> str | None:
        value = self._get(name)
        if value is not None and not isinstance(value, str):
            raise self.bad(name, "must be a text")
        return value

    def secret(self, name: str) -> str | None:
        """A text, or the content of the file that another field names."""
        in_file = f"{name}_file"
        text, path = self.text(name), self.text(in_file)
        if path is None:
            return text
        if text is not None:
            raise BadFile(f"{self.where}: '{name}' and '{in_file}' are both given.")
        try:
            return self._read_secret(path)
        except ValueError as error:
            raise BadFile(f"{self.where}: {in_file}: {error}") from None

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.bad(name, "must be a list of texts")
        return tuple(value)

    def seconds(self, name: str) -> float | None:
        value = self._get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 86400:
            raise self.bad(name, "must be a number of seconds up to 86400")
        return float(value)

    def number(self, name: str) -> float | None:
        value = self._get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
            raise self.bad(name, "must be a number from 0 on")
        return float(value)

    def day(self, name: str) -> date | None:
        value = self._get(name)
        if value is not None and (not isinstance(value, date) or isinstance(value, datetime)):
            raise self.bad(name, "must be a day such as 2026-11-28, without quotes")
        return value

    def tables(self, name: str) -> list[_Reader]:
        """Readers of a list of tables."""
        value = self._get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.bad(name, "must be a list of tables")
        return [
            _Reader(item, f"{self.where}, line {number} of '{name}'", self._read_secret)
            for number, item in enumerate(value, 1)
        ]

    def headers(self, name: str) -> tuple[tuple[str, str], ...]:
        value = self._get(name)
        if value is None:
            return ()
        if not isinstance(value, dict) or not all(
            _HEADER_NAME.fullmatch(key) and isinstance(text, str) and text.isprintable()
            for key, text in value.items()
        ):
            raise self.bad(name, "must be a table of header names and texts")
        return tuple(value.items())

    def check_rest(self) -> None:
        """@raise BadFile: there are fields that were not read."""
        for name in self._item:
            if name not in self._read:
                raise BadFile(f"{self.where}: '{name}' is not known{_suggestion(name, self._read)}")
