"""Who has logged in to /admin from a browser, which cannot put a key into every request. No I/O."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from gemproxy.accounts.known_keys import digest_of

# Seconds from a login until it takes the key again.
LIFETIME = 7 * 86400.0
# The oldest is ended for a new one beyond that.
MOST = 100


class AdminSessions:
    """
    The sessions of browsers. They end with the daemon.

    A session is known by a random token, of which the digest alone is kept and compared.
    """

    def __init__(self, now: Callable[[], float], most: int = MOST) -> None:
        """@param now: the time on a monotonic clock, in seconds."""
        self._now = now
        self._most = most
        # When each ends, by its digest; the oldest first.
        self._ends: dict[bytes, float] = {}

    def begin(self) -> str:
        """Returns the token of another session."""
        now = self._now()
        self._ends = {digest: end for digest, end in self._ends.items() if end > now}
        while len(self._ends) >= self._most:
            del self._ends[next(iter(self._ends))]
        token = secrets.token_urlsafe(32)
        self._ends[digest_of(token)] = now + LIFETIME
        return token

    def knows(self, token: str) -> bool:
        return self._ends.get(digest_of(token), 0.0) > self._now()

    def end(self, token: str) -> None:
        self._ends.pop(digest_of(token), None)
