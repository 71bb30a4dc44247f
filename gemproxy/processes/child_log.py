"""The logs of processes, which are one log: factories of observers, for C{twistd --logger}."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogLevel,
    jsonFileLogObserver,
    textFileLogObserver,
)
from zope.interface import implementer

from gemproxy.processes.place import Place


@implementer(ILogObserver)
class _Numbered:
    """Says of which process each line is."""

    def __init__(self, observer: FileLogObserver) -> None:
        self._observer = observer
        self._number = Place.in_environ(os.environ).number

    def __call__(self, event: dict[str, Any]) -> None:
        system = event.get("log_system")
        if system is None:
            level = event.get("log_level", LogLevel.info)
            system = f"{event.get('log_namespace', '-')}#{level.name}"
        # Nobody reads it if the parent is gone: that is no reason not to end as one should.
        with suppress(OSError):
            self._observer(event | {"log_system": f"process {self._number}, {system}"})


def to_output() -> ILogObserver:
    """Lines for the standard output that the processes and their parent have in common."""
    observer: ILogObserver = _Numbered(textFileLogObserver(sys.stdout))
    return observer


def to_parent() -> ILogObserver:
    """Events for the parent, which does with them as with its own."""
    observer: ILogObserver = _Numbered(jsonFileLogObserver(sys.stdout, recordSeparator=""))
    return observer
