"""The wiring: a Config in, a service with everything in its place out."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from gemproxy import __version__
from gemproxy.backend import Backend
from gemproxy.chat.errors import ChatError
from gemproxy.config import BadSetting, Config
from gemproxy.demo.server import Demo
from gemproxy.gemini.cli.install import Cli
from gemproxy.gemini.cli.limits import CliLimits
from gemproxy.gemini.cli.worker_pool import MemberState, WorkerPool
from gemproxy.gemini.engine import GeminiEngine
from gemproxy.gemini.keys import REST
from gemproxy.gemini.service import EngineService
from gemproxy.http.agent import PersistentAgent, endpoints
from gemproxy.http.client_connections import Connections
from gemproxy.http.confined import ConfinedAgent
from gemproxy.http.listening import Address, PortService
from gemproxy.http.url import BaseURL
from gemproxy.http.write_coalescer import WriteCoalescer
from gemproxy.journal import DiskJournal, Journal, NoJournal
from gemproxy.metrics import Metrics
from gemproxy.openai.backend import FINISH_PATIENCE, MODELS_TIMEOUT, OpenAIBackend, base_url
from gemproxy.openai.conversion import Convert
from gemproxy.shutdown import LAST_WORDS, Drain
from gemproxy.util.log import log_details, make_logger
from gemproxy.web.access import Access
from gemproxy.web.admission import Admission, Limits
from gemproxy.web.chat import ChatService
from gemproxy.web.gemini_models import GeminiModels
from gemproxy.web.gemini_proxy import GeminiProxy
from gemproxy.web.health import Health
from gemproxy.web.passthrough import Passthrough
from gemproxy.web.relay import Heartbeats
from gemproxy.web.site import make_site
from gemproxy.web.stream_proxy import StreamProxy, is_passed_through
from gemproxy.web.upload import IsStreamed, never_streamed

_CONNECT_TIMEOUT = 30.0


@frozen
class Patience:
    """
    How long others are waited for, in seconds.

    @ivar headers: see L{Limits}; also body and linger.
    @ivar last_words: see L{Drain}.
    @ivar models: see L{OpenAIBackend}; also finish.
    @ivar key_rest: see L{KeyRing}.
    """

    headers: float = 30.0
    body: float = 600.0
    linger: float = 2.0
    last_words: float = LAST_WORDS
    models: float = MODELS_TIMEOUT
    finish: float = FINISH_PATIENCE
    key_rest: float = REST


class Daemon(MultiService):
    """
    Starts and stops the parts of the proxy in their order.

    @ivar pool: the CLI workers; None where there is no engine.
    """

    log = make_logger()

    def __init__(
        self,
        config: Config,
        cli: Cli | None,
        reactor: Any,
        environ: Mapping[str, str],
        patience: Patience = Patience(),
        cli_limits: CliLimits | None = None,
    ) -> None:
        """
        @param cli: the Gemini CLI; None only where the config needs no engine.
        @raise BadSetting: a port cannot be listened at.
        """
        super().__init__()
        log_details(config.debug)
        self._config = config
        self._patience = patience
        self._reactor = reactor
        self._coalescer = WriteCoalescer()
        self._agent = PersistentAgent(
            reactor, self._coalescer, endpoints(reactor, _CONNECT_TIMEOUT)
        )
        self._metrics = Metrics(__version__)
        self._journal = self._add_journal()
        self._interruptions: list[Callable[[ChatError], None]] = []
        self._ports: list[PortService] = []
        self._connections: list[Connections] = []
        self._addresses = {
            name: Address(port, config.host)
            for name, port in (("Gemini Proxy", config.port), ("Stream Proxy", config.stream_port))
            if port is not None
        }
        self._admission = Admission(
            reactor,
            Access(config.proxy_api_keys, config.cors_origins, self._is_local),
            Limits(
                config.max_body,
                config.client_requests,
                patience.headers,
                patience.body,
                patience.linger,
            ),
            self._metrics,
            _new_id,
        )
        self._drain = Drain(
            reactor, self._admission, self._connections, self._interrupt, patience.last_words
        )
        self.pool: WorkerPool | None = None

        engine: GeminiEngine | None = None
        if config.needs_engine:
            assert cli is not None
            service = EngineService(
                config,
                cli,
                reactor,
                self._agent,
                self._coalescer,
                self._api_url(),
                environ,
                cli_limits or CliLimits(),
                patience.key_rest,
            )
            service.setServiceParent(self)
            self._watch_pool(service.pool)
            self.pool = service.pool
            engine = service.engine
        self._watch_requests()
        self._health = Health(
            self._metrics,
            lambda: self.pool is None or self.pool.warm,
            lambda: self.pool is None or self.pool.was_warm,
            lambda: {} if engine is None else engine.keys.exhausted(),
        )
        if config.port is not None and engine is not None:
            proxy = GeminiProxy(engine, self._health, self._chat_service(()))
            self._listen("Gemini Proxy", proxy.app.resource())
        if config.stream_port is not None:
            self._listen("Stream Proxy", self._stream_proxy(engine), is_passed_through)

    @property
    def _is_local(self) -> bool:
        return all(address.is_local for address in self._addresses.values())

    def _watch_requests(self) -> None:
        self._metrics.watch(
            "requests_under_way",
            "Requests that are being received or answered",
            lambda: len(self._admission.open),
        )
        self._metrics.watch(
            "connections",
            "Connections of clients",
            lambda: sum(len(connections.open) for connections in self._connections),
        )
        self._metrics.watch(
            "timers",
            "Delayed calls of the reactor",
            lambda: len(self._reactor.getDelayedCalls()),
        )

    def _watch_pool(self, pool: WorkerPool) -> None:
        self._metrics.watch("sessions", "Open sessions of the CLI workers", pool.sessions)
        self._metrics.watch("leases", "Requests that CLI workers are serving", pool.leases)
        self._metrics.watch("queued_requests", "Requests that wait for a CLI worker", pool.queued)
        self._metrics.watch_each(
            "workers",
            "CLI workers",
            "state",
            [state.value for state in MemberState],
            lambda state: pool.count(MemberState(state)),
        )

    def _stream_proxy(self, engine: GeminiEngine | None) -> Any:
        config = self._config
        upstream = self._upstream(config.upstream_url, config.fixed_api_key)
        gemini: Backend | None = engine
        names = config.gemini_models
        if config.gemini_proxy_url is not None:
            gemini = self._upstream(config.gemini_proxy_url, None, is_gemproxy=True)
            names = ()
        assert gemini is not None
        gemini_models = GeminiModels(self._reactor, gemini, names)
        gemini_models.setServiceParent(self)
        passthrough = Passthrough(self._reactor, upstream, config.timeout, self._metrics)
        self._interruptions.append(passthrough.interrupt_all)
        chats = self._chat_service(config.stop_tags)
        proxy = StreamProxy(gemini, gemini_models, upstream, passthrough, self._health, chats)
        return proxy.app.resource()

    def _upstream(self, url: str, key: str | None, is_gemproxy: bool = False) -> OpenAIBackend:
        base = base_url(url)
        agent = ConfinedAgent(self._agent, base.origin)
        return OpenAIBackend(
            self._reactor,
            agent,
            base,
            key,
            self._config.timeout,
            self._patience.models,
            is_gemproxy,
            Convert.ON if is_gemproxy else Convert(self._config.convert),
            "GEMINI_PROXY_URL" if is_gemproxy else "UPSTREAM_URL",
            self._patience.finish,
        )

    def _chat_service(self, stop_tags: Sequence[str]) -> ChatService:
        config = self._config
        heartbeats = Heartbeats(
            config.heartbeat_interval, config.json_heartbeat_delay, config.early_heartbeats
        )
        keys = [*config.gemini_api_key, *config.proxy_api_keys, config.fixed_api_key or ""]
        chats = ChatService(
            self._reactor, heartbeats, self._journal, self._metrics, keys, stop_tags
        )
        self._interruptions.append(chats.interrupt_all)
        return chats

    def _add_journal(self) -> Journal:
        config = self._config
        if config.log_dir is None:
            return NoJournal(self._reactor, _new_id)

        def in_thread(function: Callable[..., None], *args: Any) -> Deferred[None]:
            pool = self._reactor.getThreadPool()
            return deferToThreadPool(self._reactor, pool, function, *args)

        journal = DiskJournal(self._reactor, in_thread, _new_id, config.log_dir, config.log_keep)
        journal.setServiceParent(self)
        return journal

    def _api_url(self) -> Callable[[], BaseURL]:
        if not self._config.demo:
            base = BaseURL.parse(self._config.google_gemini_base_url)
            return lambda: base
        demo = Demo(self._reactor)
        demo.setServiceParent(self)
        return lambda: BaseURL.parse(demo.url)

    def _listen(
        self,
        name: str,
        resource: Any,
        is_streamed: IsStreamed = never_streamed,
    ) -> None:
        site = make_site(resource, self._admission, self._reactor, is_streamed)
        address = self._addresses[name]
        try:
            endpoint = address.endpoint(self._reactor, self._coalescer)
        except ValueError as error:
            raise BadSetting(f"{name}: cannot listen at {address.port!r}: {error}") from None
        service = PortService(endpoint, site)
        service.setName(name)
        service.setServiceParent(self)
        self._ports.append(service)
        self._connections.append(site.connections)

    def startService(self) -> None:
        super().startService()
        self.log.info("gemproxy {version} is running", version=__version__)
        for name, address in self._addresses.items():
            self.log.info("{name}: {address}", name=name, address=address.shown)
        if not self._is_local and not self._config.proxy_api_keys:
            self.log.warn(
                "Other machines can connect to {addresses}, and use this proxy without a key: "
                "set PROXY_API_KEYS.",
                addresses=", ".join(address.shown for address in self._addresses.values()),
            )

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    def hurry(self) -> None:
        """Stop without waiting for the requests under way any longer."""
        self._drain.hurry()

    def _interrupt(self, error: ChatError) -> None:
        for interrupt_all in self._interruptions:
            interrupt_all(error)

    async def _stop(self) -> None:
        self._admission.stopping = self._health.stopping = True
        ports, self._ports = self._ports, []
        for port in ports:
            await port.disownServiceParent()
        await self._drain.run(self._config.drain)
        await super().stopService()
        await self._agent.close()


def _new_id() -> str:
    return secrets.token_hex(8)
