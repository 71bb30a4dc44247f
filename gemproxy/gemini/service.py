"""The Gemini engine with all that it needs, such as the CLI."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.web.iweb import IAgent

from gemproxy.backoff import RetryPolicy
from gemproxy.chat.answer_limits import AnswerLimits
from gemproxy.config import BadSetting, Config
from gemproxy.gemini.api.client import GeminiApi
from gemproxy.gemini.api.counting import TokenCounting
from gemproxy.gemini.api.forwarder import GoogleForwarder
from gemproxy.gemini.api.keys import KeyRing
from gemproxy.gemini.api.model_list import ModelList
from gemproxy.gemini.attempt import Attempts
from gemproxy.gemini.cli.gateway import Gateway
from gemproxy.gemini.cli.home import WorkerHome
from gemproxy.gemini.cli.install import Cli
from gemproxy.gemini.cli.limits import CliLimits
from gemproxy.gemini.cli.sizes import WorkerSizes, worker_sizes
from gemproxy.gemini.cli.versions import Versions
from gemproxy.gemini.cli.worker import Worker
from gemproxy.gemini.cli.worker_pool import PoolLimits, WorkerPool
from gemproxy.gemini.cli_attempts import CliAttempts
from gemproxy.gemini.direct_attempts import DirectAttempts
from gemproxy.gemini.embedding import Embedding
from gemproxy.gemini.engine import GeminiEngine
from gemproxy.gemini.pictures import PictureFetcher
from gemproxy.gemini.places import endpoint_of
from gemproxy.gemini.signature_memory import SignatureMemory
from gemproxy.gemini.translate.models import BUILT_IN_MODELS
from gemproxy.gemini.translate.parameters import Defaults
from gemproxy.http.proxies import NO_PROXIES, Proxies
from gemproxy.http.transport import PromptEndpoint
from gemproxy.http.url import BaseURL
from gemproxy.http.write_coalescer import WriteCoalescer
from gemproxy.offload.pool import Offload
from gemproxy.processes.place import ALONE, Place
from gemproxy.state.news import NO_NEWS, News
from gemproxy.state.shelf import NO_SHELF, Shelf
from gemproxy.util.cgroup import cgroup_limits, memory_limit
from gemproxy.util.rundir import RunDirectory, roots_for_user


def _sizes(wanted: int | None, place: Place) -> WorkerSizes:
    """
    Those of the workers of this process.

    @param wanted: the number of workers of all processes, if it is set.
    """
    sizes = worker_sizes(memory_limit(), cgroup_limits().cores, wanted, place.count)
    return evolve(sizes, workers=place.share(sizes.workers))


class CliService(MultiService):
    """
    The CLI: run directory, gateway and workers, which start and stop in their order.

    @ivar attempts: those that go through it.
    """

    def __init__(
        self,
        config: Config,
        cli: Cli,
        reactor: Any,
        coalescer: WriteCoalescer,
        api: GeminiApi,
        environ: Mapping[str, str],
        cli_limits: CliLimits,
        answer_limits: AnswerLimits,
        place: Place,
    ) -> None:
        """@raise BadSetting: there is no folder for temporary files."""
        super().__init__()
        try:
            next(roots_for_user(environ))
        except OSError as error:
            raise BadSetting(str(error)) from None
        sizes = _sizes(config.gemini_workers, place)
        cli_limits = evolve(
            cli_limits,
            heap=min(cli_limits.heap, sizes.heap),
            memory_per_worker=min(cli_limits.memory_per_worker, sizes.worn),
        )
        self._run_directory = RunDirectory(lambda: roots_for_user(environ))
        self._workers_made = 0
        gateway = Gateway(reactor, PromptEndpoint(reactor, 0, "127.0.0.1", coalescer), api)
        gateway.setServiceParent(self)

        first_model = (config.gemini_models or BUILT_IN_MODELS)[0]

        versions = Versions()

        def make_worker(pool: WorkerPool) -> Worker:
            self._workers_made += 1
            home = WorkerHome(self._run_directory.ensure() / f"worker-{self._workers_made}")
            return Worker(
                reactor, cli, home, first_model, gateway.url, pool, cli_limits, versions.saw
            )

        limits = PoolLimits(sizes.workers, config.gemini_sessions, config.gemini_queue)
        pool = WorkerPool(reactor, limits, cli_limits, make_worker)
        pool.setServiceParent(self)
        self.attempts = CliAttempts(reactor, pool, gateway, config.timeout, answer_limits)

    def startService(self) -> None:
        self._run_directory.acquire()
        super().startService()

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await super().stopService()
        self._run_directory.release()


class EngineService(MultiService):
    """
    Starts and stops the parts of the engine in their order.

    @ivar engine: the backend.
    @ivar pool: its CLI workers; None if it has none.
    @ivar forwarder: passes on what needs no model to speak.
    """

    def __init__(
        self,
        config: Config,
        cli: Cli | None,
        reactor: Any,
        agent: IAgent,
        coalescer: WriteCoalescer,
        api_url: Callable[[], BaseURL],
        environ: Mapping[str, str],
        cli_limits: CliLimits,
        key_rest: float,
        answer_limits: AnswerLimits,
        offload: Offload,
        proxies: Proxies = NO_PROXIES,
        place: Place = ALONE,
        news: News = NO_NEWS,
        signatures: Shelf = NO_SHELF,
    ) -> None:
        """
        @param cli: None if the engine asks Google itself.
        @param api_url: the base URL of the Gemini API.
        @param key_rest: see L{KeyRing}.
        @param answer_limits: see L{CliAttempts}.
        @param offload: translates what is large.
        @param proxies: for the pictures that are fetched.
        @param place: which of several processes this is: they share the workers.
        @param news: see L{KeyRing}.
        @param signatures: see L{SignatureMemory}.
        @raise BadSetting: there is no folder for temporary files, or a file of credentials is none.
        """
        super().__init__()
        if (problem := config.credentials_problem) is not None:
            raise BadSetting(problem)
        api = GeminiApi(reactor, agent, endpoint_of(config, reactor, api_url, agent))
        self.pool: WorkerPool | None = None
        attempts: Attempts = DirectAttempts(reactor, api, config.timeout, answer_limits)
        if cli is not None:
            service = CliService(
                config, cli, reactor, coalescer, api, environ, cli_limits, answer_limits, place
            )
            service.setServiceParent(self)
            attempts, self.pool = service.attempts, service.attempts.pool
        # The demo has no list.
        keys = () if config.demo else config.google_keys
        models = ModelList(reactor, api, keys, config.gemini_models)
        models.setServiceParent(self)
        key_ring = KeyRing(reactor, config.google_keys, key_rest, news=news)
        self.forwarder = GoogleForwarder(api, key_ring)
        policy = RetryPolicy(
            config.max_retries, config.retry_delay, config.max_retry_wait, random.random
        )
        self.engine = GeminiEngine(
            reactor,
            attempts,
            key_ring,
            policy,
            models,
            Defaults(config.lenient, config.thoughts, config.gemini_safety),
            TokenCounting(api, key_ring),
            Embedding(reactor, api, key_ring, policy, config.timeout, offload),
            offload,
            PictureFetcher(reactor, proxies=proxies).fetch if config.fetch_images else None,
            SignatureMemory(config.google_keys, signatures),
        )
