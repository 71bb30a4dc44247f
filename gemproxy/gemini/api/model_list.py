"""The list of models: the configured one, or what Google has for the keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from time import time
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from gemproxy.chat.chunks import model_object
from gemproxy.gemini.api.client import ApiFailed, GeminiApi
from gemproxy.gemini.translate.models import BUILT_IN_MODELS, chat_models, next_page, union
from gemproxy.util.gather import gather_or_cancel
from gemproxy.util.log import make_logger
from gemproxy.util.shared_read import SharedRead

LIFETIME = 3600.0
REST = 60.0
TIME_LIMIT = 10.0

_PAGES_LIMIT = 20

Models = list[dict[str, Any]]


class _NotListed(Exception):
    """The reason why the list of a key cannot be read."""


def _too_late(result: Any, seconds: float) -> Any:
    raise _NotListed(f"It took more than {seconds:g} s.")


class ModelList(MultiService):
    """
    The models for chat, as OpenAI's model objects.

    Google is asked when the list is first needed, and when it is needed after an hour. C{created}
    is the time at which this daemon first saw a model, because Google gives none.
    """

    log = make_logger()

    def __init__(
        self,
        clock: IReactorTime,
        api: GeminiApi,
        keys: Sequence[str],
        configured: Sequence[str],
        wall_clock: Callable[[], float] = time,
    ) -> None:
        """
        @param keys: those whose lists are read; if there are none, the built-in list serves.
        @param configured: the names to list; if there are any, Google is not asked.
        @param wall_clock: when a model was first seen, in seconds since the epoch.
        """
        super().__init__()
        self._clock = clock
        self._api = api
        self._keys = keys
        self._configured = configured
        self._wall_clock = wall_clock
        self._lists: dict[str, Models] = {}
        self._first_seen: dict[str, int] = {}
        self._problems: list[str] = []
        self._shared: SharedRead[Models] = SharedRead(clock, LIFETIME, REST)
        self._shared.setServiceParent(self)

    def get(self) -> Deferred[Models]:
        """The models, in order; does not fail. Cancelling it does not end the reading."""
        if self._configured:
            return succeed(self._named(self._configured))
        return self._shared.get(self._read).addCallback(
            lambda models: self._named(BUILT_IN_MODELS) if models is None else models
        )

    def true_names(self) -> Deferred[list[str]]:
        """The names of the models; none instead of the built-in ones."""
        return self.get().addCallback(
            lambda models: (
                [model["id"] for model in models]
                if self._configured or self._shared.value is not None
                else []
            )
        )

    def _named(self, names: Iterable[str]) -> Models:
        return [self._dated(model_object(name)) for name in names]

    def _dated(self, model: dict[str, Any]) -> dict[str, Any]:
        now = int(self._wall_clock())
        return model | {"created": self._first_seen.setdefault(model["id"], now)}

    async def _read(self) -> tuple[Models | None, bool]:
        """The models of all keys, and whether all keys have answered."""
        reasons = await gather_or_cancel(map(self._read_in_time, self._keys))
        problems = [f"key {number}: {reason}" for number, reason in enumerate(reasons, 1) if reason]
        if problems and problems != self._problems and not self._shared.stopped:
            self.log.warn(
                "Google's list of models cannot be read: {problems}", problems="; ".join(problems)
            )
        self._problems = problems
        models = [self._dated(model) for model in union(map(self._models_of, self._keys))]
        return models or None, bool(models) and not problems

    def _models_of(self, key: str) -> Models:
        # A key that does not answer keeps its models.
        return self._lists.get(key, [])

    async def _read_in_time(self, key: str) -> str | None:
        """Returns why the list of a key cannot be read; None if it was read."""
        reading = Deferred.fromCoroutine(self._read_pages(key))
        try:
            self._lists[key] = await reading.addTimeout(TIME_LIMIT, self._clock, _too_late)
        except (_NotListed, ApiFailed) as error:
            return str(error)
        return None

    async def _read_pages(self, key: str) -> Models:
        models: Models = []
        token = None
        for _ in range(_PAGES_LIMIT):
            page = await self._api.ask(b"GET", self._api.endpoint.of_list(token), key)
            models += chat_models(page)
            token = next_page(page)
            if token is None:
                break
        if not models:
            raise _NotListed("The list has no models for chat.")
        return models
