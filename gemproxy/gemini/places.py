"""Which of Google's places a configuration is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gemproxy.config import Config
from gemproxy.gemini.api.access_tokens import AccessTokens, GoogleAuth
from gemproxy.gemini.api.endpoint import AIStudio, Endpoint
from gemproxy.gemini.api.vertex import ApiKeySigner, VertexAI, default_base
from gemproxy.http.url import BaseURL


def endpoint_of(config: Config, reactor: Any, api_url: Callable[[], BaseURL]) -> Endpoint:
    """@param api_url: the base URL of AI Studio, or of what takes its place."""
    if not config.uses_vertex:
        return AIStudio(api_url)
    location, project = config.google_cloud_location, config.google_cloud_project
    base = BaseURL.parse(config.google_vertex_base_url or default_base(location))
    if project is None:
        return VertexAI(base, None, location, ApiKeySigner())
    tokens = AccessTokens(reactor, GoogleAuth(config.google_application_credentials).token)
    return VertexAI(base, project, location, tokens)
