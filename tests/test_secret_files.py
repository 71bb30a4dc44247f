"""Secrets in files: NAME_FILE for each secret, as variable, as option and in the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gemproxy.config import SECRETS, BadSetting, Config, Setting, advice_on_keys, read_config
from gemproxy.http.proxies import PROXY_VARIABLES, Proxies
from gemproxy.secret_files import BadSecretFile, read_secret, with_secrets_read

KEY = "key-of-google"
every_secret = pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret.env)


def read(
    options: Mapping[str, str] = {}, environ: Mapping[str, str] = {}, path: Path | None = None
) -> Config:
    return read_config(options, environ, path, allow_no_key=True)


def keys(config: Config, secret: Setting) -> tuple[str, ...]:
    return config.keys_of(secret)


def given(secret: Setting, key: str) -> str:
    """A value with this key."""
    return f"redis://:{key}@server" if secret.env == "STATE_URL" else key


@pytest.fixture
def file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """What is in it is for the secret of the test."""
    callspec = getattr(request.node, "callspec", None)
    secret = SECRETS[0] if callspec is None else callspec.params.get("secret", SECRETS[0])
    file = tmp_path / "secret"
    file.write_text(f"{given(secret, 'key-in-a-file')}\n")
    return file


@every_secret
def test_a_secret_is_what_is_in_its_file(secret: Setting, file: Path, tmp_path: Path):
    for name in (str(file), f'"{file}"'):
        assert keys(read(environ={secret.file_env: name}), secret) == ("key-in-a-file",)
    assert keys(read({secret.file_option: str(file)}), secret) == ("key-in-a-file",)
    config = tmp_path / "gemproxy.toml"
    # A relative name starts from the folder of the configuration.
    config.write_text(f"{secret.file_env.lower()} = 'secret'\n")
    assert keys(read(path=config), secret) == ("key-in-a-file",)


@every_secret
def test_a_secret_that_is_given_twice_is_refused(secret: Setting, file: Path, tmp_path: Path):
    twice = rf"{secret.env}.* and {secret.file_env} are both set"
    with pytest.raises(BadSetting, match=twice):
        read(environ={secret.env: "sk-0123456789", secret.file_env: str(file)})
    with pytest.raises(BadSetting, match="are both set"):
        read({secret.option: "sk-0123456789", secret.file_option: str(file)})
    config = tmp_path / "gemproxy.toml"
    config.write_text(f"{secret.env} = 'sk-0123456789'\n{secret.file_env} = 'secret'\n")
    with pytest.raises(BadSetting, match=twice):
        read(path=config)


@every_secret
def test_what_wins_over_a_secret_wins_over_its_file(secret: Setting, file: Path):
    of_option, of_file = {secret.option: given(secret, "key-1")}, {secret.file_env: str(file)}
    assert keys(read(of_option, of_file), secret) == ("key-1",)
    another = {secret.env: given(secret, "another-key")}
    assert keys(read({secret.file_option: str(file)}, another), secret) == ("key-in-a-file",)
    # An empty variable counts as unset, also that of a file.
    assert keys(read(environ={secret.env: "", **of_file}), secret) == ("key-in-a-file",)
    environ = {secret.env: given(secret, KEY), secret.file_env: ""}
    assert keys(read(environ=environ), secret) == (KEY,)


def test_a_file_may_hold_several_keys(tmp_path: Path):
    file = tmp_path / "secret"
    file.write_text(" key-one, key-two \r\n\n")
    config = read(environ={"PROXY_API_KEYS_FILE": str(file)})
    assert config.proxy_api_keys == ("key-one", "key-two")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff", "is not text"),
        (b"k" * 70_000, "is too large"),
    ],
)
def test_a_file_that_does_not_do_is_named_with_the_reason(
    tmp_path: Path, content: bytes | None, says: str
):
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    for given in ({"ADMIN_KEY_FILE": str(file)}, {"PROXY_API_KEYS_FILE": str(file)}):
        with pytest.raises(BadSetting) as caught:
            read(environ=given)
        [name] = given
        assert str(caught.value).startswith(f"{name}: {file} {says}")
        assert "\n" not in str(caught.value)


def test_a_device_without_an_end_is_not_read_to_it():
    with pytest.raises(BadSecretFile, match="too large"):
        read_secret(Path("/dev/zero"))
    with pytest.raises(BadSecretFile, match="Is a directory"):
        read_secret(Path("/"))


def test_a_bad_key_in_a_file_is_not_shown(file: Path):
    file.write_text("hush hush")
    with pytest.raises(BadSetting) as caught:
        read(environ={"FIXED_API_KEY_FILE": str(file)})
    assert "hush" not in str(caught.value)


def test_settings_that_are_no_secrets_have_no_files(tmp_path: Path):
    with pytest.raises(BadSetting, match="'port_file' is no setting"):
        _from_text("port_file = 'x'", tmp_path)


def test_proxies_may_be_files(file: Path):
    file.write_text("http://me:pass-word@proxy.example:3128\n")
    for name in ("HTTPS_PROXY", "https_proxy"):
        in_file = {"HTTPS_PROXY": "HTTPS_PROXY_FILE", "https_proxy": "https_proxy_file"}[name]
        proxies = Proxies.from_environ(with_secrets_read({in_file: str(file)}, PROXY_VARIABLES))
        assert str(proxies.by_scheme[b"https"]) == "http://proxy.example:3128"
        assert proxies.passwords == ["pass-word"]


def _from_text(text: str, folder: Path) -> Config:
    path = folder / "gemproxy.toml"
    path.write_text(text)
    return read(path=path)


UPSTREAM = "[[upstream]]\nname = 'one'\nurl = 'http://one.example'\n"


def test_an_upstream_s_key_and_proxy_may_be_files(tmp_path: Path, file: Path):
    (tmp_path / "proxy").write_text("http://me:pass-word@proxy.example\n")
    config = _from_text(f"{UPSTREAM}key_file = '{file}'\nproxy_file = 'proxy'\n", tmp_path)
    [upstream] = config.upstreams
    assert upstream.keys == ("key-in-a-file",)
    assert upstream.proxy == "http://me:pass-word@proxy.example"
    assert {"key-in-a-file", "pass-word"} <= set(config.secrets)
    assert "key-in-a-file" not in repr(config)
    assert "pass-word" not in repr(config)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("key_file = 'none'", r"upstream 'one': key_file: .*none cannot be read"),
        ("key_file = 'secret'\nkey = 'k'", "'key' and 'key_file' are both given"),
        ("proxy_file = 'secret'", "'proxy' must be the URL of a proxy"),
        ("key_file = 1", "'key_file' must be a text"),
    ],
)
def test_a_bad_file_of_an_upstream_is_named(tmp_path: Path, file: Path, fields: str, says: str):
    with pytest.raises(BadSetting, match=says):
        _from_text(UPSTREAM + fields, tmp_path)


def test_credentials_in_an_upstream_s_headers_are_secrets(tmp_path: Path):
    headers = "headers = { X-Title = 'gemproxy-at-home', X-Auth-Token = 'Token abcdefgh' }\n"
    config = _from_text(UPSTREAM + headers, tmp_path)
    assert "abcdefgh" in config.secrets
    assert "gemproxy-at-home" not in config.secrets


# What is to be said about them


def advice(options: Mapping[str, str] = {}, **environ: str) -> list[str]:
    return advice_on_keys(read(options, environ), options)


@every_secret
def test_a_key_in_the_list_of_processes_is_warned_of(secret: Setting, file: Path):
    long = "key-0123456789-abcdefgh"
    [said] = advice({secret.option: given(secret, long)})
    assert f"--{secret.option}" in said
    assert long not in said
    assert advice({secret.file_option: str(file)}) == advice(
        **{secret.env: given(secret, "key-in-a-file")}
    )
    assert advice(**{secret.env: given(secret, long)}) == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"PROXY_API_KEYS": "0123456789abcdef,0123456789abcde"}, "is guessable"),
        ({"ADMIN_KEY": "admin"}, "is guessable"),
        ({"FIXED_API_KEY": "none"}, "is not masked"),
        ({"GEMINI_API_KEY": "none"}, "is not masked"),
        ({"GEMINI_API_KEY": "01234567", "FIXED_API_KEY": "01234567"}, None),
        ({"PROXY_API_KEYS": "0123456789abcdef"}, None),
    ],
)
def test_short_keys_are_warned_of(given: dict[str, str], says: str | None):
    said: list[Any] = advice(**given)
    if says is None:
        assert said == []
    else:
        [sentence] = said
        assert says in sentence
        assert next(iter(given)) in sentence
