"""The composition: a Config in, a service with everything in its place out."""

from __future__ import annotations

import ipaddress
import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import MultiService, Service
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.internet.threads import deferToThreadPool
from twisted.web.iweb import IAgent

from gemproxy import __version__
from gemproxy.backend import Backend
from gemproxy.chat.errors import ChatError, overloaded
from gemproxy.config import Config
from gemproxy.demo import Demo
from gemproxy.gemini.attempt import Attempts
from gemproxy.gemini.backoff import RetryPolicy
from gemproxy.gemini.cli.gateway import Gateway
from gemproxy.gemini.cli.home import WorkerHome
from gemproxy.gemini.cli.install import Cli
from gemproxy.gemini.cli.rundir import RunDirectory, root_for_user
from gemproxy.gemini.cli.worker import Worker
from gemproxy.gemini.cli.worker_pool import PoolLimits, WorkerPool
from gemproxy.gemini.engine import GeminiEngine, check_model
from gemproxy.gemini.keys import KeyRing
from gemproxy.gemini.pictures import PictureFetcher
from gemproxy.http.agent import PersistentAgent, endpoints
from gemproxy.http.client_connections import Connections
from gemproxy.http.confined import ConfinedAgent
from gemproxy.http.transport import PromptEndpoint
from gemproxy.http.url import BaseURL
from gemproxy.http.write_coalescer import WriteCoalescer
from gemproxy.journal import DiskJournal, Journal, NoJournal
from gemproxy.metrics import Metrics
from gemproxy.openai.backend import OpenAIBackend, base_url
from gemproxy.util.log import log_details, make_logger
from gemproxy.web.access import Access
from gemproxy.web.admission import Admission, Limits
from gemproxy.web.chat import ChatService
from gemproxy.web.gemini_proxy import GeminiProxy
from gemproxy.web.health import Health
from gemproxy.web.passthrough import Passthrough
from gemproxy.web.relay import Heartbeats
from gemproxy.web.site import make_site
from gemproxy.web.stream_proxy import StreamProxy, is_passed_through

_CONNECT_TIMEOUT = 30.0
# Seconds that an interrupted answer has to end, and a client to read what was written for it.
_LAST_WORDS = 3.0


def build(config: Config, cli: Cli | None, reactor: Any, environ: Mapping[str, str]) -> Daemon:
    """
    The daemon, not yet running.

    @param cli: the Gemini CLI; None only where the config needs no engine.
    """
    return Daemon(config, cli, reactor, environ)


class EngineService(MultiService):
    """The Gemini engine and what it lives on: run directory, gateway, workers."""

    def __init__(
        self,
        config: Config,
        cli: Cli,
        reactor: Any,
        agent: IAgent,
        coalescer: WriteCoalescer,
        api_url: Callable[[], BaseURL],
        environ: Mapping[str, str],
    ) -> None:
        super().__init__()
        assert config.gemini_api_key
        self._run_directory = RunDirectory(root_for_user(environ))
        self._workers_made = 0
        endpoint = PromptEndpoint(reactor, 0, "127.0.0.1", coalescer)
        gateway = Gateway(reactor, endpoint, agent, api_url)
        gateway.setServiceParent(self)

        def make_worker(pool: WorkerPool) -> Worker:
            self._workers_made += 1
            assert self._run_directory.path is not None
            home = WorkerHome(self._run_directory.path / f"worker-{self._workers_made}")
            return Worker(reactor, cli, home, config.gemini_models[0], gateway.url, pool)

        fetch_pictures = None
        if config.fetch_images:
            fetch_pictures = PictureFetcher(reactor).fetch
        limits = PoolLimits(config.gemini_workers, config.gemini_sessions, config.gemini_queue)
        self.pool = WorkerPool(reactor, limits, make_worker)
        self.pool.setServiceParent(self)
        self.engine = GeminiEngine(
            reactor,
            Attempts(reactor, self.pool, gateway, config.timeout),
            KeyRing(reactor, config.gemini_api_key),
            RetryPolicy(config.max_retries, config.retry_delay, config.timeout, random.random),
            config.gemini_models,
            config.lenient,
            fetch_pictures,
        )

    def startService(self) -> None:
        self._run_directory.acquire()
        super().startService()

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await super().stopService()
        self._run_directory.release()


class Daemon(MultiService):
    """
    Starts and stops the parts of the proxy in their order.

    @ivar pool: the CLI workers; None where there is no engine.
    """

    log = make_logger()

    def __init__(
        self, config: Config, cli: Cli | None, reactor: Any, environ: Mapping[str, str]
    ) -> None:
        super().__init__()
        log_details(config.debug)
        self._config = config
        self._reactor = reactor
        self._coalescer = WriteCoalescer()
        self._agent = PersistentAgent(
            reactor, self._coalescer, endpoints(reactor, _CONNECT_TIMEOUT)
        )
        self._metrics = Metrics()
        self._journal = self._add_journal()
        self._interruptions: list[Callable[[ChatError], None]] = []
        self._ports: list[Service] = []
        self._connected: list[Connections] = []
        self._waiting: Deferred[Any] | None = None
        self._hurried = False
        self._admission = Admission(
            reactor,
            Access(config.proxy_api_keys, config.cors_origins, _is_loopback(config.host)),
            Limits(config.max_body, config.client_requests),
            self._metrics,
            _new_id,
        )
        self.pool: WorkerPool | None = None

        engine: GeminiEngine | None = None
        if config.needs_engine:
            assert cli is not None
            service = EngineService(
                config, cli, reactor, self._agent, self._coalescer, self._api_url(), environ
            )
            service.setServiceParent(self)
            self._watch(service.pool)
            self.pool = service.pool
            engine = service.engine
        self._watch_self()
        self._health = Health(
            self._metrics,
            lambda: self.pool is None or self.pool.warm,
            lambda: self.pool is None or self.pool.was_warm,
            lambda: {} if engine is None else engine.keys.exhausted(),
        )
        if config.port is not None and engine is not None:
            face = GeminiProxy(engine, check_model, self._health, self._add_chats(stop_tags=()))
            self._listen("Gemini Proxy", config.port, face.app.resource())
        if config.stream_port is not None:
            self._listen(
                "Stream Proxy", config.stream_port, self._stream_proxy(engine), is_passed_through
            )

    def _watch_self(self) -> None:
        self._metrics.watch(
            "requests_under_way",
            "Requests that are being received or answered",
            lambda: len(self._admission.open),
        )
        self._metrics.watch(
            "connections",
            "Connections of clients",
            lambda: sum(len(connections.open) for connections in self._connected),
        )
        self._metrics.watch(
            "timers",
            "Calls that are planned for later",
            lambda: len(self._reactor.getDelayedCalls()),
        )

    def _watch(self, pool: WorkerPool) -> None:
        self._metrics.watch("sessions", "Sessions that the CLI workers have", pool.sessions)
        self._metrics.watch("queued_requests", "Requests that wait for a CLI worker", pool.queued)
        self._metrics.watch_each(
            "workers", "CLI workers", "state", ("starting", "ready", "retiring"), pool.count
        )

    def _stream_proxy(self, engine: GeminiEngine | None) -> Any:
        config = self._config
        others = self._upstream(config.upstream_url, config.fixed_api_key)
        gemini: Backend | None = engine
        if config.gemini_proxy_url is not None:
            gemini = self._upstream(config.gemini_proxy_url, None)
        assert gemini is not None
        passthrough = Passthrough(self._reactor, others, config.timeout, self._metrics)
        self._interruptions.append(passthrough.interrupt_all)
        chats = self._add_chats(config.stop_tags)
        return StreamProxy(gemini, others, passthrough, self._health, chats).app.resource()

    def _upstream(self, url: str, key: str | None) -> OpenAIBackend:
        base = base_url(url)
        agent = ConfinedAgent(self._agent, base.origin)
        return OpenAIBackend(self._reactor, agent, base, key, self._config.timeout)

    def _add_chats(self, stop_tags: Sequence[str]) -> ChatService:
        config = self._config
        heartbeats = Heartbeats(config.heartbeat_interval, config.json_heartbeat_delay)
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
        port: int,
        resource: Any,
        is_streamed: Callable[[bytes, bytes], bool] = lambda method, path: False,
    ) -> None:
        site = make_site(resource, self._admission, self._reactor, is_streamed)
        endpoint = PromptEndpoint(self._reactor, port, self._config.host, self._coalescer)
        service = StreamServerEndpointService(endpoint, site)
        # A port that is taken ends the start.
        service._raiseSynchronously = True
        service.setName(name)
        service.setServiceParent(self)
        self._ports.append(service)
        self._connected.append(site.connections)

    def startService(self) -> None:
        super().startService()
        self.log.info("gemproxy {version} is running", version=__version__)
        ports = (("Gemini", self._config.port), ("Stream", self._config.stream_port))
        for name, port in ports:
            if port is not None:
                url = f"http://{self._config.host}:{port}/v1"
                self.log.info("{name} Proxy: {url}", name=name, url=url)

        if not _is_loopback(self._config.host) and not self._config.proxy_api_keys:
            self.log.warn(
                "{host} is reached from other machines, and anybody there may use this proxy and "
                "its keys: set PROXY_API_KEYS.",
                host=self._config.host,
            )

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    def hurry(self) -> None:
        """Stop without waiting for the requests under way any longer."""
        self._hurried = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def _stop(self) -> None:
        self._admission.stopping = self._health.stopping = True
        ports, self._ports = self._ports, []
        for port in ports:
            await port.disownServiceParent()
        await self._drain()
        await super().stopService()
        await self._agent.close()

    async def _drain(self) -> None:
        """Let requests end; end those that do not; see that clients get what was written."""
        if self._admission.open:
            self.log.info(
                "waiting up to {seconds:g} s for {count} requests",
                seconds=self._config.drain,
                count=len(self._admission.open),
            )
        deadline = self._reactor.seconds() + self._config.drain
        await self._patiently(self._config.drain, self._admission.when_empty())
        # That there are none may be news to whoever serves them.
        if self._admission.open:
            for interrupt_all in self._interruptions:
                interrupt_all(overloaded("The proxy is stopping.", 5))
        await self._within(_LAST_WORDS, self._admission.when_empty())
        closed = _all([connections.close() for connections in self._connected])
        left = deadline - self._reactor.seconds()
        await self._patiently(max(left, _LAST_WORDS), closed)
        await self._within(
            _LAST_WORDS, _all([connections.abort() for connections in self._connected])
        )

    async def _patiently(self, seconds: float, event: Deferred[Any]) -> None:
        """Wait for an event as long as there is time, and nobody is in a hurry."""
        self._waiting = event
        await self._within(min(seconds, _LAST_WORDS) if self._hurried else seconds, event)
        self._waiting = None

    async def _within(self, seconds: float, event: Deferred[Any]) -> None:
        """Wait for an event, or until that is over or cancelled."""
        with suppress(defer.TimeoutError, CancelledError, FirstError):
            await event.addTimeout(seconds, self._reactor)


def _all(events: Sequence[Deferred[None]]) -> Deferred[Any]:
    return gatherResults(events, consumeErrors=True)


def _new_id() -> str:
    return secrets.token_hex(8)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
