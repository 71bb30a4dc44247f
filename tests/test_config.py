"""Every setting: where its value comes from, and what it may be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import fields, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor

from gemproxy import tap
from gemproxy.config import SETTINGS, BadSetting, Config, Setting, config_path
from gemproxy.gemini.cli.install import Cli
from gemproxy.service import Daemon
from gemproxy.state.url import StateUrl
from gemproxy.tap import Options
from tests.tables import each

KEY = "the-key"
BY_NAME = {setting.env: setting for setting in SETTINGS}


@frozen
class Case:
    """
    What is expected of a setting.

    @ivar default: its value when nobody sets it.
    @ivar good: values by the texts that stand for them.
    @ivar bad: texts that are not allowed, such as those just outside its bounds.
    @ivar allowed: what the message about a bad text says is allowed.
    """

    env: str
    default: Any
    good: dict[str, Any]
    bad: tuple[str, ...]
    allowed: str


CASES = [
    Case("GEMINI_API_KEY", (KEY,), {" a , b,,a,": ("a", "b")}, ("two words",), "printable ASCII"),
    Case(
        "GOOGLE_GEMINI_BASE_URL",
        "https://generativelanguage.googleapis.com",
        {"http://localhost:8080/": "http://localhost:8080"},
        ("localhost:8080", " "),
        "http:// or https:// URL",
    ),
    Case("GOOGLE_GENAI_USE_VERTEXAI", False, {"No": False}, ("maybe",), "true or false"),
    Case(
        "GOOGLE_CLOUD_PROJECT",
        None,
        {"my-project-1": "my-project-1", "example.com:p1": "example.com:p1", " ": None},
        ("my project", "a/b", "-x"),
        "the id of a project",
    ),
    Case(
        "GOOGLE_CLOUD_LOCATION",
        "global",
        {"europe-west4": "europe-west4", "EU": "eu"},
        ("europe west", "a/b"),
        "a location such as",
    ),
    Case("GOOGLE_APPLICATION_CREDENTIALS", None, {"/a b.json": Path("/a b.json")}, (), ""),
    Case("GOOGLE_API_KEY", (), {"a,b": ("a", "b")}, ("two words",), "printable ASCII"),
    Case(
        "GOOGLE_VERTEX_BASE_URL",
        None,
        {"http://host/x/": "http://host/x"},
        ("ftp://host",),
        "http:// or https:// URL",
    ),
    Case(
        "HOST",
        "127.0.0.1",
        {"0.0.0.0": "0.0.0.0", "::": "::", "my-host.example": "my-host.example"},
        ("a b",),
        "an IP address or a host name",
    ),
    Case("PORT", 3000, {"8080": 8080, "off": None}, ("65536",), "a port number from 1 to 65535"),
    Case("STREAM_PORT", 3002, {"0": 0, "OFF": None}, ("true",), "a port number from 1 to 65535"),
    Case(
        "TIMEOUT",
        600.0,
        {"0.1": 0.1, "86400": 86400.0},
        ("0", "86401", "off"),
        "a number of seconds from 0.1 to 86400",
    ),
    Case("MAX_RETRIES", 5, {"0": 0, "100": 100}, ("101", "off"), "a whole number from 0 to 100"),
    Case(
        "RETRY_DELAY",
        1.0,
        {"0": 0.0, "3600": 3600.0},
        ("3601",),
        "a number of seconds from 0 to 3600",
    ),
    Case(
        "MAX_RETRY_WAIT",
        60.0,
        {"0": 0.0, "86400": 86400.0},
        ("86401", "off"),
        "a number of seconds from 0 to 86400",
    ),
    Case(
        "HEARTBEAT_INTERVAL",
        15.0,
        {"0.05": 0.05, "3600": 3600.0, "off": None},
        ("0", "3601"),
        "a number of seconds from 0.05 to 3600, or off",
    ),
    Case("EARLY_HEARTBEATS", True, {"false": False}, ("maybe",), "true or false"),
    Case(
        "JSON_HEARTBEAT_DELAY",
        30.0,
        {"0.05": 0.05, "3600": 3600.0, "off": None},
        ("0", "3601"),
        "a number of seconds from 0.05 to 3600, or off",
    ),
    Case("GEMINI_ENGINE", "cli", {"DIRECT": "direct"}, ("node", "1"), "one of cli, direct"),
    Case(
        "GEMINI_CLI",
        "gemini",
        {"/opt/gemini": "/opt/gemini", "my gemini": "my gemini"},
        (" ",),
        "the name or path of an executable",
    ),
    Case(
        "GEMINI_WORKERS",
        None,
        {"1": 1, "64": 64, "auto": None, "AUTO": None},
        ("0", "65"),
        "a whole number from 1 to 64, or auto",
    ),
    Case("GEMINI_SESSIONS", 64, {"1": 1, "100": 100}, ("0", "101"), "a whole number from 1 to 100"),
    Case(
        "GEMINI_QUEUE",
        200,
        {"0": 0, "100000": 100000},
        ("100001",),
        "a whole number from 0 to 100000",
    ),
    Case(
        "GEMINI_MODELS",
        (),
        {" ": (), "gemini-x": ("gemini-x",), " a , b_2.0,, a,": ("a", "b_2.0")},
        ("a b",),
        "model names of letters, digits",
    ),
    Case("LENIENT", True, {"false": False}, ("maybe",), "true or false"),
    Case("THOUGHTS", True, {"off": False, "false": False}, ("maybe",), "true or false"),
    Case(
        "GEMINI_SAFETY",
        None,
        {"off": "OFF", "None": "BLOCK_NONE", "low": "BLOCK_LOW_AND_ABOVE", "": None},
        ("all",),
        "off, none, high, medium, low",
    ),
    Case("FETCH_IMAGES", False, {"true": True}, ("maybe",), "true or false"),
    Case(
        "UPSTREAM_URL",
        "http://127.0.0.1:3001",
        {"http://host/v1": "http://host/v1"},
        ("ftp://host",),
        "http:// or https:// URL",
    ),
    Case("FIXED_API_KEY", None, {"sk-x": "sk-x", " ": None}, ("two words",), "printable ASCII"),
    Case("CONVERT", "auto", {"on": "on", "OFF": "off"}, ("true",), "one of on, off, auto"),
    Case(
        "GEMINI_PROXY_URL",
        None,
        {"http://host": "http://host", " ": None},
        ("host",),
        "http:// or https:// URL",
    ),
    Case(
        "STOP_TAGS",
        ("<!--ST0P_PROXY_", "<disclaimer>"),
        {"<a b>, [END] ,,": ("<a b>", "[END]"), ",": (), "": ()},
        (),
        "",
    ),
    Case(
        "LOG_DIR",
        Path("logs").absolute(),
        {"/var/log/x": Path("/var/log/x"), "a/b c": Path("a/b c").absolute(), "": None},
        ("a\0b",),
        "the path of a folder",
    ),
    Case(
        "DATA_DIR",
        Path("data").absolute(),
        {"/var/lib/x": Path("/var/lib/x"), "a/b c": Path("a/b c").absolute()},
        ("a\0b",),
        "the path of a folder",
    ),
    Case(
        "STATE_URL",
        None,
        {"redis://valkey": StateUrl("redis", (("valkey", 6379),)), "": None},
        ("http://valkey", "valkey:6379"),
        "redis://[[user]:password@]host",
    ),
    Case(
        "RESPONSES_KEEP",
        0,
        {"0": 0, "1000000": 1000000},
        ("-1", "1000001"),
        "a whole number from 0 to 1000000",
    ),
    Case("USAGE_DAYS", 90, {"0": 0, "36500": 36500}, ("-1", "36501"), "a whole number from 0"),
    Case(
        "LOG_KEEP",
        10,
        {"1": 1, "100000": 100000},
        ("0", "100001"),
        "a whole number from 1 to 100000",
    ),
    Case("PROXY_API_KEYS", (), {"a,b": ("a", "b"), " ": ()}, ("two words",), "printable ASCII"),
    Case(
        "CORS_ORIGINS",
        (),
        {"*": ("*",), " http://a:8000/ ,app://b,": ("http://a:8000", "app://b")},
        ("a.example",),
        "origins such as https://chat.example",
    ),
    Case(
        "ALLOWED_HOSTS",
        (),
        {"*": ("*",), " Chat.Example ,.b,box": ("chat.example", ".b", "box")},
        ("a.example:80", "http://a.example"),
        "host names without a port",
    ),
    Case(
        "ADMIN_KEY",
        None,
        {"a-key": "a-key", "": None},
        ("two words", "\u00e9"),
        "a key of printable",
    ),
    Case("METRICS_OPEN", False, {"true": True}, ("maybe",), "true or false"),
    Case(
        "TRUSTED_PROXIES",
        (),
        {"10.0.0.0/8": ("10.0.0.0/8",)},
        ("proxy.example",),
        "IP addresses and networks",
    ),
    Case("MAX_BODY", 50_000_000, {"2 MB": 2_000_000}, ("0",), "a size such as 50MB"),
    Case("MAX_ANSWER", 100_000_000, {"2 MB": 2_000_000}, ("0",), "a size such as 50MB"),
    Case(
        "MAX_ANSWER_PARTS",
        200_000,
        {"1000": 1000, "999999999": 999_999_999},
        ("999", "off"),
        "a whole number from 1000 to 999999999",
    ),
    Case(
        "MAX_ANSWER_CALLS",
        1000,
        {"1": 1, "1000000": 1_000_000},
        ("0", "1000001"),
        "a whole number from 1 to 1000000",
    ),
    Case("MAX_BODIES", None, {"1GB": 10**9, "auto": None}, ("0", "off"), "a size such as 50MB"),
    Case("MAX_DEPTH", 200, {"20": 20}, ("0", "201"), "a whole number from 1 to 200"),
    Case("MAX_CONTAINERS", 100_000, {"9": 9}, ("0", "x"), "a whole number from 1 to 10000000"),
    Case("MAX_VALUES", 1_000_000, {"9": 9}, ("0", "x"), "a whole number from 1 to 100000000"),
    Case("MAX_MESSAGES", 20_000, {"9": 9}, ("0", "x"), "a whole number from 1 to 1000000"),
    Case(
        "MAX_CONNECTIONS",
        10000,
        {"1": 1, "1000000": 1000000, "off": None},
        ("0", "1000001"),
        "a whole number from 1 to 1000000, or off",
    ),
    Case(
        "CLIENT_CONNECTIONS",
        5000,
        {"1": 1, "1000000": 1000000, "off": None},
        ("0", "1000001"),
        "a whole number from 1 to 1000000, or off",
    ),
    Case(
        "CLIENT_REQUESTS",
        None,
        {"1": 1, "1000000": 1000000, "off": None},
        ("0", "1000001"),
        "a whole number from 1 to 1000000, or off",
    ),
    Case(
        "PROCESSES", 1, {"auto": None, "AUTO": None, "64": 64}, ("0", "65", "-1", "two"), "or auto"
    ),
    Case(
        "DRAIN",
        30.0,
        {"0": 0.0, "86400": 86400.0},
        ("86401", "off"),
        "a number of seconds from 0 to 86400",
    ),
    Case("DEBUG", False, {"1": True}, ("2",), "true or false"),
]

NOT_NUMBERS = ("x", "-1", "+5", "0x10", "1e3", "٣", "²", "5 5", ".", "nan", "inf", "9" * 5000)
NOT_KEYS = ("two words", "ключ", "a\nb", "a\x7fb")
# Every way of reading a text, by one setting that is read so: values by texts, and bad texts.
PARSERS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "PORT": (
        {" 8080 ": 8080, "0": 0, "65535": 65535, "off": None, "OFF": None},
        (*NOT_NUMBERS, "1.5", "65536", "true"),
    ),
    "MAX_RETRIES": ({"007": 7}, (*NOT_NUMBERS, "1.5")),
    "RETRY_DELAY": ({"5": 5.0, "1.": 1.0, ".5": 0.5}, NOT_NUMBERS),
    "CLIENT_REQUESTS": ({"7": 7, "OFF": None}, (*NOT_NUMBERS, "1.5", "never")),
    "JSON_HEARTBEAT_DELAY": ({"5": 5.0, "Off": None}, (*NOT_NUMBERS, "never")),
    "DEBUG": (
        dict.fromkeys(("true", "1", "YES", "on"), True)
        | dict.fromkeys(("false", "0", "No", "off", " "), False),
        ("maybe", "2", "truefalse"),
    ),
    "GEMINI_API_KEY": (
        {"AIza-x_1": ("AIza-x_1",), " spaced ": ("spaced",)},
        (*NOT_KEYS, "a,two words", ",", " , "),
    ),
    "FIXED_API_KEY": ({"AIza-x_1": "AIza-x_1", " spaced ": "spaced"}, NOT_KEYS),
    "UPSTREAM_URL": (
        {
            "http://localhost:8080/": "http://localhost:8080",
            "HTTPS://proxy.example/gemini//": "HTTPS://proxy.example/gemini",
            "http://[::1]:80": "http://[::1]:80",
        },
        (
            *("localhost:8080", "ftp://host", "http://", "http://:80", "/path", "http://[::1"),
            *("http://host:x", "http://host:65536", "http://a b", "http://a\tb", "http://é.org"),
            *("http://host/?", "http://host/?a=b", "http://host/#a", "http://me:pw@host", r"\\h"),
        ),
    ),
    "TRUSTED_PROXIES": (
        {"10.0.0.0/8, ::1,": ("10.0.0.0/8", "::1"), "": ()},
        ("10.0.0.0/33", "proxy.example", "*"),
    ),
    "HOST": ({}, ("a/b", "[::1]", "a\\:b")),
    "GEMINI_CLI": ({}, ("a\0b",)),
    "GEMINI_MODELS": ({}, (",", "a/b", "a;b", "mödel")),
    "CORS_ORIGINS": ({}, ("https://", "https://a/b", "https://a b", "**")),
    "ALLOWED_HOSTS": ({}, ("a:80", "[::1]", "*.a", ".", "a..b", "a b", "http://a")),
    "MAX_BODY": (
        {"1": 1, "7B": 7, "512kB": 512_000, "1G": 10**9, "3K": 3000},
        ("0MB", "MB", "-1", "1.5MB", "1TB", "1 0MB", "٣MB", "9" * 5000),
    ),
}
# A URL that is asked for cannot be empty, one that may be missing can.
PARSERS["GEMINI_PROXY_URL"] = PARSERS["UPSTREAM_URL"]


def load(options: dict[str, str | None] | None = None, **environ: str) -> Config:
    return Config.load(options or {}, {"GEMINI_API_KEY": KEY} | environ)


def value(config: Config, env: str) -> Any:
    return getattr(config, BY_NAME[env].attribute)


def complaint(setting: Setting, text: str) -> str:
    with pytest.raises(BadSetting) as caught:
        setting.read(text)
    return str(caught.value)


def assert_read(env: str, good: dict[str, Any]) -> None:
    for text, expected in good.items():
        loaded = value(load(**{env: text}), env)
        assert (loaded, type(loaded)) == (expected, type(expected)), text


def assert_refused(env: str, bad: tuple[str, ...], allowed: str) -> None:
    for text in bad:
        with pytest.raises(BadSetting) as caught:
            load(**{env: text})
        message = str(caught.value)
        assert message.startswith(f"{env}: "), text
        assert allowed in message, text
        assert (repr(text) in message) is not BY_NAME[env].secret


def test_every_setting_has_a_case_here():
    assert [case.env for case in CASES] == [setting.env for setting in SETTINGS]


@each("case", CASES)
def test_a_setting_has_a_default(case: Case):
    assert value(load(), case.env) == case.default
    # An empty variable counts as unset, unless it means something.
    if case.env != "GEMINI_API_KEY" and "" not in case.good:
        assert value(load(**{case.env: ""}), case.env) == case.default


@each("case", CASES)
def test_a_variable_sets_it(case: Case):
    assert_read(case.env, case.good)


@each("case", [c for c in CASES if c.bad])
def test_a_bad_value_is_named_with_its_variable_and_what_is_allowed(case: Case):
    assert_refused(case.env, case.bad, case.allowed)
    with pytest.raises(BadSetting, match=f"^{case.env}: "):
        load({BY_NAME[case.env].option: case.bad[0]})


@pytest.mark.parametrize("env", PARSERS)
def test_every_parser_takes_what_it_can_read_and_nothing_else(env: str):
    good, bad = PARSERS[env]
    assert_read(env, good)
    [allowed] = [case.allowed for case in CASES if case.env == env]
    assert_refused(env, bad, allowed)


def test_options_win_over_variables():
    options = {BY_NAME[case.env].option: next(iter(case.good)) for case in CASES}
    config = load(options, **{case.env: case.bad[0] if case.bad else "x" for case in CASES})
    expected = {case.env: next(iter(case.good.values())) for case in CASES}
    assert {env: value(config, env) for env in expected} == expected


@given(st.sampled_from(SETTINGS), st.text())
def test_any_text_gives_a_value_or_a_complaint(setting: Setting, text: str):
    try:
        setting.read(text)
    except BadSetting as error:
        assert str(error).startswith(f"{setting.env}: ")


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s.secret], ids=lambda s: s.env)
def test_a_secret_is_not_shown(setting: Setting):
    assert "hush" not in complaint(setting, "hush hush")
    value = "redis://:hush@a" if setting.env == "STATE_URL" else "hush"
    assert "hush" not in repr(load(**{setting.env: value}))


def test_a_secret_is_not_in_the_chain_of_exceptions():
    with pytest.raises(BadSetting) as caught:
        load(GEMINI_API_KEY="hush hush")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("environ", [{}, {"GEMINI_API_KEY": ""}, {"GEMINI_API_KEY": " "}])
def test_a_missing_key_is_named_in_the_error(environ: dict[str, str]):
    with pytest.raises(BadSetting, match=r"GEMINI_API_KEY is not set.*--demo"):
        Config.load({}, environ)


@pytest.mark.parametrize("environ", [{}, {"GEMINI_API_KEY": "a-real-key"}])
def test_the_demo_needs_no_key_and_takes_none(environ: dict[str, str]):
    config = Config.load({}, environ, demo=True)
    assert config.demo
    assert config.gemini_api_key == ("key-of-the-demo",)


def test_a_daemon_without_an_engine_needs_no_key():
    front = {"PORT": "off", "GEMINI_PROXY_URL": "http://host"}
    config = Config.load({}, front)
    assert config.gemini_api_key == ()
    assert not config.needs_engine
    assert load(GEMINI_PROXY_URL="http://host").needs_engine
    assert load(PORT="off").needs_engine


def test_it_is_the_demo_only_with_its_option():
    assert not load().demo


def test_one_port_may_be_off_but_not_both():
    assert load(PORT="off").port is None
    assert load(STREAM_PORT="off").stream_port is None
    with pytest.raises(BadSetting, match="PORT and STREAM_PORT are both off"):
        load(PORT="off", STREAM_PORT="off")


def test_the_fields_of_the_config_are_the_settings():
    names = [field.name for field in fields(Config)]
    assert names == [
        *(setting.attribute for setting in SETTINGS),
        "upstreams",
        "routes",
        "prices",
        "demo",
        "sources",
        "file",
    ]


def test_defaults_are_texts_that_an_operator_could_have_written():
    for setting in SETTINGS:
        if setting.default is not None:
            setting.read(setting.default)
        assert setting.meaning


def test_every_setting_is_an_option_of_twistd():
    shown = " ".join(str(Options()).split())
    for setting in SETTINGS:
        assert f"--{setting.option}" in shown
        assert f"[{setting.env}" in shown


@pytest.fixture
def twistd(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """Parses options as twistd does, on a machine that has the CLI and no variables set."""
    monkeypatch.setattr(tap, "find_cli", lambda name, environ: Cli(name, ""))
    for setting in SETTINGS:
        monkeypatch.delenv(setting.env, raising=False)
        monkeypatch.delenv(setting.file_env, raising=False)

    def parse(*arguments: str) -> Config:
        options = Options()
        options.parseOptions(["--gemini-api-key", KEY, *arguments])
        return options.config

    return parse


def test_the_options_of_twistd_set_them(twistd: Callable[..., Config]):
    arguments, expected = [], {}
    for case in CASES:
        option = f"--{BY_NAME[case.env].option}"
        if BY_NAME[case.env].default == "false":
            arguments.append(option)
            expected[case.env] = True
        else:
            text, expected[case.env] = next(iter(case.good.items()))
            arguments += [option, text]
    config = twistd(*arguments)
    assert {env: value(config, env) for env in expected} == expected


def test_without_options_of_twistd_there_are_the_defaults(twistd: Callable[..., Config]):
    config = twistd()
    assert [value(config, case.env) for case in CASES] == [case.default for case in CASES]


def test_twistd_complains_of_a_bad_option(twistd: Callable[..., Config]):
    with pytest.raises(
        SystemExit, match=r"^gemproxy: PORT: 'x' is not allowed; expected a port number"
    ):
        twistd("--port", "x")


def test_the_demo_is_an_option_of_twistd(twistd: Callable[..., Config]):
    assert twistd("--demo").demo
    assert not twistd().demo


# Of every kind that somebody may take for the value of something.
NONSENSE = (
    *("", " ", "-1", "0", "1e999", "nan", "'off'", "yes, please", "[", "%s", "{x}", "*", "~"),
    *(
        "a" * 5000,
        "\n",
        "\u20ac",
        "\udcff",
        "http://",
        "http://[",
        "http://a:0",
        "HTTPS://A.",
        ":80",
    ),
    *("/proc/nowhere/x", "unix:", "unix:/proc/nowhere/x", "tcp:", "ssl:0", "tls:x", "systemd:a=b"),
)


@pytest.mark.parametrize(
    ("number", "env"), list(enumerate([*(setting.env for setting in SETTINGS), "CONFIG"]))
)
def test_nonsense_is_refused_in_one_line_or_does(
    twistd: Callable[..., Config], number: int, env: str
):
    """Up to the point where ports are opened: the whole daemon is made of what is accepted."""
    # Where examples are few, each setting gets a part of it, and all of them together get all.
    parts = max(1, 100 // settings().max_examples)
    for text in NONSENSE[number % parts :: parts]:
        option = "--config" if env == "CONFIG" else f"--{BY_NAME[env].option}"
        is_flag = env != "CONFIG" and BY_NAME[env].default == "false"
        try:
            config = twistd(f"{option}={text}") if is_flag else twistd(option, text)
            Daemon(config, Cli("gemini", ""), reactor, {})
        except SystemExit as refused:
            assert str(refused).startswith("gemproxy: ")
            assert "\n" not in str(refused)
        except BadSetting as refused:
            assert "\n" not in str(refused)


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--port"], ["--debug=5"], ["nonsense"]])
def test_options_that_are_none_are_refused_in_one_line(
    twistd: Callable[..., Config], arguments: list[str]
):
    with pytest.raises(SystemExit, match=r"^gemproxy: [^\n]+ --help$"):
        twistd(*arguments)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("'a-key,another'", ("a-key", "another")),
        ('"a-key"', ("a-key",)),
        (" 'a-key' ", ("a-key",)),
        ("'a-key", ("'a-key",)),
        ("a'b'", ("a'b'",)),
        ("'a\"", ("'a\"",)),
    ],
)
def test_quotes_around_a_variable_are_not_part_of_it(text: str, keys: tuple[str, ...]) -> None:
    """As C{docker run --env-file} leaves them."""
    assert load(GEMINI_API_KEY=text).gemini_api_key == keys


def test_a_variable_of_nothing_but_quotes_is_empty() -> None:
    assert load(STOP_TAGS="''").stop_tags == ()
    assert load(LOG_KEEP="''").log_keep == 10
    # One is a quote.
    assert load(STOP_TAGS="'").stop_tags == ("'",)
    assert config_path(None, {"GEMPROXY_CONFIG": "'/a b.toml'"}) == Path("/a b.toml")


def test_quotes_in_an_option_are_meant() -> None:
    assert Config.load({"stop-tags": "'end'"}, {}, demo=True).stop_tags == ("'end'",)
