"""The settings as those who run the daemon see them: where each comes from, and no key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytest_twisted import ensureDeferred

from gemproxy.config import SETTINGS, read_config
from gemproxy.settings_shown import shown_settings
from tests.support import running_relay

KEY, SHORT = "AIzaSyA-0123456789abcdefghi-9f3c", "short-key-1"
FILE = f"""
timeout = 77
drain = 5
log_keep = 7

[[upstream]]
name = "one"
url = "http://one.example"
keys = ["{KEY}"]
"""


def by_name(shown: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {setting["name"]: setting for setting in shown["settings"]}


def test_each_has_the_origin_that_won(tmp_path: Path) -> None:
    path = tmp_path / "gemproxy.toml"
    path.write_text(FILE)
    (tmp_path / "key").write_text(SHORT)
    environ = {
        "DRAIN": "6",
        "LOG_KEEP": '"8"',
        "MAX_BODY": "",
        "STOP_TAGS": "",
        "GEMINI_API_KEY": f"{KEY},{SHORT}",
        "ADMIN_KEY_FILE": str(tmp_path / "key"),
    }
    shown = shown_settings(read_config({"log-keep": "9"}, environ, path))
    settings = by_name(shown)
    assert list(settings) == [setting.env for setting in SETTINGS]
    seen = {name: (one["origin"], one["value"]) for name, one in settings.items()}
    assert seen["TIMEOUT"] == ("file", "77")
    assert seen["DRAIN"] == ("environment", "6")
    assert seen["LOG_KEEP"] == ("option", "9")
    assert seen["MAX_BODY"] == ("default", settings["MAX_BODY"]["default"])
    assert seen["PROXY_API_KEYS"] == ("default", None)
    assert seen["STOP_TAGS"][0] == "environment"
    assert seen["GEMINI_API_KEY"] == ("environment", "AIza...9f3c, [secret]")
    assert seen["ADMIN_KEY"] == ("environment", "[secret]")
    assert (shown["file"], shown["upstreams"][0]["keys"]) == (str(path), ["AIza...9f3c"])
    assert KEY not in str(shown)
    assert SHORT not in str(shown)


@ensureDeferred
async def test_they_are_shown_at_admin_behind_its_key() -> None:
    key = "key-of-the-admin-1"
    async with running_relay(ADMIN_KEY=key, ALLOWED_HOSTS=f"{key}.example") as relay:
        assert (await relay.get("/admin/settings")).status == 401
        sent = await relay.send("GET", "/admin/settings", x_api_key=key)
        reply = await sent.reply()
        settings = by_name(reply.json)
        assert settings["PORT"]["value"] == "off"
        assert settings["ALLOWED_HOSTS"]["value"] == "[secret].example"
        assert settings["ADMIN_KEY"]["secret"]
        assert key not in reply.body.decode()
