"""Responses that other daemons can find as well: encrypted, in the shared state."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from attrs import define, field

from gemproxy.chat.errors import ChatError, bad_request, overloaded
from gemproxy.state.news import News
from gemproxy.state.shared import StateAway
from gemproxy.state.shelf import SharedShelf
from gemproxy.util.cipher import Cipher
from gemproxy.util.digests import digest_of

# An id, and its owner: see L{KeptResponses}.
Named = tuple[str, str]

# Seconds for which a response can be found, unless its daemon forgets it before: OpenAI's are kept
# for 30 days (platform.openai.com/docs/guides/conversation-state).
_LIFETIME = 30 * 86400.0
# Bytes of one: it passes between the calls of all requests, which wait for 20 ms at most.
_LARGEST = 500_000
_TOPIC = "deleted response"
_NEWS_LIFETIME = 86400.0
# How many that were deleted while the state was away are deleted when it is back.
_MOST = 10_000
_TRY_AGAIN = 2.0
# Those that gemproxy makes. Others may be an upstream's.
_OURS = re.compile(r"resp_[0-9a-f]{16}")


class Elsewhere(Protocol):
    """Where other daemons find the responses of this one, and this one finds theirs."""

    def put(self, named: Named, data: bytes) -> None:
        """Leave a response there. Nobody waits for it."""

    async def get(self, ids: Iterable[str], owner: str) -> dict[str, bytes]:
        """
        Those of the responses that are there and the client's own.

        @raise ChatError: whether they are there cannot be known now, or they are elsewhere.
        """

    def forget(self, named: Sequence[Named]) -> None:
        """These are not kept any longer."""

    def delete(self, named: Named) -> None:
        """A client has one deleted, wherever it is kept."""

    def follow(self, deleted: Callable[[str, str], Any]) -> None:
        """@param deleted: called with the id and the owner of each that another daemon deletes."""


class Nowhere:
    """There are no other daemons."""

    def put(self, named: Named, data: bytes) -> None:
        """Nobody looks for it."""

    async def get(self, ids: Iterable[str], owner: str) -> dict[str, bytes]:
        return {}

    def forget(self, named: Sequence[Named]) -> None:
        """There is none."""

    def delete(self, named: Named) -> None:
        """There is none."""

    def follow(self, deleted: Callable[[str, str], Any]) -> None:
        """There will be none."""


NOWHERE = Nowhere()


@define(eq=False)
class SharedResponses:
    """
    Those in the shared state. One that is too large for it leaves a note that says so.

    @ivar cipher: encrypts them.
    @ivar news: tells other daemons what is deleted.
    """

    shelf: SharedShelf
    cipher: Cipher
    news: News
    # What was deleted, and may be there still.
    _deleted: dict[Named, None] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.shelf.state.on_return.append(self._delete_all)

    def put(self, named: Named, data: bytes) -> None:
        name = digest_of(*named)
        closed = self.cipher.close(data, name) if len(data) <= _LARGEST else b""
        self.shelf.put({name: closed}, _LIFETIME)

    async def get(self, ids: Iterable[str], owner: str) -> dict[str, bytes]:
        names = {
            digest_of(id, owner): id
            for id in ids
            if _OURS.fullmatch(id) and (id, owner) not in self._deleted
        }
        try:
            found = await self.shelf.get(names)
        except StateAway as away:
            raise _unknown(next(iter(names.values())), away) from None
        opened = {}
        for name, closed in found.items():
            if not closed:
                raise _too_large(names[name])
            data = self.cipher.open(closed, name)
            if data is not None:
                opened[names[name]] = data
        return opened

    def forget(self, named: Sequence[Named]) -> None:
        forgetting = self.shelf.delete([digest_of(*each) for each in named])
        forgetting.addErrback(StateAway.ignored)

    def delete(self, named: Named) -> None:
        self._deleted[named] = None
        if len(self._deleted) > _MOST:
            del self._deleted[next(iter(self._deleted))]
        self._delete(named)

    def _delete_all(self) -> None:
        for named in [*self._deleted]:
            self._delete(named)

    def _delete(self, named: Named) -> None:
        id, owner = named
        self.news.tell(_TOPIC, id, owner, _NEWS_LIFETIME)
        deleting = self.shelf.delete([digest_of(id, owner)])
        deleting.addCallbacks(lambda _: self._deleted.pop(named, None), StateAway.ignored)

    def follow(self, deleted: Callable[[str, str], Any]) -> None:
        self.news.follow(_TOPIC, lambda id, owner, _: deleted(id, owner))


def _unknown(id: str, away: StateAway) -> ChatError:
    return overloaded(
        f"The response '{id}' is not kept by this daemon, and where others leave theirs cannot be"
        f" asked now: {away}.",
        _TRY_AGAIN,
    )


def _too_large(id: str) -> ChatError:
    return bad_request(
        f"The response '{id}' has more than {_LARGEST // 1000} kB, so only the daemon that made"
        " it has it. Send the whole conversation as 'input'.",
        "previous_response_id",
        "previous_response_not_found",
    )
