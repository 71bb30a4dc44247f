"""
What Gemini can do beyond OpenAI's chat completions, by the names that clients know.

Google's own OpenAI-compatible endpoint has C{extra_body.google}, which SDKs put at the top of the
body, where it is C{google}: ai.google.dev/gemini-api/docs/openai#extra-body. Pictures and sound are
requested as with OpenRouter and OpenAI.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from gemproxy.chat.errors import bad_request
from gemproxy.gemini.translate.checks import either, flag, mapping, whole
from gemproxy.gemini.translate.thinking import EFFORTS

Json = dict[str, Any]

# The parameters that are read here.
NAMES = frozenset(
    {"audio", "cached_content", "extra_body", "google", "image_config", "modalities"}
    | {"safety_settings", "safetySettings"}
)

# ai.google.dev/gemini-api/docs/safety-settings
_CATEGORIES = ("HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT")
_MODALITIES = {"text": "TEXT", "image": "IMAGE", "audio": "AUDIO"}
# OpenAI's, and those that Google has of its own kind.
_AUDIO_FORMATS = ("wav", "pcm16")


@frozen
class Thinking:
    """
    @ivar effort: one of EFFORTS, if the amount is given as a level.
    @ivar budget: the number of tokens, if it is given so.
    @ivar shown: whether thoughts are part of the answer; None if that is not said.
    """

    effort: str | None = None
    budget: int | None = None
    shown: bool | None = None


@frozen
class Extensions:
    """
    @ivar request: fields of the API's request.
    @ivar config: fields of its generation settings.
    @ivar audio_format: how sound is to be encoded: C{wav} or C{pcm16}.
    """

    request: Json
    config: Json
    thinking: Thinking
    audio_format: str


def extensions(body: Mapping[str, Any], safety: str | None) -> Extensions:
    """
    @param safety: the threshold of all filters unless the client says otherwise; None for the
        API's own.
    @raise ChatError: 400, a parameter is invalid; the error names it.
    """
    if NAMES.isdisjoint(body):
        # Most requests want nothing of all this.
        return Extensions(_filters(safety), {}, Thinking(), _AUDIO_FORMATS[0])
    where, google = _google(body)
    request: Json = {}
    cached = either(google, "cached_content") or body.get("cached_content")
    if cached is not None:
        if not isinstance(cached, str):
            raise bad_request("'cached_content' must be the name of a cache.", "cached_content")
        request["cachedContent"] = cached
    settings = either(google, "safety_settings")
    if settings is None:
        settings = either(dict(body), "safety_settings")
    if settings is not None:
        request["safetySettings"] = _safety_settings(settings)
    else:
        request |= _filters(safety)
    config, audio_format = _modalities(body)
    return Extensions(
        request,
        config,
        _thinking(either(google, "thinking_config"), f"{where}.thinking_config"),
        audio_format,
    )


def _google(body: Mapping[str, Any]) -> tuple[str, Json]:
    """The object with Google's options, and where it is."""
    extra = mapping("extra_body", body.get("extra_body"))
    # The SDKs' extra_body is merged into the body, so one of their users may have two.
    for where, holder in (("google", body), ("extra_body.google", extra)):
        if holder.get("google") is not None:
            return where, mapping(where, holder["google"])
    return "google", {}


def _filters(threshold: str | None) -> Json:
    """The field of the API's request that sets all filters; None for the API's own threshold."""
    if threshold is None:
        return {}
    settings = [
        {"category": f"HARM_CATEGORY_{category}", "threshold": threshold}
        for category in _CATEGORIES
    ]
    return {"safetySettings": settings}


def _safety_settings(settings: Any) -> list[Json]:
    if isinstance(settings, list) and all(
        isinstance(item, dict)
        and isinstance(item.get("category"), str)
        and isinstance(item.get("threshold"), str)
        for item in settings
    ):
        return settings
    raise bad_request(
        "'safety_settings' must be a list of objects with 'category' and 'threshold'.",
        "safety_settings",
    )


def _thinking(value: Any, where: str) -> Thinking:
    config = mapping(where, value)
    level, budget = either(config, "thinking_level"), either(config, "thinking_budget")
    if level is not None:
        at = f"{where}.thinking_level"
        if not isinstance(level, str) or level.lower() not in EFFORTS:
            raise bad_request(f"'{at}' must be a level of thinking.", at)
        level = level.lower()
    if budget is not None:
        budget = whole(f"{where}.thinking_budget", budget)
    at = f"{where}.include_thoughts"
    shown = either(config, "include_thoughts")
    return Thinking(level, budget, None if shown is None else flag(at, shown, True))


def _modalities(body: Mapping[str, Any]) -> tuple[Json, str]:
    config: Json = {}
    wanted = body.get("modalities")
    if wanted is not None:
        if not isinstance(wanted, list) or not all(
            isinstance(item, str) and item.lower() in _MODALITIES for item in wanted
        ):
            raise bad_request(
                "'modalities' must be a list of 'text', 'image' and 'audio'.", "modalities"
            )
        names = [_MODALITIES[item.lower()] for item in wanted]
        # Text alone is what a model answers anyway. Models that speak take sound alone.
        if "AUDIO" in names:
            config["responseModalities"] = ["AUDIO"]
        elif names and names != ["TEXT"]:
            config["responseModalities"] = names
    image = mapping("image_config", body.get("image_config"))
    settings = {
        google: value
        for google, name in (("aspectRatio", "aspect_ratio"), ("imageSize", "image_size"))
        if (value := either(image, name)) is not None
    }
    for name, value in settings.items():
        if not isinstance(value, str) or not re.fullmatch(r"[0-9A-Za-z:.]{1,20}", value):
            raise bad_request(f"'image_config.{name}' must be a short text.", "image_config")
    if settings:
        config["imageConfig"] = settings
    return config, _audio(body, config)


def _audio(body: Mapping[str, Any], config: Json) -> str:
    audio = mapping("audio", body.get("audio"))
    voice = audio.get("voice")
    if voice is not None and config.get("responseModalities") == ["AUDIO"]:
        if not isinstance(voice, str):
            raise bad_request("'audio.voice' must be the name of a voice.", "audio.voice")
        config["speechConfig"] = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": voice}}}
    encoding = audio.get("format")
    if encoding is None:
        return _AUDIO_FORMATS[0]
    if encoding not in _AUDIO_FORMATS:
        raise bad_request("'audio.format' must be 'wav' or 'pcm16'.", "audio.format")
    return str(encoding)
