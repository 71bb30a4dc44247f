"""The checks of C{gemproxy doctor}: each finds out a little, and has it judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers

from gemproxy.chat.jsontext import dumps
from gemproxy.config import DEFAULT_UPSTREAM, SETTINGS, Config
from gemproxy.config_file import UpstreamConfig
from gemproxy.demo.server import Demo
from gemproxy.doctor import gather, verdicts
from gemproxy.doctor.examination import Check, examine
from gemproxy.doctor.facts import Asked, Unanswered
from gemproxy.doctor.findings import Finding, skipped
from gemproxy.gemini.api.client import ApiFailed
from gemproxy.gemini.cli.install import CliUnusable, find_executable, node_version, path_of
from gemproxy.gemini.places import endpoint_of
from gemproxy.http.proxies import NO_PROXIES, Proxies
from gemproxy.http.url import BaseURL
from gemproxy.offload.pool import Offload
from gemproxy.openai.backend import base_url
from gemproxy.state.url import StateUrl
from gemproxy.util.masking import Masking
from gemproxy.util.rundir import roots_for_user
from gemproxy.util.threads import Threads

# One for each check that blocks; folders on a network may keep theirs for good.
_THREADS = 16
_MODEL_OF_THE_DEMO = b"/v1beta/models/gemini-demo:countTokens"
_DEFAULT_UPSTREAM_URL = next(one.default for one in SETTINGS if one.env == "UPSTREAM_URL")


class Doctor:
    """Examines what a daemon needs, whether one runs or not."""

    def __init__(
        self,
        reactor: Any,
        config: Callable[[], Config],
        environ: Mapping[str, str],
        wall_clock: Callable[[], float] = time,
    ) -> None:
        """
        @param config: the settings of now.
        @param wall_clock: seconds since the epoch.
        """
        self._reactor = reactor
        self._config = config
        self._environ = environ
        self._inquirer = gather.Inquirer(reactor, wall_clock)
        self._in_thread = Threads(reactor, _THREADS, "doctor").call

    def examine(self) -> Deferred[list[Finding]]:
        """All findings, without a secret in them. It takes seconds at most, and does not fail."""
        config = self._config()
        secrets = [*config.secrets]
        with suppress(ValueError):
            secrets += Proxies.from_environ(self._environ).passwords
        mask = Masking(secrets).in_errors().in_text
        return examine(self._reactor, list(self._checks(config))).addCallback(
            lambda findings: [finding.masked(mask) for finding in findings]
        )

    def _checks(self, config: Config) -> Iterator[Check]:
        yield Check(("node",), partial(self._node, config))
        yield Check(("cli",), partial(self._cli, config))
        yield Check((verdicts.NETWORK, verdicts.KEY, verdicts.CLOCK), partial(self._google, config))
        for upstream in _upstreams(config):
            yield Check((f"upstream {upstream.name}",), partial(self._upstream, config, upstream))
        if config.state_url is not None:
            yield Check((verdicts.STATE,), partial(self._state, config.state_url))
        for setting, number in (("PORT", config.port), ("STREAM_PORT", config.stream_port)):
            if number is not None:
                look = partial(self._port, number, config.host, setting)
                yield Check((f"port {number}",), look)
        for setting, path in (("LOG_DIR", config.log_dir), ("DATA_DIR", config.data_dir)):
            if path is not None:
                yield Check((f"folder {setting}",), partial(self._folder, setting, path))
        if config.needs_cli:
            yield Check(("folder TMPDIR",), self._workers_folder)
        yield Check(("demo",), partial(self._demo, config))

    async def _node(self, config: Config) -> Sequence[Finding]:
        if not config.needs_cli:
            return [skipped("node", _why_no_cli(config))]
        try:
            version = await self._in_thread(node_version, path_of(self._environ), gather.PATIENCE)
        except CliUnusable as error:
            return [verdicts.unusable("node", error)]
        return [verdicts.node_found(version)]

    async def _cli(self, config: Config) -> Sequence[Finding]:
        if not config.needs_cli:
            return [skipped("cli", _why_no_cli(config))]
        path = path_of(self._environ)
        try:
            executable = find_executable(config.gemini_cli, path)
        except CliUnusable as error:
            return [verdicts.unusable("cli", error)]
        version = await self._in_thread(gather.cli_version, executable, path)
        return [verdicts.cli_found(executable, version)]

    async def _google(self, config: Config) -> Sequence[Finding]:
        reason = None if config.needs_engine else _NO_ENGINE
        if config.demo:
            reason = "The demo takes the place of the Gemini API."
        if reason is not None:
            names = (verdicts.NETWORK, verdicts.KEY, verdicts.CLOCK)
            return [skipped(name, reason) for name in names]
        keys = config.google_keys
        proxies, problem = NO_PROXIES, None
        try:
            proxies = Proxies.from_environ(self._environ)
        except ValueError as error:
            problem = error
        agent = self._inquirer.agent(proxies)
        endpoint = endpoint_of(
            config, self._reactor, lambda: BaseURL.parse(config.google_gemini_base_url), agent
        )
        base, shown = endpoint.base, endpoint.base.join(b"/").decode().rstrip("/")
        headers = Headers()
        try:
            for name, value in await endpoint.sign(keys[0]) if keys else ():
                headers.setRawHeaders(name, [value])
        except ApiFailed as lacking:
            return [
                skipped(verdicts.NETWORK, "Nothing can be asked without an access token."),
                verdicts.credentials(lacking.failure.error),
                skipped(verdicts.CLOCK, "No server has told the time."),
            ]
        finally:
            await agent.close()
        proxy = proxies.of(base.origin)
        if problem is not None:
            asked: Asked = _as_unanswered(problem)
        else:
            url = base.join(endpoint.of_list(None))
            asked = await self._inquirer.ask("The Gemini API", url, headers, proxies)
        variable = "GOOGLE_VERTEX_BASE_URL" if config.uses_vertex else "GOOGLE_GEMINI_BASE_URL"
        return [
            verdicts.network(shown, proxy, self._environ, asked, variable),
            verdicts.key(len(keys), asked, endpoint.failure, config.uses_vertex),
            verdicts.clock(asked),
        ]

    async def _upstream(self, config: Config, upstream: UpstreamConfig) -> Sequence[Finding]:
        is_default = upstream.name == DEFAULT_UPSTREAM
        headers = Headers({name: [value] for name, value in upstream.headers})
        if upstream.keys:
            headers.setRawHeaders("authorization", [f"Bearer {upstream.keys[0]}"])
        try:
            if upstream.proxy is not None:
                proxies = Proxies.through(upstream.proxy)
            else:
                proxies = Proxies.from_environ(self._environ)
            url = base_url(upstream.url).join(b"/v1/models")
        except ValueError as error:
            asked = _as_unanswered(error)
        else:
            asked = await self._inquirer.ask(f"{upstream.url}", url, headers, proxies)
        return [
            verdicts.upstream(
                upstream.name,
                upstream.url,
                "FIXED_API_KEY" if is_default else f"key of the upstream '{upstream.name}'",
                len(upstream.keys),
                not is_default or bool(upstream.keys) or upstream.url != _DEFAULT_UPSTREAM_URL,
                asked,
            )
        ]

    async def _state(self, url: StateUrl) -> Sequence[Finding]:
        try:
            from gemproxy.state.server import Server
        except ImportError as error:
            return [verdicts.state_uninstalled(str(error))]
        problem = await Server(self._reactor, url).problem()
        return [verdicts.state(str(url), problem)]

    async def _port(self, number: int | str, host: str, setting: str) -> Sequence[Finding]:
        fact = await self._in_thread(gather.port, number, host)
        return [verdicts.port(number, setting, fact)]

    async def _folder(self, setting: str, path: Path) -> Sequence[Finding]:
        problem = await self._in_thread(gather.folder_problem, path)
        return [verdicts.folder(setting, str(path), problem)]

    async def _workers_folder(self) -> Sequence[Finding]:
        def look() -> tuple[str, str | None]:
            try:
                path = next(roots_for_user(self._environ))
            except OSError as error:
                return "No folder for temporary files", str(error).rstrip(".")
            return str(path), gather.folder_problem(path)

        path, problem = await self._in_thread(look)
        return [verdicts.folder("TMPDIR", path, problem)]

    async def _demo(self, config: Config) -> Sequence[Finding]:
        # It reads in another process what is large, which this is not.
        demo = Demo(self._reactor, Offload(self._reactor))
        demo.startService()
        try:
            asked = await self._inquirer.ask(
                "It",
                f"{demo.url}".encode() + _MODEL_OF_THE_DEMO,
                Headers({"content-type": ["application/json"]}),
                body=dumps({"contents": [{"parts": [{"text": "Hello"}]}]}),
            )
        finally:
            await demo.stopService()
        return [verdicts.demo(config.demo, asked)]


_NO_ENGINE = "GEMINI_PROXY_URL: another gemproxy asks Gemini."
_NO_CLI = "GEMINI_ENGINE: gemproxy asks Gemini itself."


def _why_no_cli(config: Config) -> str:
    return _NO_CLI if config.needs_engine else _NO_ENGINE


def _upstreams(config: Config) -> Sequence[UpstreamConfig]:
    """Those that are asked, another gemproxy among them."""
    if config.stream_port is None:
        return ()
    others = config.upstreams
    if config.gemini_proxy_url is not None:
        others = (UpstreamConfig("gemproxy", config.gemini_proxy_url), *others)
    return others


def _as_unanswered(error: ValueError) -> Asked:
    """What the settings of proxies say is what cannot be asked."""
    return Unanswered(str(error))
