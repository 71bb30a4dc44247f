"""The list of an upstream's models, and the last one for when the upstream is slow or away."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from gemproxy.backend import Backend
from gemproxy.chat.errors import ChatError
from gemproxy.chat.request import KEY_HEADERS, Headers
from gemproxy.util.log import make_logger

# Lists are kept for so many clients: an upstream may list other models for another key.
_CLIENTS = 64
_WHO_ASKS = frozenset(
    {b"authorization", b"cookie", b"openai-organization", b"openai-project", *KEY_HEADERS}
)
_TOO_MANY_REQUESTS = 429


@frozen
class ListedModels:
    """@ivar is_stale: the upstream did not give its list now; it is the last one."""

    models: Sequence[dict[str, Any]]
    is_stale: bool = False


class UpstreamModels:
    """Asks an upstream for its models, and remembers what it said."""

    log = make_logger()

    def __init__(self, backend: Callable[[], Backend], is_shared: bool) -> None:
        """
        @param backend: the one to ask now.
        @param is_shared: the upstream gets the same keys for all clients.
        """
        self._backend = backend
        self._is_shared = is_shared
        self._last: OrderedDict[bytes, Sequence[dict[str, Any]]] = OrderedDict()

    async def listed(self, headers: Headers) -> ListedModels:
        """
        The models that a client may use.

        @param headers: of the client's request.
        @raise ChatError: the upstream refuses the client, or gives no list and never gave one.
        """
        client = b"" if self._is_shared else _fingerprint(headers)
        try:
            models = await self._backend().models(headers)
        except ChatError as error:
            is_away = error.status >= 500 or error.status == _TOO_MANY_REQUESTS
            if not is_away:
                self._last.pop(client, None)
            last = self._last.get(client)
            if last is None:
                raise
            self.log.warn(
                "the models of the upstream cannot be listed: {error} The last list is served.",
                error=error,
            )
            return ListedModels(last, is_stale=True)
        self._last[client] = models
        self._last.move_to_end(client)
        if len(self._last) > _CLIENTS:
            self._last.popitem(last=False)
        return ListedModels(models)


def _fingerprint(headers: Headers) -> bytes:
    """Tells apart who asks, without keeping their keys."""
    shown = [(name.lower(), value) for name, value in headers if name.lower() in _WHO_ASKS]
    return hashlib.sha256(repr(sorted(shown)).encode()).digest()
