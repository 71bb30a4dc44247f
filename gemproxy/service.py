"""The wiring: a Config in, a service with everything in its place out."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import evolve, fields_dict, frozen
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.task import deferLater
from twisted.web.iweb import IAgent

from gemproxy import __version__
from gemproxy.accounts.account import accounts_of_keys
from gemproxy.accounts.directory import Directory
from gemproxy.accounts.file import FILE as ACCOUNTS_FILE
from gemproxy.accounts.file import KEY_PREFIX, AccountsFile
from gemproxy.accounts.known_keys import KnownKeys, key_digest
from gemproxy.backend import Backend, Embedder, Forwarder
from gemproxy.backoff import RetryPolicy
from gemproxy.chat.answer_limits import AnswerLimits
from gemproxy.chat.errors import INVALID_REQUEST, ChatError
from gemproxy.chat.json_limits import JsonLimits
from gemproxy.config import DEFAULT_UPSTREAM, BadSetting, Config
from gemproxy.config_file import UpstreamConfig
from gemproxy.database import Database
from gemproxy.demo.server import Demo
from gemproxy.dialects.seal import Seal
from gemproxy.doctor.checks import Doctor
from gemproxy.gemini.api.keys import REST, KeyRing
from gemproxy.gemini.cli.install import Cli
from gemproxy.gemini.cli.limits import CliLimits
from gemproxy.gemini.cli.worker_pool import MemberState, WorkerPool
from gemproxy.gemini.engine import GeminiEngine
from gemproxy.gemini.service import EngineService
from gemproxy.http.agent import PersistentAgent, endpoints
from gemproxy.http.client_connections import Connections
from gemproxy.http.confined import ConfinedAgent
from gemproxy.http.connection import UNACKNOWLEDGED
from gemproxy.http.connection_limits import ConnectionLimiter, response_of
from gemproxy.http.listening import Address, PortService
from gemproxy.http.loops import LoopMark
from gemproxy.http.proxies import Proxies
from gemproxy.http.reactor_turns import TurnService
from gemproxy.http.url import BaseURL
from gemproxy.http.write_coalescer import WriteCoalescer
from gemproxy.journal import DiskJournal, Journal, NoJournal
from gemproxy.journal_reader import JournalReader
from gemproxy.metrics import Joining, Metrics
from gemproxy.offload.pool import Offload, OffloadLimits
from gemproxy.openai.backend import FINISH_PATIENCE, MODELS_TIMEOUT, OpenAIBackend, base_url
from gemproxy.openai.conversion import ConversionMemory, Convert
from gemproxy.openai.headers import NO_OWN_KEYS, OwnKeys
from gemproxy.processes.balance import Balance
from gemproxy.processes.place import ALONE, Place
from gemproxy.routing.router import Router
from gemproxy.routing.table import GEMINI, RoutingTable
from gemproxy.settings_shown import shown_settings
from gemproxy.shutdown import LAST_WORDS, Drain
from gemproxy.siblings.asking import Siblings
from gemproxy.siblings.shared_metrics import SharedMetrics
from gemproxy.siblings.shared_times import SharedTimes
from gemproxy.state.facts import Facts
from gemproxy.state.news import NO_NEWS, News
from gemproxy.state.shared import SharedState
from gemproxy.state.shared_news import SharedNews
from gemproxy.state.shelf import NO_SHELF, SharedShelf
from gemproxy.tracing.tracer import NO_TRACER, Tracer, endpoint_in
from gemproxy.usage import tables
from gemproxy.usage.meter import Meter
from gemproxy.usage.prices import Prices
from gemproxy.usage.recorder import FILE, NoUsage, Recorder
from gemproxy.usage.report import Question
from gemproxy.util.cgroup import memory_limit
from gemproxy.util.cipher import Cipher
from gemproxy.util.digests import digest_of
from gemproxy.util.log import log_details, make_logger, mask_log
from gemproxy.util.log_limit import LogLimit
from gemproxy.util.masking import Masking
from gemproxy.util.threads import Threads
from gemproxy.util.turns import BOUNDS, SLOW, Turns
from gemproxy.web.access import Access
from gemproxy.web.admin import Admin
from gemproxy.web.admin_checks import checks_endpoint
from gemproxy.web.admin_journal import AdminJournal
from gemproxy.web.admin_keys import AdminKeys
from gemproxy.web.admin_routes import AdminRoutes
from gemproxy.web.admin_sessions import AdminSessions
from gemproxy.web.admin_settings import settings_endpoint
from gemproxy.web.admin_usage import AdminUsage
from gemproxy.web.admission import Admission, Limits
from gemproxy.web.chat import ChatService
from gemproxy.web.dialects import DialectService
from gemproxy.web.embeddings import EmbeddingsService
from gemproxy.web.forwarded import TrustedProxies
from gemproxy.web.gemini_proxy import GeminiProxy
from gemproxy.web.health import Health
from gemproxy.web.kept_responses import MIGRATIONS, KeptResponses
from gemproxy.web.live import Live
from gemproxy.web.passthrough import Destination, Passthrough
from gemproxy.web.reader import BodyReader
from gemproxy.web.relay import Heartbeats
from gemproxy.web.responses_elsewhere import NOWHERE, Elsewhere, SharedResponses
from gemproxy.web.site import make_site
from gemproxy.web.stream_proxy import StreamProxy, is_passed_through
from gemproxy.web.under_way import UnderWay
from gemproxy.web.upload import IsStreamed, never_streamed

_CONNECT_TIMEOUT = 30.0
# Seconds after which a connection at which nothing is asked is closed when the ports were left.
_IDLE = 2.0
# Turns of the reactor: to end the present one, to accept a connection, and to read its request.
_TURNS_TO_READ = 3
# Of the memory, for the bodies of requests. They may be there twice: as they came, and as they are
# sent.
_BODIES_SHARE = 8
# Fields of the Config that take effect at once when they have changed.
_RELOADED = ("upstreams", "routes", "prices")
# Bytes of memory with which two large requests are worked on at a time. Each may take 300 MB.
_ROOM_FOR_TWO = 1 << 30


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

    @ivar pool: the CLI workers; None where there are none.
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
        read_config: Callable[[], Config] | None = None,
        advice: Sequence[str] = (),
        place: Place = ALONE,
    ) -> None:
        """
        @param cli: the Gemini CLI; None only where the config does not need it.
        @param read_config: reads the configuration anew; raises BadSetting.
        @param advice: what to warn of at the start.
        @param place: which of several processes this is, if it is.
        @raise BadSetting: a port cannot be listened at, a proxy's address is invalid, or there is
            no folder for temporary files.
        """
        super().__init__()
        log_details(config.debug)
        self._config = config
        self._read_config = read_config or (lambda: config)
        self._advice = advice
        self._place = place
        self._balance = Balance(place)
        self._router: Router | None = None
        self._patience = patience
        self._reactor = reactor
        self._coalescer = WriteCoalescer()
        try:
            self._proxies = Proxies.from_environ(environ)
        except ValueError as error:
            raise BadSetting(str(error)) from None
        self._masking = Masking([*config.secrets, *self._proxies.passwords])
        mask_log(self._masking)
        self._agents: dict[str, PersistentAgent] = {}
        self._agent = self._make_agent(self._proxies)
        self._limits = AnswerLimits(
            config.max_answer, config.max_answer_parts, config.max_answer_calls
        )
        self._mark = _mark_of(place)
        self._siblings = Siblings(reactor, place)
        self._siblings.setServiceParent(self)
        self._metrics = Metrics(__version__)
        shared_metrics = SharedMetrics(self._metrics, self._siblings)
        shared_metrics.setServiceParent(self)
        self._offload = Offload(reactor, OffloadLimits(_offload_processes(place)))
        self._offload.setServiceParent(self)
        self._reader = BodyReader(
            self._offload,
            JsonLimits(
                config.max_depth, config.max_containers, config.max_values, config.max_messages
            ),
        )
        self._journal = self._add_journal()
        self._log_limit = LogLimit(reactor, self._tell_of_lines)
        self._seal = Seal.of_keys(config.secrets, place.derived("seal"))
        self._state = self._add_state()
        self._news = self._add_news()
        self._facts = Facts(reactor, self._news)
        self._kept_responses = self._add_kept_responses()
        self._accounts_file = AccountsFile(config.data_dir / ACCOUNTS_FILE)
        self._accounts = self._add_accounts()
        self._under_way = UnderWay()
        self._recorder: Recorder | None = None
        self._meter = self._add_meter()
        self._tracer = self._add_tracer(environ)
        self._ports: list[PortService] = []
        self._connections: list[Connections] = []
        self._addresses = {name: Address(port, config.host) for name, port in config.ports.items()}
        proxies = TrustedProxies.parse(config.trusted_proxies)
        self._turns = Turns(self._tell_of_turn)
        self._limiter = ConnectionLimiter(
            reactor,
            config.max_connections,
            config.client_connections,
            proxies.trusts,
            self._metrics.connection_refused,
            changed=self._balance.tell,
        )
        admin_keys = KnownKeys(
            {} if config.admin_key is None else {key_digest(config.admin_key): True}
        )
        self._admission = Admission(
            reactor,
            Access(
                lambda: self._accounts.are_needed,
                config.cors_origins,
                config.allowed_hosts,
                config.metrics_open,
            ),
            Limits(
                config.max_body,
                _most_bodies(config, place),
                config.client_requests,
                patience.headers,
                patience.body,
                patience.linger,
            ),
            self._metrics,
            _new_id,
            proxies,
            self._mark,
            self._masking,
            self._log_limit,
            self._accounts,
            self._meter,
            admin_keys,
        )
        self._drain = Drain(
            reactor,
            self._admission,
            self._connections,
            self._under_way.interrupt_all,
            patience.last_words,
        )
        self.pool: WorkerPool | None = None

        engine: GeminiEngine | None = None
        google: Forwarder | None = None
        if config.needs_engine:
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
                self._limits,
                self._offload,
                self._proxies,
                place,
                self._news,
                NO_SHELF if self._state is None else SharedShelf(self._state, "signature"),
            )
            service.setServiceParent(self)
            if service.pool is not None:
                self._watch_pool(service.pool)
            self.pool = service.pool
            engine, google = service.engine, service.forwarder
        self._watch_requests()
        self._watch_turns()
        self._health = Health(
            shared_metrics.render,
            lambda: self.pool is None or self.pool.warm,
            lambda: self.has_served,
            lambda: {} if engine is None else engine.keys.exhausted(),
            self._resting_upstreams,
            lambda: 0.0 if self.pool is None else self.pool.lacking(),
            lambda: None if self._state is None else self._state.problem,
            siblings=self._siblings,
        )
        keys = [] if engine is None else [engine.keys]
        self._live = Live(
            reactor,
            self._under_way,
            partial(self._surroundings, keys),
            self._masking,
            lambda request: self._admin.refusal(request),
            siblings=self._siblings,
        )
        self._admin = Admin(
            admin_keys,
            lambda: self._accounts.are_needed,
            self._sessions(),
            [
                *AdminRoutes(
                    self._routing_table, self._admin_reload, self._masking, self._siblings
                ).endpoints(),
                *self._live.endpoints(),
                *self._admin_journal().endpoints(),
                *AdminKeys(
                    self._accounts,
                    self._accounts_file,
                    config.admin_key is not None,
                    lambda: self._config.prices.known_currency,
                    siblings=self._siblings,
                ).endpoints(),
                settings_endpoint(__version__, lambda: shown_settings(self._config), self._masking),
                checks_endpoint(Doctor(reactor, lambda: self._config, environ).examine),
                *AdminUsage(self._usage).endpoints(),
            ],
            self._metrics.refused_keys.labels("admin").inc,
        )
        if config.port is not None and engine is not None:
            assert google is not None  # noqa: S101 - for mypy
            chats, passthrough = (
                self._chat_service(()),
                self._passthrough(lambda: Destination(GEMINI, google)),
            )
            dialects = DialectService(chats, self._seal, self._kept_responses)
            proxy = GeminiProxy(
                engine,
                engine,
                self._health,
                self._admin,
                chats,
                dialects,
                self._embeddings_service(engine),
                passthrough,
            )
            self._listen("Gemini Proxy", proxy.app.resource())
        if config.stream_port is not None:
            self._listen("Stream Proxy", self._stream_proxy(engine, google), is_passed_through)

    def _add_state(self) -> SharedState | None:
        url = self._config.state_url
        if url is None:
            return None
        try:
            from gemproxy.state.server import Server
        except ImportError as error:
            raise BadSetting(
                f"STATE_URL needs what is not installed, or too old ({error}): "
                "pip install 'gemproxy[redis]'"
            ) from None
        state = SharedState(self._reactor, Server(self._reactor, url))
        state.setServiceParent(self)
        self._metrics.watch(
            "shared_state_up",
            "Whether the shared state can be asked, 1 or 0",
            lambda: float(not state.is_away),
            Joining.LOWEST,
        )
        return state

    def _add_news(self) -> News:
        if self._state is None:
            return NO_NEWS
        news = SharedNews(self._reactor, self._state)
        news.setServiceParent(self)
        return news

    def _add_accounts(self) -> Directory:
        directory = Directory(
            self._reactor,
            Threads(self._reactor, 1, "accounts").call,
            self._accounts_file,
            accounts_of_keys(self._config.proxy_api_keys),
            self._state,
        )
        directory.setServiceParent(self)
        return directory

    def _make_agent(self, proxies: Proxies, name: str = "") -> PersistentAgent:
        agent = self._agents[name] = PersistentAgent(
            self._reactor,
            self._coalescer,
            endpoints(self._reactor, _CONNECT_TIMEOUT),
            unacknowledged=min(UNACKNOWLEDGED, self._config.timeout / 2),
            proxies=proxies,
        )
        return agent

    def _resting_upstreams(self) -> dict[str, float]:
        upstreams = self._router.upstreams if self._router is not None else ()
        return {one.config.name: left for one in upstreams if (left := one.rest.left()) > 0}

    def _surroundings(self, key_rings: Sequence[KeyRing], time: float) -> dict[str, Any]:
        """
        What pages that watch are told besides the requests.

        @param time: now, in seconds since the epoch.
        """
        return {
            "workers": [] if self.pool is None else self.pool.report(time),
            "keys": [key for ring in key_rings for key in ring.report(time)],
            "upstreams": [] if self._router is None else self._router.report(time),
            "queues": {
                "receiving": len(self._admission.open)
                - len(self._under_way.all)
                - self._live.pages,
                "worker": 0 if self.pool is None else self.pool.queued(),
                "connections": self._open_connections(),
                "body_bytes": self._admission.held,
            },
        }

    def _sessions(self) -> AdminSessions:
        folder = self._place.folder
        ends = None if folder is None else SharedTimes(folder / "sessions")
        return AdminSessions(self._reactor.seconds, ends=ends)

    def _routing_table(self) -> RoutingTable:
        return self._router.table if self._router is not None else RoutingTable((), {})

    def _admin_reload(self) -> list[str]:
        try:
            return self.reload()
        except BadSetting as error:
            raise ChatError(422, INVALID_REQUEST, str(error), "bad_configuration") from None

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
            "body_bytes",
            "Bytes of the bodies of requests that are being received or answered",
            lambda: self._admission.held,
        )
        self._metrics.watch(
            "connections",
            "Connections of clients",
            self._open_connections,
        )
        self._metrics.watch(
            "resting_upstreams",
            "Upstreams that rest because they failed again and again",
            lambda: len(self._resting_upstreams()),
            Joining.HIGHEST,
        )
        self._metrics.watch(
            "timers",
            "Delayed calls of the reactor",
            lambda: len(self._reactor.getDelayedCalls()),
        )

    def _watch_turns(self) -> None:
        turns = self._turns
        service = TurnService(self._reactor, turns)
        if not service.can_measure:
            return
        service.setServiceParent(self)
        self._metrics.watch_histogram(
            "turn_seconds",
            "Seconds of the reactor's turns, for each of which all requests wait",
            BOUNDS,
            lambda: (turns.counts, turns.total),
        )
        self._metrics.watch(
            "longest_turn_seconds",
            "The longest of these turns",
            lambda: turns.longest,
            Joining.HIGHEST,
        )

    def _tell_of_turn(self, seconds: float, place: str) -> None:
        self.log.warn(
            "everything waited {seconds:.2f} s for one turn of the reactor; after {slow:g} s it "
            "was in {place}",
            seconds=seconds,
            slow=SLOW,
            place=place or "native code",
        )

    def _tell_of_lines(self, status: int, number: int) -> None:
        self.log.info(
            "{number} more requests were refused with status {status}; their lines were left out",
            number=number,
            status=status,
        )

    def _watch_pool(self, pool: WorkerPool) -> None:
        self._metrics.watch_counts(
            "worker_deaths",
            "CLI workers that ended without being asked to, by reason",
            "reason",
            lambda: pool.deaths,
        )
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

    def _passthrough(self, upstream: Callable[[], Destination]) -> Passthrough:
        return Passthrough(
            self._reactor,
            upstream,
            self._config.timeout,
            self._metrics,
            self._masking,
            self._under_way,
            self._meter,
        )

    def _stream_proxy(self, engine: GeminiEngine | None, google: Forwarder | None) -> Any:
        config = self._config
        gemini: Backend | None = engine
        names = config.gemini_models
        another: OpenAIBackend | None = None
        if config.gemini_proxy_url is not None:
            gemini = another = self._upstream(config.gemini_proxy_url, None, is_gemproxy=True)
            names = ()
        assert gemini is not None  # noqa: S101 - for mypy
        policy = RetryPolicy(
            config.max_retries, config.retry_delay, config.max_retry_wait, random.random
        )
        router = Router(
            self._reactor,
            gemini,
            names,
            policy,
            self._upstream_backends,
            self._news,
            self._facts,
        )
        router.setServiceParent(self)
        try:
            router.use(config.upstreams, config.routes)
        except ValueError as error:
            raise BadSetting(str(error)) from None
        self._router = router
        passthrough = self._passthrough(partial(_default_of, router))
        chats = self._chat_service(config.stop_tags)
        counter = engine if another is None else None
        embedding = None if counter is None else self._embeddings_service(counter)
        dialects = DialectService(chats, self._seal, self._kept_responses)
        google = another or google
        assert google is not None  # noqa: S101 - for mypy
        proxy = StreamProxy(
            router,
            passthrough,
            self._health,
            self._admin,
            chats,
            dialects,
            google,
            counter,
            embedding,
        )
        return proxy.app.resource()

    def _embeddings_service(self, embedder: Embedder) -> EmbeddingsService:
        return EmbeddingsService(self._reactor, self._reader, embedder, self._meter, GEMINI)

    def _upstream_backends(self, config: UpstreamConfig) -> list[OpenAIBackend]:
        agent = self._agent
        if config.proxy is not None:
            known = self._agents.get(config.proxy)
            agent = known or self._make_agent(Proxies.through(config.proxy), config.proxy)
        headers = tuple((name.encode(), value.encode()) for name, value in config.headers)
        return [
            evolve(
                self._upstream(config.url, key, timeout=config.timeout, agent=agent),
                convert=Convert(config.convert or self._config.convert),
                setting=_name_of_setting(config),
                headers=headers,
                memory=ConversionMemory(
                    self._facts.about(digest_of(config.url, config.proxy or "", key or ""))
                ),
            )
            for key in config.keys or (None,)
        ]

    def reload(self) -> list[str]:
        """
        Read the configuration anew, and use its upstreams, routes and prices from now on.

        @return: the names of the settings that have changed, with those that need a restart.
        @raise BadSetting: it is invalid; nothing has changed.
        """
        config = self._read_config()
        self._masking.learn(config.secrets)
        if self._router is not None:
            try:
                self._router.use(config.upstreams, config.routes)
            except ValueError as error:
                raise BadSetting(str(error)) from None
        changed = sorted(
            name
            for name, field in fields_dict(Config).items()
            if field.eq and getattr(config, name) != getattr(self._config, name)
        )
        self._meter.prices = Prices(config.prices)
        self._config = evolve(self._config, **{name: getattr(config, name) for name in _RELOADED})
        for name in changed:
            if name not in _RELOADED:
                self.log.warn("{name} has changed: restart the daemon", name=name.upper())
        self.log.info("the configuration was read anew; changed: {changed}", changed=changed)
        return changed

    def reload_or_complain(self) -> None:
        """L{reload}, with errors in the log."""
        try:
            self.reload()
        except BadSetting as error:
            self.log.error("the configuration stays as it is: {error}", error=error)

    def _upstream(
        self,
        url: str,
        key: str | None,
        is_gemproxy: bool = False,
        timeout: float | None = None,
        agent: IAgent | None = None,
    ) -> OpenAIBackend:
        base = base_url(url)
        return OpenAIBackend(
            self._reactor,
            ConfinedAgent(agent or self._agent, base.origin),
            base,
            key,
            timeout or self._config.timeout,
            self._offload,
            self._patience.models,
            is_gemproxy,
            Convert.ON if is_gemproxy else Convert(self._config.convert),
            "GEMINI_PROXY_URL" if is_gemproxy else "UPSTREAM_URL",
            self._patience.finish,
            self._mark,
            limits=self._limits,
            # Another gemproxy has the same ones.
            own_keys=NO_OWN_KEYS if is_gemproxy else OwnKeys([*self._config.own_keys, KEY_PREFIX]),
            masking=self._masking,
        )

    def _chat_service(self, stop_tags: Sequence[str]) -> ChatService:
        config = self._config
        heartbeats = Heartbeats(
            config.heartbeat_interval, config.json_heartbeat_delay, config.early_heartbeats
        )
        return ChatService(
            self._reactor,
            heartbeats,
            self._journal,
            self._metrics,
            self._reader,
            self._masking,
            stop_tags,
            self._limits,
            self._log_limit,
            self._under_way,
            self._meter,
            self._tracer,
        )

    def _add_kept_responses(self) -> KeptResponses | None:
        config = self._config
        if not config.responses_keep:
            return None
        database = Database(self._reactor, config.data_dir / "gemproxy.sqlite3", MIGRATIONS)
        database.setServiceParent(self)
        return KeptResponses(database, config.responses_keep, self._responses_elsewhere())

    def _responses_elsewhere(self) -> Elsewhere:
        cipher = Cipher.of_keys(self._config.secrets)
        if self._state is None:
            return NOWHERE
        if cipher is None:
            self.log.warn(
                "responses are kept by each daemon for itself (RESPONSES_KEEP): daemons without "
                "any key have nothing in common by which to encrypt them"
            )
            return NOWHERE
        return SharedResponses(SharedShelf(self._state, "response"), cipher, self._news)

    def _add_tracer(self, environ: Mapping[str, str]) -> Tracer:
        endpoint = endpoint_in(environ)
        if endpoint is None:
            return NO_TRACER
        try:
            from gemproxy.tracing.opentelemetry import OpenTelemetry
        except ImportError as error:
            self.log.warn(
                "{endpoint} gets no traces: OpenTelemetry is not installed, or too old ({error}). "
                "pip install 'gemproxy[otel]'",
                endpoint=endpoint,
                error=error,
            )
            return NO_TRACER
        tracer = OpenTelemetry(self._reactor, endpoint, __version__)
        tracer.setServiceParent(self)
        return tracer

    def _add_meter(self) -> Meter:
        config, meter = self._config, Meter(Prices(self._config.prices))
        meter.charge = self._accounts.charge
        self._metrics.watch_counts_by(
            "tokens",
            "Tokens of all requests; those that were cached are part of the input, and those of "
            "reasoning part of the output",
            ["account", "model", "kind"],
            meter.tokens,
        )
        self._metrics.watch_counts_by(
            "cost", "Costs of all requests", ["account", "model", "currency"], meter.costs
        )
        self._metrics.watch(
            "prices_as_of_seconds",
            "The day on which the prices were read, in seconds since 1970; 0 without prices",
            lambda: meter.prices.as_of_seconds,
            Joining.HIGHEST,
        )
        if config.usage_days:
            database = Database(self._reactor, config.data_dir / FILE, tables.MIGRATIONS)
            dropped = self._metrics.usage_dropped.inc
            in_thread = Threads(self._reactor, 1, "usage").call
            recorder = Recorder(self._reactor, database, in_thread, config.usage_days, dropped)
            recorder.setServiceParent(self)
            self._recorder, meter.keep = recorder, recorder.add
        return meter

    async def _usage(self, question: Question, form: str) -> bytes:
        """See L{Recorder.report}."""
        if self._recorder is None:
            raise NoUsage("No usage is recorded: USAGE_DAYS is 0.")
        return await self._recorder.report(question, self._meter.prices, form)

    def _add_journal(self) -> Journal:
        config = self._config
        if config.log_dir is None:
            return NoJournal(self._reactor)

        journal = DiskJournal(
            self._reactor,
            Threads(self._reactor, 1, "journal").call,
            self._offload,
            config.log_dir,
            config.log_keep,
            self._metrics.journal_dropped.inc,
        )
        journal.setServiceParent(self)
        return journal

    def _admin_journal(self) -> AdminJournal:
        folder = self._config.log_dir
        reader = None if folder is None else JournalReader(folder)
        in_thread = Threads(self._reactor, 1, "journal reader").call
        return AdminJournal(reader, in_thread, self._masking)

    def _api_url(self) -> Callable[[], BaseURL]:
        if not self._config.demo:
            base = BaseURL.parse(self._config.google_gemini_base_url)
            return lambda: base
        demo = Demo(self._reactor, self._offload)
        demo.setServiceParent(self)
        return lambda: BaseURL.parse(demo.url)

    def _listen(
        self,
        name: str,
        resource: Any,
        is_streamed: IsStreamed = never_streamed,
    ) -> None:
        site = make_site(
            resource,
            self._admission,
            self._limiter,
            self._reactor,
            is_streamed,
            self._turns.lasts,
        )
        address = self._addresses[name]
        try:
            endpoint = self._endpoint(name, address)
        except ValueError as error:
            raise BadSetting(f"{name}: cannot listen at {address.port!r}: {error}") from None
        service = PortService(endpoint, site)
        service.setName(name)
        service.setServiceParent(self)
        self._ports.append(service)
        self._connections.append(site.connections)

    def _endpoint(self, name: str, address: Address) -> IStreamServerEndpoint:
        """@raise ValueError: see L{Address.endpoint}."""
        if self._place.is_alone:
            return address.endpoint(self._reactor, self._coalescer, self._overflow)
        descriptor = self._place.ports[name]
        return address.shared(
            self._reactor, descriptor, self._balance.is_for_others, self._coalescer, self._overflow
        )

    def _open_connections(self) -> int:
        return sum(len(connections.open) for connections in self._connections)

    def _overflow(self) -> bytes:
        return response_of(self._limiter.without_descriptor())

    def startService(self) -> None:
        super().startService()
        self.log.info("gemproxy {version} is running", version=__version__)
        if self._place.number == 1:
            self._introduce()

    def _introduce(self) -> None:
        """Tell what is the same for all processes."""
        for name, address in self._addresses.items():
            self.log.info("{name}: {address}", name=name, address=address.shown)
        for scheme, proxy in self._proxies.by_scheme.items():
            self.log.info(
                "Requests to {scheme}:// go through the proxy {proxy}, except to this machine and "
                "the hosts in NO_PROXY",
                scheme=scheme.decode(),
                proxy=proxy,
            )
        if not self._is_local and not self._accounts.are_needed:
            self.log.warn(
                "Other machines can connect to {addresses}, and use this proxy without a key: "
                "set PROXY_API_KEYS, or add an account with 'gemproxy keys add'.",
                addresses=", ".join(address.shown for address in self._addresses.values()),
            )
        for sentence in self._advice:
            self.log.warn("{advice}", advice=sentence)

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    @property
    def has_served(self) -> bool:
        """Whether a request would have been answered without delay, now or before."""
        return self.pool is None or self.pool.was_warm

    async def leave(self) -> None:
        """
        Leave the clients to others: accept no more connections, and end those that there are with
        their next answer, or when they are idle. A daemon that stops would refuse requests.

        @return: when all have gone, or DRAIN is over.
        """
        await self._close_ports()
        self._live.close()
        end = self._reactor.seconds() + self._config.drain
        for connections in self._connections:
            connections.is_leaving = True
        while self._open_connections() and not self._admission.stopping:
            left = end - self._reactor.seconds()
            if left <= 0:
                self._drain.hurry()
                return
            were = [connections.idle() for connections in self._connections]
            await deferLater(self._reactor, min(_IDLE, left))
            for connections, idle in zip(self._connections, were, strict=True):
                connections.close_idle(idle)

    async def _close_ports(self) -> None:
        self._balance.leave()
        ports, self._ports = self._ports, []
        for port in ports:
            await port.disownServiceParent()

    def hurry(self) -> None:
        """Stop without waiting for the requests under way any longer."""
        self._drain.hurry()

    async def _stop(self) -> None:
        await self._take_in()
        self._admission.stopping = self._health.stopping = True
        self._live.close()
        await self._close_ports()
        await self._drain.run(self._config.drain)
        await super().stopService()
        self._log_limit.stop()
        for agent in self._agents.values():
            await agent.close()

    async def _take_in(self) -> None:
        """What has come by now is answered, though it may not be read yet."""
        for _ in range(_TURNS_TO_READ):
            await deferLater(self._reactor, 0)
        for connections in self._connections:
            connections.take_in()


def _default_of(router: Router) -> Destination:
    upstream = router.default
    return Destination(upstream.config.name, upstream.backend())


def _name_of_setting(config: UpstreamConfig) -> str:
    """What the URL of an upstream is set by."""
    return "UPSTREAM_URL" if config.name == DEFAULT_UPSTREAM else f"upstream '{config.name}'"


def _mark_of(place: Place) -> LoopMark:
    id = place.derived("loop") or secrets.token_bytes(8)
    return LoopMark(id[:8].hex().encode())


def _offload_processes(place: Place) -> int:
    memory = memory_limit()
    return 1 if memory is not None and memory // place.count < _ROOM_FOR_TWO else 2


def _most_bodies(config: Config, place: Place) -> int | None:
    """Bytes of the bodies that this process may hold; None for any number."""
    if config.max_bodies is not None:
        # A body that is allowed must find room somewhere.
        return max(place.share(config.max_bodies), min(config.max_bodies, config.max_body))
    memory = memory_limit()
    share = None if memory is None else memory // _BODIES_SHARE // place.count
    return None if share is None else max(config.max_body, share)


def _new_id() -> str:
    return secrets.token_hex(8)
