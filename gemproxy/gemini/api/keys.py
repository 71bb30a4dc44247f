"""The API keys: selects the key for each request and pauses keys without quota."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import time
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.interfaces import IReactorTime

from gemproxy.chat.errors import ChatError
from gemproxy.gemini.translate.errors import KEY_REFUSED, AttemptFailure
from gemproxy.state.news import NO_NEWS, Claim, News
from gemproxy.util.digests import digest_of
from gemproxy.util.masking import Masking, ends_of

# Daily quotas are reset at midnight Pacific time, but may be raised earlier. If Google reports no
# delay, each failed probe makes the next pause of the key longer.
REST = 30.0
LONGEST_REST = 900.0
RATE_REST = 10.0
# Limits of the delay requested by Google, in seconds.
_SHORTEST_DELAY, _LONGEST_DELAY = 1.0, 86400.0
# Clients choose the names of models, so the number of entries is limited.
RESTS_LIMIT = 1000

# Seconds for which a key is left alone when another daemon probes it.
_PROBED_ELSEWHERE = 1.0

_TOPIC = "key"
_QUOTA_CODES = frozenset({"insufficient_quota", "rate_limit_exceeded"})


@define
class _Rest:
    """
    The pause of a key for one model. It is over when one of two clocks says so. The wall clock may
    be set back; the other one stands still while the machine sleeps, but Google's quotas do not.

    @ivar until: on the clock that measures intervals.
    @ivar until_date: in seconds since the epoch.
    """

    until: float
    until_date: float
    seconds: float
    error: ChatError
    probing: bool = False


@frozen(eq=False)
class KeyLease:
    """
    One use of a key for one model. It must be released with its outcome, or abandoned.

    @ivar probe: the right to test whether a paused key works again, if the use does.
    """

    key: str = field(repr=False)
    model: str
    probe: Claim | None

    @property
    def is_probe(self) -> bool:
        return self.probe is not None


class KeyRing:
    """
    Distributes requests over the keys, and pauses keys that do not work at the moment.

    A key is paused when its daily quota for a model is used up, or when Google rejects it or does
    not have the model for it. After the pause, a single request probes the key; the key stays
    paused until the probe succeeds.

    @ivar first: the key whose files and caches there are: each key has only its own.
    """

    def __init__(
        self,
        clock: IReactorTime,
        keys: Sequence[str],
        rest: float = REST,
        rests_limit: int = RESTS_LIMIT,
        wall_clock: Callable[[], float] = time,
        news: News = NO_NEWS,
    ) -> None:
        """
        @param rest: seconds for which a key rests first if Google does not say how long.
        @param rests_limit: rests that are remembered; the names of models come from clients.
        @param news: tells other daemons of rests.
        """
        self.first = keys[0] if keys else None
        self._rest_seconds = rest
        self._rests_limit = rests_limit
        self._clock = clock
        self._wall_clock = wall_clock
        self._keys = list(keys)
        self._rests: dict[tuple[str, str], _Rest] = {}
        self._digests = {key: digest_of(key) for key in keys}
        self._news = news
        news.follow(_TOPIC, self._heard)

    async def acquire(self, model: str, preferred: str | None = None) -> KeyLease:
        """
        Select the key for the next request.

        @param preferred: the key to use unless it is paused.
        @raise ChatError: all keys are paused; the error that caused the last pause.
        """
        while True:
            for key in sorted(self._keys, key=lambda key: key != preferred):
                if self._wait(key, model):
                    continue
                probe = None
                if (key, model) in self._rests:
                    probe = await self._probe(key, model)
                    if self._wait(key, model) and probe is None:
                        continue
                self._keys.remove(key)
                self._keys.append(key)
                return KeyLease(key, model, probe)
            waits = {key: self._wait(key, model) for key in self._keys}
            # One may have come back while the right to probe another was waited for.
            if all(waits.values()):
                break
        lacking = {key: self._rests[key, model].error.code == "model_not_found" for key in waits}
        soonest = min(waits, key=lambda key: (lacking[key], waits[key]))
        raise evolve(self._rests[soonest, model].error, retry_after=max(1.0, waits[soonest]))

    async def _probe(self, key: str, model: str) -> Claim | None:
        """The right to probe a key; None if another daemon has it, or there is nothing to probe."""
        rest = self._rests[key, model]
        rest.probing = True
        claim = None
        try:
            claim = await self._news.claim(_TOPIC, self._name(key, model))
        finally:
            if claim is None:
                rest.probing = False
        if claim is None:
            self._pause(rest, _PROBED_ELSEWHERE)
        elif self._rests.get((key, model)) is not rest:
            claim.release()
            return None
        return claim

    def release(self, lease: KeyLease, failure: AttemptFailure | None) -> bool:
        """
        @param failure: the failure of the request; None if it did not fail.
        @return: whether a retry with another key may succeed at once.
        """
        place = (lease.key, lease.model)
        if failure is None:
            if self._rests.pop(place, None) is not None:
                self._news.over(_TOPIC, self._name(*place))
            _give_up(lease)
            return False
        code = failure.error.code
        # A key whose quota is used up has the model.
        met = _QUOTA_CODES if code == "model_not_found" else frozenset()
        others = any(
            rest is None or rest.error.code in met
            for rest in (
                self._rests.get((key, lease.model)) for key in self._keys if key != lease.key
            )
        )
        if code == "insufficient_quota":
            self._rest(place, self._longer_rest(place), failure)
        elif others and code in ("rate_limit_exceeded", KEY_REFUSED, "model_not_found"):
            # A rate limit passes soon, a rejection may be the API's fault, and a model that one key
            # does not have may be another's: a pause is useful only if there is another key.
            first = RATE_REST if code == "rate_limit_exceeded" else self._longer_rest(place)
            self._rest(place, first, failure)
        else:
            self.abandon(lease)
            return False
        _give_up(lease)
        return others

    def _longer_rest(self, place: tuple[str, str]) -> float:
        before = self._rests.get(place)
        return self._rest_seconds if before is None else min(2 * before.seconds, LONGEST_REST)

    def _rest(self, place: tuple[str, str], seconds: float, failure: AttemptFailure) -> None:
        """@param seconds: used if the API reported no delay."""
        if failure.delay is not None:
            seconds = min(max(failure.delay, _SHORTEST_DELAY), _LONGEST_DELAY)
        before = self._rests.get(place)
        rest = self._begin(place, seconds, failure.error)
        if before is None or rest.until > before.until + _SHORTEST_DELAY:
            # Requests that are under way together fail together: the first one has told it.
            error = failure.error.masked(Masking([place[0]], lookalikes=True).in_bytes)
            told = {"seconds": seconds, "error": error.fields()}
            self._news.tell(_TOPIC, self._name(*place), told, seconds)

    def _begin(self, place: tuple[str, str], seconds: float, error: ChatError) -> _Rest:
        rest = self._rests[place] = _Rest(0.0, 0.0, seconds, error)
        self._pause(rest, seconds)
        if len(self._rests) > self._rests_limit:
            del self._rests[min(self._rests, key=lambda place: self._rests[place].until)]
        return rest

    def _pause(self, rest: _Rest, seconds: float) -> None:
        rest.until = self._clock.seconds() + seconds
        rest.until_date = self._wall_clock() + seconds

    def _name(self, key: str, model: str) -> str:
        """What others know a rest by."""
        return f"{self._digests[key]} {model}"

    def _heard(self, name: str, told: Any, left: float) -> None:
        """Another daemon tells of a rest, which ends in so many seconds, or is over."""
        digest, _, model = name.partition(" ")
        keys = [key for key, its in self._digests.items() if its == digest]
        for place in [(key, model) for key in keys]:
            if told is None:
                self._rests.pop(place, None)
            else:
                rest = self._begin(place, left, ChatError.of_fields(told["error"]))
                rest.seconds = float(told["seconds"])

    def abandon(self, lease: KeyLease) -> None:
        """Return a lease without an outcome."""
        if lease.is_probe and (rest := self._rests.get((lease.key, lease.model))):
            rest.probing = False
        _give_up(lease)

    def exhausted(self) -> dict[str, float]:
        """The models for which all keys are paused, with the seconds until one is probed."""
        models = {model for _, model in self._rests}
        waits = {model: min(self._wait(key, model) for key in self._keys) for model in models}
        return {model: wait for model, wait in waits.items() if wait > 0}

    def report(self, time: float) -> list[dict[str, Any]]:
        """
        What is known of each key, for JSON: its ends, and its pauses.

        @param time: now, in seconds since the epoch.
        """
        paused: dict[str, list[dict[str, Any]]] = {key: [] for key in sorted(self._keys)}
        for (key, model), rest in self._rests.items():
            if (left := self._wait(key, model)) > 0:
                reason = rest.error.code or str(rest.error.status)
                paused[key].append({"model": model, "until": round(time + left), "reason": reason})
        return [{"key": ends_of(key), "rests": rests} for key, rests in paused.items()]

    def _wait(self, key: str, model: str) -> float:
        """The seconds until a key may be used for a model."""
        rest = self._rests.get((key, model))
        if rest is None:
            return 0.0
        left = min(rest.until - self._clock.seconds(), rest.until_date - self._wall_clock())
        return max(left, 1.0 if rest.probing else 0.0)


def _give_up(lease: KeyLease) -> None:
    """Leave it to other daemons to probe, once they have been told what came of it."""
    if lease.probe is not None:
        lease.probe.release()
