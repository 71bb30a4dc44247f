"""Whether a process that is waited for still reacts."""

from __future__ import annotations

from enum import Enum

# Looks in a row, a second apart: after the last, a request has waited for some six seconds, and is
# tried again elsewhere before ten are over.
_UNTIL_ASKED = 2
_UNTIL_DEAD = 6


class Judgement(Enum):
    """
    @cvar ALIVE: nothing is to be done.
    @cvar ASK: it is to be asked for a sign of life.
    @cvar DEAD: it does not react.
    """

    ALIVE = "alive"
    ASK = "ask"
    DEAD = "dead"


class Silence:
    """
    Judges by looks at regular intervals. They are counted instead of the time: while a machine
    sleeps, or the daemon itself is held up, nobody looks, and no process is to blame.
    """

    def __init__(self) -> None:
        self._looks = 0

    def look(self, is_awaited: bool, gave_sign: bool) -> Judgement:
        """
        @param is_awaited: whether the process has something to do.
        @param gave_sign: whether it has given a sign of life since the last look.
        """
        if gave_sign or not is_awaited:
            self._looks = 0
            return Judgement.ALIVE
        self._looks += 1
        if self._looks >= _UNTIL_DEAD:
            return Judgement.DEAD
        return Judgement.ASK if self._looks == _UNTIL_ASKED else Judgement.ALIVE
