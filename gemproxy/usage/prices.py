"""What tokens cost. Pure."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from gemproxy.chat.chunks import Usage
from gemproxy.config_file import PriceConfig, PriceListConfig

# Prices are those of so many tokens.
_PER = 1_000_000
_DAY = timedelta(days=1)
# Models whose prices are remembered: clients make up names.
_REMEMBERED = 1024


class Prices:
    """
    The prices of a configuration. There are none but those: prices that come with a program are
    those of the day on which it was made.

    @ivar currency: that of all costs.
    @ivar as_of: the day on which they were read, as C{2026-11-28}; None if there are none.
    @ivar as_of_seconds: the same in seconds since the epoch; 0 if there are none.
    """

    def __init__(self, config: PriceListConfig | None = None) -> None:
        config = config or PriceListConfig()
        self.currency = config.currency
        self.as_of = None if config.as_of is None else config.as_of.isoformat()
        self.as_of_seconds = 0.0 if config.as_of is None else _midnight(config.as_of).timestamp()
        self._prices = [([*map(_compiled, one.models)], one) for one in config.per_million]
        self._fitting = lru_cache(_REMEMBERED)(self._find)

    def cost(self, model: str, usage: Usage, time: float, upstream: str = "") -> float | None:
        """
        What an answer costs, in L{currency}; None if nobody knows the price.

        @param model: the name under which whoever answers knows it.
        @param time: that of the request, in seconds since the epoch.
        @param upstream: who answers, for prices that are for one upstream alone.
        """
        for until, price in self._fitting(model, upstream):
            if usage.prompt > price.prompts_over and (until is None or time < until):
                return _cost(price, usage)
        return None

    def _find(self, model: str, upstream: str) -> list[tuple[float | None, PriceConfig]]:
        """The prices that fit, each with the time at which it ends."""
        names = (model, f"{upstream}/{model}")
        return [
            (_end_of(price), price)
            for patterns, price in self._prices
            if any(pattern.fullmatch(name) for pattern in patterns for name in names)
        ]


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)


def _end_of(price: PriceConfig) -> float | None:
    """When a price ends, in seconds since the epoch: with its last day, UTC."""
    return None if price.until is None else (_midnight(price.until) + _DAY).timestamp()


def _midnight(day: date) -> datetime:
    """The beginning of a day."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _cost(price: PriceConfig, usage: Usage) -> float:
    cached = min(usage.cached, usage.prompt)
    reasoning = min(usage.reasoning, usage.completion)
    cached_price = price.input if price.cached is None else price.cached
    reasoning_price = price.output if price.reasoning is None else price.reasoning
    return (
        (usage.prompt - cached) * price.input
        + cached * cached_price
        + (usage.completion - reasoning) * price.output
        + reasoning * reasoning_price
    ) / _PER
