"""Loggers whose debug messages are off by default."""

from __future__ import annotations

from twisted.logger import (
    FilteringLogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogPublisher,
)

_levels = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)
_observer = FilteringLogObserver(globalLogPublisher, [_levels])


def make_logger() -> Logger:
    """Create a logger, to be used as a class attribute."""
    return Logger(observer=_observer)


def details_are_wanted() -> bool:
    """Whether debug messages are logged. Frequent callers check this to avoid building messages."""
    return _levels.logLevelForNamespace("gemproxy") is LogLevel.debug


def log_details(wanted: bool) -> None:
    """Turn debug messages on or off."""
    _levels.setLogLevelForNamespace("gemproxy", LogLevel.debug if wanted else LogLevel.info)
