"""The Gemini engine with all that it needs: run directory, gateway, workers."""

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
from gemproxy.gemini.api.endpoint import AIStudio
from gemproxy.gemini.api.forwarder import GoogleForwarder
from gemproxy.gemini.api.keys import KeyRing
from gemproxy.gemini.api.model_list import ModelList
from gemproxy.gemini.attempt import Attempts
from gemproxy.gemini.cli.gateway import Gateway
from gemproxy.gemini.cli.home import WorkerHome
from gemproxy.gemini.cli.install import Cli
from gemproxy.gemini.cli.limits import CliLimits
from gemproxy.gemini.cli.rundir import RunDirectory, roots_for_user
from gemproxy.gemini.cli.sizes import WorkerSizes, worker_sizes
from gemproxy.gemini.cli.versions import Versions
from gemproxy.gemini.cli.worker import Worker
from gemproxy.gemini.cli.worker_pool import PoolLimits, WorkerPool
from gemproxy.gemini.engine import GeminiEngine
from gemproxy.gemini.pictures import PictureFetcher
from gemproxy.gemini.translate.models import BUILT_IN_MODELS
from gemproxy.gemini.translate.parameters import Defaults
from gemproxy.http.proxies import NO_PROXIES, Proxies
from gemproxy.http.transport import PromptEndpoint
from gemproxy.http.url import BaseURL
from gemproxy.http.write_coalescer import WriteCoalescer
from gemproxy.offload.pool import Offload
from gemproxy.util.cgroup import cgroup_limits, memory_limit


def _sizes(wanted: int | None) -> WorkerSizes:
    """@param wanted: the number of workers, if it is set."""
    return worker_sizes(memory_limit(), cgroup_limits().cores, wanted)


class EngineService(MultiService):
    """
    Starts and stops the parts of the engine in their order.

    @ivar engine: the backend.
    @ivar pool: its CLI workers.
    @ivar forwarder: passes on what needs no worker.
    """

    def __init__(
        self,
        config: Config,
        cli: Cli,
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
    ) -> None:
        """
        @param api_url: the base URL of the Gemini API.
        @param key_rest: see L{KeyRing}.
        @param answer_limits: see L{Attempts}.
        @param offload: translates what is large.
        @param proxies: for the pictures that are fetched.
        @raise BadSetting: there is no folder for temporary files.
        """
        super().__init__()
        try:
            next(roots_for_user(environ))
        except OSError as error:
            raise BadSetting(str(error)) from None
        sizes = _sizes(config.gemini_workers)
        cli_limits = evolve(
            cli_limits,
            heap=min(cli_limits.heap, sizes.heap),
            memory_per_worker=min(cli_limits.memory_per_worker, sizes.worn),
        )
        self._run_directory = RunDirectory(lambda: roots_for_user(environ))
        self._workers_made = 0
        api = GeminiApi(reactor, agent, AIStudio(api_url))
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
        self.pool = WorkerPool(reactor, limits, cli_limits, make_worker)
        self.pool.setServiceParent(self)
        # The demo has no list.
        keys = () if config.demo else config.gemini_api_key
        models = ModelList(reactor, api, keys, config.gemini_models)
        models.setServiceParent(self)
        key_ring = KeyRing(reactor, config.gemini_api_key, key_rest)
        self.forwarder = GoogleForwarder(api, key_ring)
        self.engine = GeminiEngine(
            reactor,
            Attempts(reactor, self.pool, gateway, config.timeout, answer_limits),
            key_ring,
            RetryPolicy(
                config.max_retries, config.retry_delay, config.max_retry_wait, random.random
            ),
            models,
            Defaults(config.lenient, config.thoughts, config.gemini_safety),
            TokenCounting(api, key_ring),
            offload,
            PictureFetcher(reactor, proxies=proxies).fetch if config.fetch_images else None,
        )

    def startService(self) -> None:
        self._run_directory.acquire()
        super().startService()

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await super().stopService()
        self._run_directory.release()
