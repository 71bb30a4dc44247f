"""Counts what requests take: tokens, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import time

from attrs import define, field

from gemproxy.chat.chunks import Usage
from gemproxy.exchange import Exchange
from gemproxy.usage.prices import Prices
from gemproxy.usage.row import NAME_LENGTH, OTHER, Names, Row, bucket_of, shown, within_bounds

_ERRORS_FROM = 400

# Names of models that are told apart from the start of the daemon on.
_MODELS = 1000
# Pairs of account and model in the metrics.
_PAIRS = 2000


@define
class _Total:
    """What the requests of an account for a model took."""

    usage: Usage = Usage(0, 0)
    cost: float = 0.0


@define(eq=False)
class Meter:
    """
    Learns of each request that ended.

    @ivar prices: those of now.
    @ivar keep: takes the rows.
    @ivar wall_clock: in seconds since the epoch.
    @ivar charge: called with the account, the tokens and the cost of each request of an account.
    """

    prices: Prices = field(factory=Prices)
    keep: Callable[[Row], object] = lambda row: None
    wall_clock: Callable[[], float] = time
    charge: Callable[[str, int, float], object] = lambda account, tokens, cost: None
    _names: Names = field(factory=lambda: Names(_MODELS))
    _totals: dict[tuple[str, str], _Total] = field(factory=dict)

    def ended(self, exchange: Exchange, guess: Usage | None = None) -> None:
        """
        An exchange has ended. It is told what it costs.

        @param guess: what its account is charged for if its usage is not known, or not all of it.
        """
        usage = exchange.usage
        exchange.cost = self.count(
            id=exchange.id,
            time=exchange.time,
            account=exchange.account,
            model=exchange.model,
            upstream=exchange.upstream,
            status=exchange.status,
            finish=exchange.finish_reason,
            usage=None if usage is None else Usage.of_json(usage),
            first_token=exchange.first_token,
            duration=exchange.duration or 0.0,
            retries=exchange.retries,
            guess=guess,
        )

    def count(
        self,
        *,
        id: str,
        time: float | None = None,
        account: str | None,
        model: str,
        upstream: str,
        status: int,
        duration: float,
        finish: str | None = None,
        usage: Usage | None = None,
        first_token: float | None = None,
        retries: int = 0,
        guess: Usage | None = None,
    ) -> float | None:
        """
        A request has ended.

        @param time: that of the request, in seconds since the epoch; None if that is the duration
            before now.
        @param account: the name of that which asked; None for none.
        @param model: empty if it asked for none; likewise C{upstream}, if nobody was asked.
        @param usage: None if it is not known.
        @param first_token: seconds until the first piece of the answer; None if there was none.
        @param duration: seconds until its end.
        @param guess: see L{ended}.
        @return: what it costs; None if that is not known.
        """
        time = self.wall_clock() - duration if time is None else time
        # It is remembered in several places, and comes from the client.
        model = model[:NAME_LENGTH]
        name, cost = self._names.known(model), None
        if usage is not None:
            usage = within_bounds(usage)
            cost = self.prices.cost(model, usage, time, upstream)
            self._add(account or "", name, usage, cost)
        if account is not None:
            self._charge(account, model, upstream, time, status, guess or usage)
        self.keep(
            Row(
                time=time,
                account=account or "",
                model=name,
                upstream=upstream,
                status=status,
                finish=None if finish is None else shown(finish),
                input=None if usage is None else usage.prompt,
                cached=None if usage is None else usage.cached,
                output=None if usage is None else usage.completion,
                reasoning=None if usage is None else usage.reasoning,
                first_token=first_token,
                bucket=bucket_of(first_token),
                duration=duration,
                retries=retries,
                cost=cost,
                id=id,
            )
        )
        return cost

    def _charge(
        self,
        account: str,
        model: str,
        upstream: str,
        time: float,
        status: int,
        usage: Usage | None,
    ) -> None:
        if usage is not None:
            cost = self.prices.cost(model, usage, time, upstream) or 0.0
            self.charge(account, usage.prompt + usage.completion, cost)
        elif status < _ERRORS_FROM:
            self.charge(account, 0, 0.0)

    def _add(self, account: str, model: str, usage: Usage, cost: float | None) -> None:
        total = self._totals.get((account, model))
        if total is None:
            if len(self._totals) >= _PAIRS:
                account = model = OTHER
            total = self._totals.setdefault((account, model), _Total())
        total.usage += usage
        total.cost += cost or 0.0

    def tokens(self) -> Mapping[tuple[str, ...], float]:
        """All tokens since the start, by account, model and kind."""
        return {
            (*pair, kind): number
            for pair, total in self._totals.items()
            for kind, number in (
                ("input", total.usage.prompt),
                ("cached", total.usage.cached),
                ("output", total.usage.completion),
                ("reasoning", total.usage.reasoning),
            )
        }

    def costs(self) -> Mapping[tuple[str, ...], float]:
        """All costs since the start, by account, model and currency."""
        currency = self.prices.currency
        return {(*pair, currency): total.cost for pair, total in self._totals.items()}
