"""Loggers that keep quiet about details unless they are asked for."""

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
    """A logger for the class that it becomes an attribute of."""
    return Logger(observer=_observer)


def details_are_wanted() -> bool:
    """For those to ask who would say something all the time: to be ignored has its price too."""
    return _levels.logLevelForNamespace("gemproxy") is LogLevel.debug


def log_details(wanted: bool) -> None:
    """Whether debug messages reach the log."""
    _levels.setLogLevelForNamespace("gemproxy", LogLevel.debug if wanted else LogLevel.info)
