"""Who has logged in to /admin from a browser, which cannot put a key into every request. No I/O."""

from __future__ import annotations

import secrets
from collections.abc import Callable, MutableMapping

from gemproxy.accounts.known_keys import key_digest

# Seconds from a login until it takes the key again.
LIFETIME = 7 * 86400.0
# The oldest is ended for a new one beyond that.
MOST = 100


class AdminSessions:
    """
    The sessions of browsers. They end with the daemon.

    A session is known by a random token, of which the digest alone is kept and compared.
    """

    def __init__(
        self,
        now: Callable[[], float],
        most: int = MOST,
        ends: MutableMapping[bytes, float] | None = None,
    ) -> None:
        """
        @param now: the time on a monotonic clock, in seconds.
        @param ends: when each ends, by its digest, the oldest first, where others know them too.
        """
        self._now = now
        self._most = most
        self._ends = {} if ends is None else ends

    def begin(self) -> str:
        """Returns the token of another session."""
        now = self._now()
        left = [digest for digest, end in self._ends.items() if end > now]
        kept = left[max(0, len(left) + 1 - self._most) :]
        for digest in self._ends.keys() - set(kept):
            del self._ends[digest]
        token = secrets.token_urlsafe(32)
        self._ends[key_digest(token)] = now + LIFETIME
        return token

    def knows(self, token: str) -> bool:
        return self._ends.get(key_digest(token), 0.0) > self._now()

    def end(self, token: str) -> None:
        self._ends.pop(key_digest(token), None)
