"""What may be shown of the settings: each with its value and where that comes from. Pure."""

from __future__ import annotations

from typing import Any

from gemproxy.config import SETTINGS, Config, Setting
from gemproxy.state.url import StateUrl
from gemproxy.util.masking import ends_of


def shown_settings(config: Config) -> dict[str, Any]:
    """The settings of a daemon, for JSON. Of a key there are the ends alone, if it is long."""
    return {
        "file": None if config.file is None else str(config.file),
        "demo": config.demo,
        "settings": [_shown(config, setting) for setting in SETTINGS],
        "upstreams": [
            {
                "name": one.name,
                "url": one.url,
                "keys": [ends_of(key) for key in one.keys],
                "prefix": one.prefix,
                "models": list(one.models),
                "timeout": one.timeout,
            }
            for one in config.upstreams
        ],
    }


def _shown(config: Config, setting: Setting) -> dict[str, Any]:
    source = config.sources[setting.env]
    value = source.text
    read = getattr(config, setting.attribute)
    if isinstance(read, StateUrl):
        value = str(read)
    elif setting.secret:
        value = ", ".join(map(ends_of, config.keys_of(setting))) or None
    return {
        "name": setting.env,
        "option": f"--{setting.option}",
        "value": value,
        "default": setting.default,
        "origin": source.origin.value,
        "secret": setting.secret,
        "meaning": setting.meaning,
    }
