"""All settings: a table that describes them, and the Config created from it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from attrs import evolve, field, frozen

from gemproxy.chat.json_structure import DEEPEST
from gemproxy.chat.jsontext import loads
from gemproxy.chat.shapes import as_object
from gemproxy.config_file import (
    BadFile,
    FileConfig,
    PriceListConfig,
    UpstreamConfig,
    parse_config_file,
)
from gemproxy.secret_files import (
    BadSecretFile,
    file_name_of,
    read_secret,
    with_secrets_read,
    without_quotes,
)
from gemproxy.state.url import StateUrl, parse_state_url
from gemproxy.util.masking import SHORTEST_SECRET

_T = TypeVar("_T")

_MODEL_NAME = re.compile(r"[A-Za-z0-9._-]+")
# A Twisted endpoint string: a type, and its arguments.
_ENDPOINT = re.compile(r"[a-z][A-Za-z0-9]*:.+")
# ai.google.dev/gemini-api/docs/safety-settings: what is blocked, from nothing to most.
_THRESHOLDS = {
    "": None,
    "off": "OFF",
    "none": "BLOCK_NONE",
    "high": "BLOCK_ONLY_HIGH",
    "medium": "BLOCK_MEDIUM_AND_ABOVE",
    "low": "BLOCK_LOW_AND_ABOVE",
}
_ENGINES = ("cli", "direct")
_CONVERSIONS = ("on", "off", "auto")
# cloud.google.com/resource-manager/docs/creating-managing-projects; older ones have a domain.
_PROJECT = re.compile(r"(?:[a-z0-9.-]{1,100}:)?[a-z0-9][a-z0-9-]{1,62}")
_LOCATION = re.compile(r"[a-z][a-z0-9-]{1,40}", re.I)
_DIGITS = re.compile(r"[0-9]{1,9}")
_URL = re.compile(r"https?://(?:(?![?#@\\])[!-~])+", re.I)


class BadSetting(ValueError):
    """
    The value of a setting is invalid; the message names the setting, the value and what is allowed.
    """


class Origin(Enum):
    """Where the value of a setting comes from; an earlier one goes before a later one."""

    OPTION = "option"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


@frozen
class Source:
    """
    @ivar text: the value, as it is written there; None if there is none.
    """

    origin: Origin
    text: str | None = field(repr=False)


@frozen
class Setting:
    """
    One setting.

    @ivar env: the environment variable.
    @ivar default: the text used if the setting is not given; None if it has no default.
    @ivar parse: converts the text to the value; raises ValueError with what is allowed.
    @ivar secret: whether the value must not appear in messages; it may be the content of a file
        then, which a setting of the name L{file_env} names.
    @ivar guards: whether it is a key that lets a client in. The others are made by those who take
        them.
    @ivar may_be_empty: whether an empty variable differs from an unset one.
    """

    env: str
    default: str | None
    parse: Callable[[str], Any]
    meaning: str
    secret: bool = False
    guards: bool = False
    may_be_empty: bool = False

    @property
    def attribute(self) -> str:
        """The name of the Config field."""
        return self.env.lower()

    @property
    def option(self) -> str:
        """The long twistd option, without the leading dashes."""
        return self.env.lower().replace("_", "-")

    @property
    def file_env(self) -> str:
        """The environment variable that names a file with the value, if it is a secret."""
        return file_name_of(self.env)

    @property
    def file_option(self) -> str:
        """The option that does."""
        return file_name_of(self.option)

    def source(
        self,
        options: Mapping[str, str | None],
        environ: Mapping[str, str],
        file: Mapping[str, str] = MappingProxyType({}),
    ) -> Source:
        """The option, else the variable, else the file, else the default."""
        option = options.get(self.option)
        if option is not None:
            return Source(Origin.OPTION, option)
        variable = environ.get(self.env)
        if variable is not None:
            variable = without_quotes(variable)
            if variable or self.may_be_empty:
                return Source(Origin.ENVIRONMENT, variable)
        if self.env in file:
            return Source(Origin.FILE, file[self.env])
        return Source(Origin.DEFAULT, self.default)

    def read(self, text: str) -> Any:
        """@raise BadSetting: the text is invalid."""
        try:
            return self.parse(text.strip())
        except ValueError as error:
            shown = "its value" if self.secret else repr(text)
            raise BadSetting(f"{self.env}: {shown} is not allowed; expected {error}.") from None


def _port(text: str) -> int | str | None:
    if text.lower() == "off":
        return None
    if _ENDPOINT.fullmatch(text):
        return text
    if not _DIGITS.fullmatch(text) or not 0 <= int(text) <= 65535:
        raise ValueError(
            "a port number from 1 to 65535 (0 picks a free one), a Twisted endpoint "
            "string such as unix:/run/gemproxy.sock, or off"
        )
    return int(text)


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not _DIGITS.fullmatch(text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def _or(word: str, parse: Callable[[str], _T]) -> Callable[[str], _T | None]:
    """A parser that takes a word as well, which is None."""

    def parse_or(text: str) -> _T | None:
        if text.lower() == word:
            return None
        try:
            return parse(text)
        except ValueError as error:
            raise ValueError(f"{error}, or {word}") from None

    return parse_or


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]+\.?[0-9]*|\.[0-9]+", text) or not low <= float(text) <= high:
            raise ValueError(f"a number of seconds from {low:g} to {high:g}")
        return float(text)

    return parse


def _flag(text: str) -> bool:
    truth = {"true": True, "1": True, "yes": True, "on": True}
    falsehood = {"false": False, "0": False, "no": False, "off": False, "": False}
    try:
        return (truth | falsehood)[text.lower()]
    except KeyError:
        raise ValueError("true or false") from None


def _url(text: str) -> str:
    wanted = "an http:// or https:// URL without user, query or fragment"
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError(wanted) from None
    if not _URL.fullmatch(text) or not parts.hostname:
        raise ValueError(wanted)
    return text.rstrip("/")


def _models(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if (text and not names) or not all(_MODEL_NAME.fullmatch(name) for name in names):
        raise ValueError("model names of letters, digits, '.', '-' and '_', comma separated")
    return names


def _host(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z.:_-]+", text):
        raise ValueError("an IP address or a host name")
    return text


def _executable(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("the name or path of an executable")
    return text


def _keys(text: str) -> tuple[str, ...]:
    keys = tuple(dict.fromkeys(_key(key.strip()) for key in text.split(",") if key.strip()))
    if text and not keys:
        raise ValueError("keys of printable ASCII characters, comma separated")
    return keys


def _networks(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    try:
        for name in names:
            ipaddress.ip_network(name, strict=False)
    except ValueError:
        raise ValueError("IP addresses and networks such as 10.0.0.0/8, comma separated") from None
    return names


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(origin.strip().rstrip("/") for origin in text.split(",") if origin.strip())
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s,]+", origin):
            raise ValueError("origins such as https://chat.example, comma separated, or *")
    return origins


def _hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(name.lower() for name in _tags(text))
    for host in hosts:
        if host != "*" and not re.fullmatch(r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*", host):
            raise ValueError(
                "host names without a port such as chat.example.org, or .example.org for all below "
                "it, comma separated, or *"
            )
    return hosts


def _size(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9}) ?([kKMG]?)B?", text)
    if match is None or not int(match[1]):
        raise ValueError("a size such as 50MB, 512kB or 1GB")
    return int(match[1]) * {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}[match[2]]


def _optional(parse: Callable[[str], _T]) -> Callable[[str], _T | None]:
    return lambda text: parse(text) if text else None


def _tags(text: str) -> tuple[str, ...]:
    return tuple(tag.strip() for tag in text.split(",") if tag.strip())


def _folder(text: str) -> Path | None:
    if "\0" in text:
        raise ValueError("the path of a folder")
    return Path(text).absolute() if text else None


def _needed_folder(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError("the path of a folder")
    return Path(text).absolute()


def _safety(text: str) -> str | None:
    try:
        return _THRESHOLDS[text.lower()]
    except KeyError:
        raise ValueError(f"one of {', '.join(filter(None, _THRESHOLDS))}") from None


def _conversion(text: str) -> str:
    if text.lower() not in _CONVERSIONS:
        raise ValueError(f"one of {', '.join(_CONVERSIONS)}")
    return text.lower()


def _engine(text: str) -> str:
    if text.lower() not in _ENGINES:
        raise ValueError(f"one of {', '.join(_ENGINES)}")
    return text.lower()


def _key(text: str) -> str:
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("a key of printable ASCII characters without spaces")
    return text


def _project(text: str) -> str:
    if not _PROJECT.fullmatch(text):
        raise ValueError("the id of a project, such as my-project-123")
    return text


def _location(text: str) -> str:
    if not _LOCATION.fullmatch(text):
        raise ValueError("a location such as global or europe-west4")
    return text.lower()


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "GEMINI_API_KEY",
        None,
        _keys,
        "key for the Gemini API; several keys, comma separated, are used in turn",
        secret=True,
    ),
    Setting(
        "GOOGLE_GEMINI_BASE_URL",
        "https://generativelanguage.googleapis.com",
        _url,
        "base URL of the Gemini API",
    ),
    Setting(
        "GOOGLE_GENAI_USE_VERTEXAI",
        "false",
        _flag,
        "ask Vertex AI instead of the Gemini API, with credentials of Google Cloud",
    ),
    Setting(
        "GOOGLE_CLOUD_PROJECT",
        "",
        _optional(_project),
        "the project of Google Cloud that Vertex AI is asked for",
    ),
    Setting(
        "GOOGLE_CLOUD_LOCATION",
        "global",
        _location,
        "where Vertex AI answers: `global`, `eu`, `us` or a region",
    ),
    Setting(
        "GOOGLE_APPLICATION_CREDENTIALS",
        "",
        _optional(Path),
        "file with credentials of Google Cloud; if empty, the application default credentials",
    ),
    Setting(
        "GOOGLE_API_KEY",
        "",
        _keys,
        "key for Vertex AI in express mode, in place of project and credentials",
        secret=True,
    ),
    Setting(
        "GOOGLE_VERTEX_BASE_URL",
        "",
        _optional(_url),
        "base URL of Vertex AI; if empty, that of the location",
    ),
    Setting("HOST", "127.0.0.1", _host, "address to listen on (the container images set 0.0.0.0)"),
    Setting(
        "PORT",
        "3000",
        _port,
        "port of the Gemini Proxy, or a Twisted endpoint string; `off` disables it",
    ),
    Setting(
        "STREAM_PORT",
        "3002",
        _port,
        "port of the Stream Proxy, or a Twisted endpoint string; `off` disables it",
    ),
    Setting(
        "TIMEOUT",
        "600",
        _seconds(0.1, 86400),
        "seconds without data from the backend after which a request is cancelled",
    ),
    Setting(
        "MAX_RETRIES",
        "5",
        _whole(0, 100),
        "maximum number of retries after a failed request to the Gemini API",
    ),
    Setting(
        "RETRY_DELAY",
        "1",
        _seconds(0, 3600),
        "seconds before the first retry; doubles with each further retry, up to a minute",
    ),
    Setting(
        "MAX_RETRY_WAIT",
        "60",
        _seconds(0, 86400),
        "longest delay in seconds that Google may ask for before a retry; a longer one is given "
        "to the client as Retry-After",
    ),
    Setting(
        "HEARTBEAT_INTERVAL",
        "15",
        _or("off", _seconds(0.05, 3600)),
        "seconds without data to the client after which a heartbeat is sent; `off` disables all "
        "heartbeats",
    ),
    Setting(
        "EARLY_HEARTBEATS",
        "true",
        _flag,
        "whether heartbeats are sent before the first data of the answer; `false` keeps the "
        "status open for an error until then",
    ),
    Setting(
        "JSON_HEARTBEAT_DELAY",
        "30",
        _or("off", _seconds(0.05, 3600)),
        "seconds after which white space is sent as heartbeats to a client that does not "
        "stream (the status is then 200, even if an error follows); `off` disables it",
    ),
    Setting(
        "GEMINI_ENGINE",
        "cli",
        _engine,
        "what has Gemini answer: `cli`, the Gemini CLI, or `direct`, gemproxy itself, which needs "
        "neither the CLI nor Node",
    ),
    Setting("GEMINI_CLI", "gemini", _executable, "name or path of the Gemini CLI's executable"),
    Setting(
        "GEMINI_WORKERS",
        "auto",
        _or("auto", _whole(1, 64)),
        "maximum number of CLI processes; `auto` is 4, or fewer where memory or CPU are limited",
    ),
    Setting(
        "GEMINI_SESSIONS",
        "64",
        _whole(1, 100),
        "maximum number of concurrent requests in one CLI process",
    ),
    Setting(
        "GEMINI_QUEUE",
        "200",
        _whole(0, 100000),
        "maximum number of requests waiting for a CLI process; further requests get 503",
    ),
    Setting(
        "GEMINI_MODELS",
        "",
        _models,
        "models in the list of models, comma separated; if empty, those that Google lists for the "
        "keys",
    ),
    Setting(
        "LENIENT",
        "true",
        _flag,
        "whether unsupported parameters are ignored (and named in the response header "
        "x-gemproxy-ignored) instead of rejected",
    ),
    Setting(
        "THOUGHTS",
        "true",
        _flag,
        "whether answers of Gemini contain the summaries of its thoughts",
    ),
    Setting(
        "GEMINI_SAFETY",
        "",
        _safety,
        "threshold of Google's safety filters unless a client sets them: `off`, `none`, `high`, "
        "`medium` or `low`; if empty, the API's own",
    ),
    Setting(
        "FETCH_IMAGES",
        "false",
        _flag,
        "whether pictures given as http(s) URLs are fetched; only public addresses are allowed",
    ),
    Setting(
        "UPSTREAM_URL",
        "http://127.0.0.1:3001",
        _url,
        "base URL of New-API, for models other than Gemini; `/v1` is added if it has no path",
    ),
    Setting(
        "FIXED_API_KEY",
        "",
        _optional(_key),
        "key to send to New-API; if empty, the client's own Authorization header is passed on",
        secret=True,
    ),
    Setting(
        "CONVERT",
        "auto",
        _conversion,
        "whether New-API is asked for a stream if the client does not stream: `on`, `off`, or "
        "`auto`, which is `on` except for what New-API refuses to stream",
    ),
    Setting(
        "GEMINI_PROXY_URL",
        "",
        _optional(_url),
        "base URL of another gemproxy's Gemini Proxy, for two containers; if empty, the "
        "engine in this daemon is used",
    ),
    Setting(
        "STOP_TAGS",
        "<!--ST0P_PROXY_,<disclaimer>",
        _tags,
        "tags that end a response, comma separated; empty for no tags",
        may_be_empty=True,
    ),
    Setting(
        "LOG_DIR",
        "logs",
        _folder,
        "directory for the last requests and responses; empty keeps none",
        may_be_empty=True,
    ),
    Setting(
        "DATA_DIR",
        "data",
        _needed_folder,
        "directory for what outlives a restart",
    ),
    Setting(
        "STATE_URL",
        "",
        _optional(parse_state_url),
        "Valkey or Redis, for what several daemons share: `redis://...`, `rediss://...`, "
        "`redis+sentinel://...` or `unix://...`; if empty, nothing is shared",
        secret=True,
    ),
    Setting(
        "RESPONSES_KEEP",
        "0",
        _whole(0, 1_000_000),
        "number of answers of /v1/responses to keep for `previous_response_id`; 0 keeps none",
    ),
    Setting(
        "USAGE_DAYS",
        "90",
        _whole(0, 36500),
        "days for which each request is recorded in DATA_DIR, without texts; sums of each day are "
        "kept for good; 0 records nothing",
    ),
    Setting("LOG_KEEP", "10", _whole(1, 100000), "number of requests and responses to keep"),
    Setting(
        "PROXY_API_KEYS",
        "",
        _keys,
        "API keys for this proxy, comma separated; clients must send one (except to /health "
        "and /ready); if empty, no key is required",
        secret=True,
        guards=True,
    ),
    Setting(
        "CORS_ORIGINS",
        "",
        _origins,
        "origins of web pages that may use gemproxy from a browser, comma separated; `*` for all",
    ),
    Setting(
        "ALLOWED_HOSTS",
        "",
        _hosts,
        "public host names by which clients without a key may reach gemproxy, comma separated; "
        "`.example.org` for all names below it, `*` for every name",
    ),
    Setting(
        "ADMIN_KEY",
        "",
        _optional(_key),
        "key for `/admin` and the console; if empty, they are open to this machine, as long as "
        "clients need no key",
        secret=True,
        guards=True,
    ),
    Setting(
        "METRICS_OPEN",
        "false",
        _flag,
        "whether `/metrics` needs no key where clients need one; else it takes any of theirs, or "
        "ADMIN_KEY",
    ),
    Setting(
        "TRUSTED_PROXIES",
        "",
        _networks,
        "addresses and networks of proxies in front of gemproxy, comma separated, whose "
        "`X-Forwarded-...` headers are believed, and passed on to New-API",
    ),
    Setting("MAX_BODY", "50MB", _size, "maximum size of a request body"),
    Setting(
        "MAX_ANSWER",
        "100MB",
        _size,
        "maximum size of an answer that is kept until its end, as for a client that does not "
        "stream; a larger one is ended with 502",
    ),
    Setting(
        "MAX_ANSWER_PARTS",
        "200000",
        _whole(1000, 999_999_999),
        "maximum number of JSON objects and lists in such an answer, or in a single chunk of any "
        "answer",
    ),
    Setting(
        "MAX_ANSWER_CALLS",
        "1000",
        _whole(1, 1_000_000),
        "maximum number of function calls in such an answer, and in any of Gemini's; also of its "
        "pictures",
    ),
    Setting(
        "MAX_BODIES",
        "auto",
        _or("auto", _size),
        "maximum size of all request bodies in memory together; further requests get 503; `auto` "
        "is an eighth of the memory, or MAX_BODY if that is more",
    ),
    Setting(
        "MAX_DEPTH",
        "200",
        _whole(1, DEEPEST),
        "maximum number of levels of arrays and objects in each other in a JSON body",
    ),
    Setting(
        "MAX_CONTAINERS",
        "100000",
        _whole(1, 10_000_000),
        "maximum number of arrays and objects in a JSON body",
    ),
    Setting(
        "MAX_VALUES",
        "1000000",
        _whole(1, 100_000_000),
        "maximum number of values in a JSON body, whatever they are in",
    ),
    Setting(
        "MAX_MESSAGES",
        "20000",
        _whole(1, 1_000_000),
        "maximum number of messages in a conversation",
    ),
    Setting(
        "MAX_CONNECTIONS",
        "10000",
        _or("off", _whole(1, 1000000)),
        "maximum number of open connections of clients; further ones get 503; `off` for no limit",
    ),
    Setting(
        "CLIENT_CONNECTIONS",
        "5000",
        _or("off", _whole(1, 1000000)),
        "maximum number of open connections from one client address, except those in "
        "TRUSTED_PROXIES; further ones get 429; `off` for no limit",
    ),
    Setting(
        "CLIENT_REQUESTS",
        "off",
        _or("off", _whole(1, 1000000)),
        "maximum number of concurrent requests from one client address (behind TRUSTED_PROXIES, "
        "the one in X-Forwarded-For); further requests get 429; `off` for no limit",
    ),
    Setting(
        "PROCESSES",
        "1",
        _or("auto", _whole(1, 64)),
        "number of processes that serve side by side; `auto` is that of the CPU cores, or fewer "
        "where memory is limited",
    ),
    Setting(
        "DRAIN",
        "30",
        _seconds(0, 86400),
        "seconds that running requests have to finish when the daemon is stopped",
    ),
    Setting("DEBUG", "false", _flag, "debug logging"),
)


SECRETS = tuple(setting for setting in SETTINGS if setting.secret)


@frozen
class Config:
    """
    The settings of a daemon. Each field is the setting of the same name in SETTINGS.

    @ivar sources: where they come from, by the names of variables.
    @ivar file: the configuration file; None for none.
    """

    gemini_api_key: tuple[str, ...] = field(repr=False)
    google_gemini_base_url: str
    google_genai_use_vertexai: bool
    google_cloud_project: str | None
    google_cloud_location: str
    google_application_credentials: Path | None
    google_api_key: tuple[str, ...] = field(repr=False)
    google_vertex_base_url: str | None
    host: str
    port: int | str | None
    stream_port: int | str | None
    timeout: float
    max_retries: int
    retry_delay: float
    max_retry_wait: float
    heartbeat_interval: float | None
    early_heartbeats: bool
    json_heartbeat_delay: float | None
    gemini_engine: str
    gemini_cli: str
    gemini_workers: int | None
    gemini_sessions: int
    gemini_queue: int
    gemini_models: tuple[str, ...]
    lenient: bool
    thoughts: bool
    gemini_safety: str | None
    fetch_images: bool
    upstream_url: str
    fixed_api_key: str | None = field(repr=False)
    convert: str
    gemini_proxy_url: str | None
    stop_tags: tuple[str, ...]
    log_dir: Path | None
    data_dir: Path
    state_url: StateUrl | None
    responses_keep: int
    usage_days: int
    log_keep: int
    proxy_api_keys: tuple[str, ...] = field(repr=False)
    cors_origins: tuple[str, ...]
    allowed_hosts: tuple[str, ...]
    admin_key: str | None = field(repr=False)
    metrics_open: bool
    trusted_proxies: tuple[str, ...]
    max_body: int
    max_answer: int
    max_answer_parts: int
    max_answer_calls: int
    max_bodies: int | None
    max_depth: int
    max_containers: int
    max_values: int
    max_messages: int
    max_connections: int | None
    client_connections: int | None
    client_requests: int | None
    processes: int | None
    drain: float
    debug: bool
    upstreams: tuple[UpstreamConfig, ...] = ()
    routes: Mapping[str, tuple[str, ...]] = field(factory=dict)
    prices: PriceListConfig = PriceListConfig()
    demo: bool = False
    # Of the values, which they do not change.
    sources: Mapping[str, Source] = field(factory=dict, eq=False, repr=False)
    file: Path | None = field(default=None, eq=False)

    @classmethod
    def load(
        cls,
        options: Mapping[str, str | None],
        environ: Mapping[str, str],
        demo: bool = False,
        file: FileConfig | None = None,
        allow_no_key: bool = False,
    ) -> Config:
        """
        Load the settings from the options (by Setting.option), else from the environment, else from
        the file, else the defaults. An empty environment variable counts as unset, unless
        L{Setting.may_be_empty} is set.

        @param allow_no_key: whether the key may be missing.
        @raise BadSetting: a value is invalid, or the key is missing and C{demo} is false.
        """
        file = file or FileConfig()
        sources = {
            setting.env: setting.source(options, environ, file.settings) for setting in SETTINGS
        }
        values = {
            setting.attribute: setting.read(text)
            for setting in SETTINGS
            if (text := sources[setting.env].text) is not None
            and not (demo and setting.env == "GEMINI_API_KEY")
        }
        if demo:
            values["gemini_api_key"] = ("key-of-the-demo",)
        is_short = sources["UPSTREAM_URL"].origin is not Origin.DEFAULT
        upstreams = _upstreams(values["upstream_url"], values["fixed_api_key"], is_short, file)
        config = cls(
            **({"gemini_api_key": ()} | values),
            upstreams=upstreams,
            routes=file.routes,
            prices=file.prices,
            demo=demo,
            sources=sources,
        )
        if not config.ports:
            raise BadSetting("PORT and STREAM_PORT are both off: there is nothing to serve.")
        if config.needs_engine and not config.google_keys and not allow_no_key:
            if config.google_genai_use_vertexai:
                raise BadSetting(
                    "GOOGLE_GENAI_USE_VERTEXAI needs GOOGLE_CLOUD_PROJECT, with credentials of "
                    "Google Cloud, or GOOGLE_API_KEY."
                )
            raise BadSetting(
                "GEMINI_API_KEY is not set. Set it to a key for the Gemini API, or "
                "GEMINI_API_KEY_FILE to a file with one, or use --demo to try gemproxy without a "
                "key."
            )
        return config

    @property
    def ports(self) -> dict[str, int | str]:
        """Those that are not off, by the names of what serves at them."""
        named = {"Gemini Proxy": self.port, "Stream Proxy": self.stream_port}
        return {name: port for name, port in named.items() if port is not None}

    @property
    def needs_engine(self) -> bool:
        """Whether this daemon has Gemini answer itself."""
        return self.port is not None or self.gemini_proxy_url is None

    @property
    def needs_cli(self) -> bool:
        """Whether this daemon runs the Gemini CLI."""
        return self.needs_engine and self.gemini_engine == "cli"

    @property
    def uses_vertex(self) -> bool:
        """Whether Vertex AI is asked, and not AI Studio."""
        return self.google_genai_use_vertexai and not self.demo

    @property
    def google_keys(self) -> tuple[str, ...]:
        """What Google is asked with, in turn: API keys, or the project that credentials are for."""
        if not self.uses_vertex:
            return self.gemini_api_key
        if self.google_cloud_project is not None:
            return (self.google_cloud_project,)
        return self.google_api_key

    @property
    def credentials_problem(self) -> str | None:
        """Why the file of credentials, which is read here, is none; None if it is one."""
        path = self.google_application_credentials
        is_used = self.needs_engine and self.uses_vertex and self.google_cloud_project is not None
        if path is None or not is_used:
            return None
        try:
            content = read_secret(path)
        except BadSecretFile as error:
            return f"GOOGLE_APPLICATION_CREDENTIALS: {error}"
        try:
            is_one = isinstance(as_object(loads(content.encode())).get("type"), str)
        except ValueError:
            is_one = False
        if is_one:
            return None
        return f"GOOGLE_APPLICATION_CREDENTIALS: {path} has no credentials of Google Cloud in it."

    def keys_of(self, setting: Setting) -> tuple[str, ...]:
        """The keys in a setting that is a secret."""
        value = getattr(self, setting.attribute)
        if isinstance(value, StateUrl):
            value = value.password
        return value if isinstance(value, tuple) else () if value is None else (value,)

    @property
    def own_keys(self) -> tuple[str, ...]:
        """Those by which clients are let in."""
        return tuple(key for setting in SECRETS if setting.guards for key in self.keys_of(setting))

    @property
    def secrets(self) -> tuple[str, ...]:
        """All that must not be shown to anybody: the keys of settings and of upstreams."""
        return (
            *(key for setting in SECRETS for key in self.keys_of(setting)),
            *(secret for upstream in self.upstreams for secret in upstream.secrets),
        )


# Characters of a key of one's own making. One of random letters and digits cannot be guessed then.
_LONG_ENOUGH = 16


def advice_on_keys(config: Config, options: Mapping[str, str | None]) -> list[str]:
    """What its operator should change about the keys of a daemon, in a sentence each."""
    advice = []
    if named := [f"--{secret.option}" for secret in SECRETS if options.get(secret.option)]:
        advice.append(
            f"All users of this machine can see the keys of {', '.join(named)} in the list of "
            "processes: use variables of the environment, or files (...-file)."
        )
    for secret in SECRETS:
        keys = config.keys_of(secret)
        if secret.guards and any(len(key) < _LONG_ENOUGH for key in keys):
            advice.append(
                f"A key of {secret.env} has fewer than {_LONG_ENOUGH} characters: it is guessable."
            )
        elif any(len(key) < SHORTEST_SECRET for key in keys):
            advice.append(
                f"A key of {secret.env} has fewer than {SHORTEST_SECRET} characters: it may be a "
                "word, and is not masked in errors and in the journal."
            )
    return advice


DEFAULT_UPSTREAM = "newapi"
"""The name of the upstream that UPSTREAM_URL and FIXED_API_KEY describe."""


def _upstreams(
    url: str, key: str | None, is_given: bool, file: FileConfig
) -> tuple[UpstreamConfig, ...]:
    """@param is_given: whether UPSTREAM_URL is set."""
    if file.upstreams and (
        not is_given or any(upstream.name == DEFAULT_UPSTREAM for upstream in file.upstreams)
    ):
        return file.upstreams
    keys = (key,) if key is not None else ()
    return (
        UpstreamConfig(DEFAULT_UPSTREAM, url, keys, prefix=DEFAULT_UPSTREAM),
        *file.upstreams,
    )


CONFIG_VARIABLE = "GEMPROXY_CONFIG"


def config_path(option: str | None, environ: Mapping[str, str]) -> Path | None:
    """The configuration file: from the option, else from the variable; None for none."""
    text = option or without_quotes(environ.get(CONFIG_VARIABLE, ""))
    return Path(text).absolute() if text else None


def read_config(
    options: Mapping[str, str | None],
    environ: Mapping[str, str],
    path: Path | None = None,
    demo: bool = False,
    allow_no_key: bool = False,
) -> Config:
    """
    The settings, with those of a configuration file.

    @param options: see L{Config.load}; likewise C{environ}, C{demo} and C{allow_no_key}.
    @raise BadSetting: a setting or the file is invalid, or a file cannot be read.
    """
    try:
        options = with_secrets_read(options, [setting.option for setting in SECRETS])
        environ = with_secrets_read(environ, [setting.env for setting in SECRETS])
    except BadSecretFile as error:
        raise BadSetting(str(error)) from None
    if path is None:
        return Config.load(options, environ, demo, allow_no_key=allow_no_key)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"{path}: cannot be read: {error}") from None
    try:
        file = _parsed(text, path.parent)
    except (BadFile, BadSecretFile) as error:
        raise BadSetting(f"{path}: {error}") from None
    try:
        return evolve(Config.load(options, environ, demo, file, allow_no_key), file=path)
    except BadSetting as error:
        raise BadSetting(f"{error} (with {path})") from None


def _parsed(text: str, folder: Path) -> FileConfig:
    """@param folder: what the names of files in it start from."""
    names = [setting.env for setting in SETTINGS] + [setting.file_env for setting in SECRETS]
    file = parse_config_file(text, names, lambda name: read_secret(folder / name))
    settings = with_secrets_read(file.settings, [setting.env for setting in SECRETS], folder)
    return evolve(file, settings=settings)
