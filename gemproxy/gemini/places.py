"""Which of Google's places a configuration is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.web.iweb import IAgent

from gemproxy.config import Config
from gemproxy.gemini.api.access_tokens import AccessTokens, GoogleAuth
from gemproxy.gemini.api.auth_transport import AuthTransport
from gemproxy.gemini.api.endpoint import AIStudio, Endpoint
from gemproxy.gemini.api.vertex import ApiKeySigner, VertexAI, default_base
from gemproxy.http.url import BaseURL


def endpoint_of(
    config: Config, reactor: Any, api_url: Callable[[], BaseURL], agent: IAgent
) -> Endpoint:
    """
    @param api_url: the base URL of AI Studio, or of what takes its place.
    @param agent: asks for access tokens.
    """
    if not config.uses_vertex:
        return AIStudio(api_url)
    location, project = config.google_cloud_location, config.google_cloud_project
    base = BaseURL.parse(config.google_vertex_base_url or default_base(location))
    if project is None:
        return VertexAI(base, None, location, ApiKeySigner())
    transport = AuthTransport(reactor, agent)
    auth = GoogleAuth(config.google_application_credentials, transport)
    return VertexAI(base, project, location, AccessTokens(reactor, auth.token))
