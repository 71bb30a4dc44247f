"""The routing table at work: from the name of a model to the backend that answers."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from attrs import define, evolve, field, frozen
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from gemproxy.backend import Backend, Forwarder
from gemproxy.backoff import RetryPolicy
from gemproxy.chat.chunks import model_object
from gemproxy.chat.errors import ChatError
from gemproxy.chat.models import by_name
from gemproxy.chat.request import Headers
from gemproxy.config_file import UpstreamConfig
from gemproxy.routing.repeating import FallbackBackend, RepeatingBackend
from gemproxy.routing.rest import TOPIC, Rest
from gemproxy.routing.spoken import SpokenDialects
from gemproxy.routing.table import GEMINI, Member, RoutingTable, Target
from gemproxy.routing.upstream_models import ListedModels, UpstreamModels
from gemproxy.state.facts import Facts
from gemproxy.state.news import NO_NEWS, News, Subject
from gemproxy.util.digests import digest_of
from gemproxy.util.log import make_logger
from gemproxy.util.shared_read import SharedRead

LIFETIME = 120.0
REST = 10.0

Listed = Mapping[str, dict[str, Any]]


class ForwardingBackend(Backend, Forwarder, Protocol):
    """An upstream: a backend that passes other requests on as well."""


class KnownModels(MultiService):
    """
    The list of models of a backend, which is asked for as rarely as it can be.

    @ivar name: that of the backend, for the log.
    """

    log = make_logger()

    def __init__(
        self,
        clock: IReactorTime,
        name: str,
        read: Callable[[Headers], Awaitable[ListedModels]],
        by_id: Callable[[Iterable[dict[str, Any]]], Listed],
    ) -> None:
        """
        @param read: asks for the list; raises a ChatError.
        @param by_id: the models by the names under which they are looked up.
        """
        super().__init__()
        self.name = name
        self._ask = read
        self._by_id = by_id
        self._shared: SharedRead[Listed] = SharedRead(clock, LIFETIME, REST)
        self._shared.setServiceParent(self)

    @property
    def known(self) -> Listed | None:
        """The last list; None if there has been none."""
        return self._shared.value

    def saw(self, models: Iterable[dict[str, Any]]) -> None:
        """Take note of a list that was just read; an empty one says nothing."""
        self._shared.value = self._by_id(models) or self._shared.value

    async def read_now(self, headers: Headers) -> ListedModels:
        """The list as it is now; empty if it cannot be read."""
        try:
            listed = await self._ask(headers)
        except ChatError as error:
            self._complain(error)
            return ListedModels(())
        self.saw(listed.models)
        return listed

    def _complain(self, error: ChatError) -> None:
        self.log.warn("the models of {name} cannot be listed: {error}", name=self.name, error=error)

    async def listed(self, headers: Headers) -> Listed:
        """The list of the last minutes; empty if there is none."""
        return await self._shared.get(lambda: self._read(headers)) or {}

    async def _read(self, headers: Headers) -> tuple[Listed | None, bool]:
        try:
            return self._by_id((await self._ask(headers)).models) or None, True
        except ChatError as error:
            self._complain(error)
            return None, False


def _by_exact_name(models: Iterable[dict[str, Any]]) -> Listed:
    return {model["id"]: model for model in models}


@define(eq=False)
class Upstream:
    """
    An upstream at work.

    @ivar backends: one for each of its keys.
    @ivar spoken: the dialects that it speaks.
    """

    config: UpstreamConfig
    backends: Sequence[ForwardingBackend]
    rest: Rest
    spoken: SpokenDialects
    known_models: KnownModels = field(init=False)
    _models: UpstreamModels = field(init=False)
    _turns: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._turns = itertools.cycle(self.backends)
        self._models = UpstreamModels(self.backend, bool(self.config.keys))
        self.known_models = KnownModels(
            self.rest.clock, f"the upstream '{self.config.name}'", self.listed, _by_exact_name
        )

    def backend(self) -> ForwardingBackend:
        """That of the key whose turn it is."""
        backend: ForwardingBackend = next(self._turns)
        return backend

    async def listed(self, headers: Headers) -> ListedModels:
        """See L{UpstreamModels.listed}."""
        return await self._models.listed(headers)


@frozen
class Route:
    """
    Who answers a request.

    @ivar model: the name under which it knows the model.
    @ivar label: for the log and the metrics.
    @ivar upstream: the upstream; None for Gemini.
    @ivar forwarder: passes other requests on to it; None for Gemini.
    @ivar asked: the name of the model, as the client wrote it.
    """

    backend: Backend
    model: str
    label: str
    upstream: Upstream | None = None
    forwarder: Forwarder | None = None
    asked: str = ""

    @property
    def name(self) -> str:
        """That of the upstream; GEMINI for Gemini."""
        return GEMINI if self.upstream is None else self.upstream.config.name


class Router(MultiService):
    """
    Knows the Gemini backend and the upstreams, and chooses among them.

    @ivar table: the rules.
    """

    log = make_logger()

    def __init__(
        self,
        clock: IReactorTime,
        gemini: Backend,
        gemini_names: Iterable[str],
        policy: RetryPolicy,
        make_upstream: Callable[[UpstreamConfig], Sequence[ForwardingBackend]],
        news: News = NO_NEWS,
        facts: Facts | None = None,
    ) -> None:
        """
        @param gemini_names: models of Gemini that are listed for certain.
        @param make_upstream: makes the backends of an upstream, one for each of its keys.
        @param news: tells other daemons of upstreams that rest.
        @param facts: what was learnt of upstreams.
        """
        super().__init__()
        self.gemini = gemini
        self.gemini_models = KnownModels(clock, "Gemini", self._gemini_list, by_name)
        self.gemini_models.saw([model_object(name) for name in gemini_names])
        self.gemini_models.setServiceParent(self)
        self.table = RoutingTable((), {})
        self._clock = clock
        self._policy = policy
        self._make_upstream = make_upstream
        self._upstreams: dict[str, Upstream] = {}
        self._news = news
        self._facts = facts or Facts(clock)
        news.follow(TOPIC, self._heard)

    def _heard(self, name: str, told: Any, left: float) -> None:
        """Another daemon tells of the rest of an upstream."""
        for upstream in self.upstreams:
            if upstream.rest.subject.name == name:
                upstream.rest.heard(told, left)

    async def _gemini_list(self, headers: Headers) -> ListedModels:
        return ListedModels(await self.gemini.models(headers))

    @property
    def upstreams(self) -> Collection[Upstream]:
        return self._upstreams.values()

    def report(self, time: float) -> list[dict[str, Any]]:
        """
        What is known of each upstream, for JSON.

        @param time: now, in seconds since the epoch.
        """
        return [
            {
                "name": one.config.name,
                "url": one.config.url,
                "keys": len(one.config.keys),
                "models": len(one.known_models.known or ()),
                "until": round(time + left) if (left := one.rest.left()) else None,
                "error": one.rest.last_error,
            }
            for one in self.upstreams
        ]

    @property
    def default(self) -> Upstream:
        """The upstream for what nobody else is for."""
        return next(iter(self._upstreams.values()))

    def use(
        self, upstreams: Sequence[UpstreamConfig], routes: Mapping[str, tuple[str, ...]]
    ) -> None:
        """
        Use these upstreams and routes from now on. Requests under way are not disturbed; an
        upstream that has not changed keeps what is known of it.

        @raise ValueError: a route names an upstream that is not there, or an upstream cannot be
            made; nothing has changed then.
        """
        members = (Member(one.name, one.prefix, one.models) for one in upstreams)
        table = RoutingTable(tuple(members), routes)
        table.check()
        used: dict[str, Upstream] = {}
        for config in upstreams:
            known = self._upstreams.get(config.name)
            if known is None or known.config != config:
                identity = digest_of(config.url, config.proxy or "", *config.keys)
                rest = Rest(self._clock, config.name, Subject(self._news, TOPIC, identity))
                known = Upstream(
                    config,
                    self._make_upstream(config),
                    rest,
                    SpokenDialects(self._clock, config.dialects, self._facts.about(identity)),
                )
            used[config.name] = known
        before, self._upstreams, self.table = self._upstreams, used, table
        # Those that go are first: one that has changed goes by the name of the one before.
        for upstream in before.values():
            if upstream not in used.values():
                upstream.known_models.disownServiceParent()
        for upstream in used.values():
            if upstream not in before.values():
                upstream.known_models.setServiceParent(self)

    async def route(self, model: str, headers: Headers) -> Route:
        """
        @param model: the name, as the client wrote it.
        @param headers: those of the client's request.
        """
        targets = self.table.explicit(model) or (await self._by_lists(model, headers),)
        if len(targets) == 1:
            return self._route(model, targets[0], is_alone=True)
        routes = [self._route(model, target, is_alone=False) for target in targets]
        backends = [route.backend for route in routes]
        members = [*zip(targets, backends, strict=True)]
        return evolve(routes[0], backend=FallbackBackend(members))

    async def models(self, headers: Headers) -> ListedModels:
        """All models that can be asked for, each once, by the name that chooses it."""
        sources = [self.gemini_models, *(one.known_models for one in self._upstreams.values())]
        # The upstreams first, which are further away.
        asked = [Deferred.fromCoroutine(one.read_now(headers)) for one in reversed(sources)]
        listed: dict[str, dict[str, Any]] = {}
        is_stale = False
        try:
            for one in reversed(asked):
                found = await one
                is_stale = is_stale or found.is_stale
                for model in found.models:
                    listed.setdefault(model["id"], model)
        finally:
            # The client may disconnect before all of them have answered.
            for one in asked:
                one.addErrback(lambda _: ListedModels(()))
                one.cancel()
        for name in self.table.routes:
            if "*" not in name:
                listed.setdefault(name, model_object(name) | {"owned_by": "gemproxy"})
        return ListedModels(list(listed.values()), is_stale)

    def _route(self, asked: str, target: Target, is_alone: bool) -> Route:
        if target.upstream == GEMINI:
            return Route(self.gemini, target.model, "stream/gemini", asked=asked)
        upstream = self._upstreams[target.upstream]
        forwarder = upstream.backend()
        backend = RepeatingBackend(
            self._clock, forwarder, upstream.rest, self._policy, repeats_429=is_alone
        )
        label = f"stream/{_label(upstream)}"
        return Route(backend, target.model, label, upstream, forwarder, asked)

    async def _by_lists(self, model: str, headers: Headers) -> Target:
        table = self.table
        gemini: Collection[str] | None = self.gemini_models.known
        if table.may_be_gemini(model):
            gemini = await self.gemini_models.listed(headers)
        if table.is_surely_gemini(model) or not table.needs_upstream_lists(model):
            known = {name: one.known_models.known or () for name, one in self._upstreams.items()}
            return table.listed(model, gemini, known)
        asked = [
            Deferred.fromCoroutine(one.known_models.listed(headers))
            for one in self._upstreams.values()
        ]
        names = {name: await one for name, one in zip(self._upstreams, asked, strict=True)}
        return table.listed(model, gemini, names)


def _label(upstream: Upstream) -> str:
    # The one that has always been there keeps its name in metrics.
    return "upstream" if upstream.config.name == "newapi" else upstream.config.name
