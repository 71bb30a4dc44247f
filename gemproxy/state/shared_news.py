"""
News by way of the shared state: a stream of all that was told, which each daemon reads as it grows.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from gemproxy.state.news import Claim, Heard
from gemproxy.state.shared import Script, SharedState, StateAway
from gemproxy.util.digests import digest_of
from gemproxy.util.log import make_logger

# Seconds between two looks at the stream.
INTERVAL = 1.0
# Seconds for which a claim holds: longer than most requests take, in case this daemon dies.
CLAIM = 60.0

_STREAM = "news"
# The stream forgets the oldest entries, and is forgotten when nobody has told anything for a day.
_MOST = 10_000
_LIFETIME = 86_400.0
_LARGEST = 16_000
_AT_ONCE = 500

_TELL = Script("""
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'told', ARGV[2])
return redis.call('PEXPIRE', KEYS[1], ARGV[3])
""")

# The server's time in milliseconds, and what came after an entry.
_HEAR = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local read = redis.call('XREAD', 'COUNT', ARGV[2], 'STREAMS', KEYS[1], ARGV[1])
return {now, read and read[1][2] or {}}
"""
_HEAR_ALONE = Script(_HEAR)

# redis.io/docs/latest/commands/set: a lock with a token, so that nobody ends another's.
_CLAIM = Script(f"""
if not redis.call('SET', KEYS[2], ARGV[3], 'NX', 'PX', ARGV[4]) then return 0 end
{_HEAR}""")
_RELEASE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")


class SharedNews(Service):
    """
    See L{News}. What this daemon told comes back to it with the rest, so that all daemons end with
    the same, whatever the order in which they told it.
    """

    log = make_logger()

    def __init__(self, clock: IReactorTime, state: SharedState) -> None:
        self._state = state
        self._heard: dict[str, list[Heard]] = {}
        self._last = (0, 0)
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        state.on_return.append(self._look)

    def startService(self) -> None:
        super().startService()
        self._looking.start(INTERVAL, now=False)

    def stopService(self) -> None:
        super().stopService()
        self._looking.stop()

    def tell(self, topic: str, name: str, value: Any, seconds: float) -> None:
        told = json.dumps([topic, name, value, seconds], separators=(",", ":"))
        if len(told) <= _LARGEST:
            telling = self._state.run(
                _TELL, [_STREAM], _MOST, told.encode(), round(_LIFETIME * 1000)
            )
            telling.addErrback(StateAway.ignored)

    def over(self, topic: str, name: str) -> None:
        self.tell(topic, name, None, 0.0)

    def follow(self, topic: str, heard: Heard) -> None:
        self._heard.setdefault(topic, []).append(heard)

    def claim(self, topic: str, name: str) -> Deferred[Claim | None]:
        key, token = f"claim:{digest_of(topic, name)}", secrets.token_hex(8)

        def release() -> None:
            self._state.run(_RELEASE, [key], token).addErrback(StateAway.ignored)

        claim = Claim(release)

        def decided(answer: Any) -> Claim | None:
            if not answer:
                return None
            self._take(answer)
            return claim

        def undecided(failure: Failure) -> Claim:
            if failure.check(CancelledError):
                release()
            failure.trap(StateAway)
            # Whoever is alone decides alone. It may be granted all the same: then it is released.
            return claim

        keys = [_STREAM, key]
        milliseconds = round(CLAIM * 1000)
        asked = self._state.run(_CLAIM, keys, self._after, _AT_ONCE, token, milliseconds)
        return asked.addCallbacks(decided, undecided)

    def hear(self) -> Deferred[None]:
        """Read what is new; as much of it as the server can be asked for now."""
        return Deferred.fromCoroutine(self._hear())

    def _look(self) -> None:
        self.hear().addErrback(self._complain)

    def _complain(self, failure: Failure) -> None:
        self.log.failure("what other daemons told cannot be read", failure)

    async def _hear(self) -> None:
        try:
            while (
                self._take(await self._state.run(_HEAR_ALONE, [_STREAM], self._after, _AT_ONCE))
                == _AT_ONCE
            ):
                pass
        except StateAway:
            pass

    @property
    def _after(self) -> str:
        return f"{self._last[0]}-{self._last[1]}"

    def _take(self, answer: Any) -> int:
        """Pass on what was read, all of it at once; returns how many entries it was."""
        now, entries = answer
        for id, fields in entries:
            time, number = map(int, id.split(b"-"))
            # What was asked for twice at the same time comes twice.
            if (time, number) > self._last:
                self._last = (time, number)
                self._pass_on(fields[1], max(0.0, (now - time) / 1000))
        return len(entries)

    def _pass_on(self, told: bytes, age: float) -> None:
        """@param age: the seconds since it was told, by the server's clock."""
        try:
            topic, name, value, seconds = json.loads(told)
            left = min(seconds, _LIFETIME) - age
            if value is None or left > 0:
                for heard in self._heard.get(topic, ()):
                    heard(name, value, left)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # Another version tells other things.
            self.log.debug("another daemon's news are not understood: {error}", error=error)
