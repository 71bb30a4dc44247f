"""The API keys: which one a request is made with, and which ones rest for want of quota."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, evolve, field, frozen
from twisted.internet.interfaces import IReactorTime

from gemproxy.chat.errors import ChatError
from gemproxy.gemini.translate.errors import AttemptFailure

# Daily quotas come back at midnight in California, but some are raised before. Where Google does
# not say when to ask again, a key rests ever longer while probes find that nothing has changed.
REST = 30.0
LONGEST_REST = 900.0
RATE_REST = 10.0
# What Google may ask for, in seconds.
_SHORTEST_DELAY, _LONGEST_DELAY = 1.0, 86400.0
# The names of models come from clients.
_RESTS_LIMIT = 1000


@define
class _Rest:
    """A key that is left alone for one model."""

    until: float
    seconds: float
    error: ChatError
    probing: bool = False


@frozen(eq=False)
class KeyLease:
    """
    One use of a key for one model; to be given back with what came of it.

    @ivar is_probe: whether it is to find out if a rest is over.
    """

    key: str = field(repr=False)
    model: str
    is_probe: bool


class KeyRing:
    """
    Spreads requests over the keys, and leaves alone those that are of no use at the moment.

    A key whose daily quota for a model is out, or which is refused altogether, rests; after that
    one request probes whether it is good again, and until it is known the key rests on.
    """

    def __init__(self, clock: IReactorTime, keys: Sequence[str]) -> None:
        self._clock = clock
        self._keys = list(keys)
        self._rests: dict[tuple[str, str], _Rest] = {}

    def acquire(self, model: str) -> KeyLease:
        """
        The key to make the next request with.

        @raise ChatError: all rest; the error that sent the last of them to rest.
        """
        for key in self._keys:
            rest = self._rests.get((key, model))
            if not self._wait(key, model):
                if rest is not None:
                    rest.probing = True
                self._keys.remove(key)
                self._keys.append(key)
                return KeyLease(key, model, rest is not None)
        waits = {key: self._wait(key, model) for key in self._keys}
        soonest = min(waits, key=lambda key: waits[key])
        raise evolve(self._rests[soonest, model].error, retry_after=max(1.0, waits[soonest]))

    def release(self, lease: KeyLease, failure: AttemptFailure | None) -> bool:
        """
        @param failure: what came of the use; None for nothing bad.
        @return: whether another key may do better at once.
        """
        place = (lease.key, lease.model)
        if failure is None:
            self._rests.pop(place, None)
            return False
        others = any((key, lease.model) not in self._rests for key in self._keys if key != place[0])
        code = failure.error.code
        if code == "insufficient_quota":
            self._rest(place, self._longer_rest(place), failure)
        elif others and code in ("rate_limit_exceeded", "invalid_api_key"):
            # The one passes soon, the other may be a fault of the API's: either is worth a rest
            # only where another key can step in.
            first = RATE_REST if code == "rate_limit_exceeded" else self._longer_rest(place)
            self._rest(place, first, failure)
        else:
            self.abandon(lease)
            return False
        return others

    def _longer_rest(self, place: tuple[str, str]) -> float:
        before = self._rests.get(place)
        return REST if before is None else min(2 * before.seconds, LONGEST_REST)

    def _rest(self, place: tuple[str, str], seconds: float, failure: AttemptFailure) -> None:
        """@param seconds: unless the API says how long."""
        if failure.delay is not None:
            seconds = min(max(failure.delay, _SHORTEST_DELAY), _LONGEST_DELAY)
        until = self._clock.seconds() + seconds
        self._rests[place] = _Rest(until, seconds, failure.error)
        if len(self._rests) > _RESTS_LIMIT:
            del self._rests[min(self._rests, key=lambda place: self._rests[place].until)]

    def abandon(self, lease: KeyLease) -> None:
        """Give back a lease of which nobody knows what would have come."""
        if lease.is_probe and (rest := self._rests.get((lease.key, lease.model))):
            rest.probing = False

    def exhausted(self) -> dict[str, float]:
        """The models for which no key is left, and the seconds until one is tried again."""
        models = {model for _, model in self._rests}
        waits = {model: min(self._wait(key, model) for key in self._keys) for model in models}
        return {model: wait for model, wait in waits.items() if wait > 0}

    def _wait(self, key: str, model: str) -> float:
        """Seconds until a key may be used for a model."""
        rest = self._rests.get((key, model))
        if rest is None:
            return 0.0
        return max(rest.until - self._clock.seconds(), 1.0 if rest.probing else 0.0)
