"""Which models are Gemini's, on the port that Gemini shares with an upstream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.interfaces import IReactorTime

from gemproxy.backend import Backend
from gemproxy.chat.chunks import model_object
from gemproxy.chat.errors import ChatError
from gemproxy.chat.models import OTHER_PREFIXES, by_name, is_gemini, plain_name
from gemproxy.chat.request import Headers
from gemproxy.util.log import make_logger
from gemproxy.util.shared_read import SharedRead

LIFETIME = 120.0
REST = 10.0

Listed = Mapping[str, dict[str, Any]]


class GeminiModels(MultiService):
    """
    Knows the Gemini backend's list of models, and asks for it as rarely as it can: requests for the
    upstream must not wait for it.
    """

    log = make_logger()

    def __init__(self, clock: IReactorTime, backend: Backend, names: Iterable[str] = ()) -> None:
        """@param names: models that are listed for certain."""
        super().__init__()
        self._backend = backend
        self._shared: SharedRead[Listed] = SharedRead(clock, LIFETIME, REST)
        self._shared.setServiceParent(self)
        self.saw([model_object(name) for name in names])

    def saw(self, models: Iterable[dict[str, Any]]) -> None:
        """Take note of a list that was just read; an empty one says nothing."""
        self._shared.value = by_name(models) or self._shared.value

    @property
    def known(self) -> Listed:
        """The last list; empty if there is none yet."""
        return self._shared.value or {}

    async def has(self, model: str, headers: Headers) -> bool:
        """
        Whether a model is Gemini's.

        @param model: the name, as the client wrote it.
        @param headers: those of the client's request.
        """
        if is_gemini(model):
            return True
        name = plain_name(model)
        if name.startswith(OTHER_PREFIXES):
            return name in await self.listed(headers)
        return name in self.known

    async def listed(self, headers: Headers) -> Listed:
        """The list of the last minutes; empty if there is none."""
        return await self._shared.get(lambda: self._read(headers)) or {}

    async def _read(self, headers: Headers) -> tuple[Listed | None, bool]:
        try:
            return by_name(await self._backend.models(headers)) or None, True
        except ChatError as error:
            self.log.warn("the models of Gemini cannot be listed: {error}", error=error)
            return None, False
