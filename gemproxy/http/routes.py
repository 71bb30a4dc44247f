"""Klein, which looks the routes of the same few paths up once."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from klein import Klein
from werkzeug.routing import Map, MapAdapter, RuleFactory

# Of methods and paths, which clients choose.
_REMEMBERED = 64


class _RememberingMap(Map):
    """To encode the name of the host for IDNA and to match a path takes 4 % of a small request."""

    def __init__(self) -> None:
        self._remembered = lru_cache(_REMEMBERED)(self._bind)
        super().__init__()

    def add(self, rulefactory: RuleFactory) -> None:
        super().add(rulefactory)
        self._remembered.cache_clear()

    def bind(self, *args: Any, **kwargs: Any) -> MapAdapter:
        return self._remembered(*args, **kwargs)

    def _bind(self, *args: Any, **kwargs: Any) -> MapAdapter:
        adapter = super().bind(*args, **kwargs)
        adapter.match = lru_cache(1)(adapter.match)  # type: ignore[method-assign]
        return adapter


class RoutedApp(Klein):
    """
    It keeps its routes in C{_url_map}, which Klein has no other way to replace.
    C{tests/test_twisted_internals.py} fails if that changes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._url_map = _RememberingMap()
