"""The whole product on loopback: the real daemon, the real CLI, and the stand-in for the API."""

from __future__ import annotations

import gc
import itertools
import json
import os
import re
import socket
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_twisted
from attrs import define, evolve, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from gemproxy.config import Config
from gemproxy.config_file import FileConfig
from gemproxy.gemini.cli.install import find_cli
from gemproxy.gemini.cli.limits import CliLimits
from gemproxy.processes.place import ALONE, Place
from gemproxy.service import Daemon, Patience
from testing.fake_newapi import FakeNewApi
from testing.google.app import StandIn, echo
from testing.google.recorded_request import ReceivedRequest
from testing.google.scenarios import Scenario
from testing.processes import free_port
from tests.twin import Twin

ROOT = Path(__file__).parent.parent
CLI = str(ROOT / "node_modules" / ".bin" / "gemini")
ENGINES = ("direct", "cli")
_T = TypeVar("_T")


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port that takes no connections, and refuses none."""
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(deaf.getsockname())
        yield int(deaf.getsockname()[1])


async def until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> None:
    """Wait for what gives no sign of itself; fails when it takes too long."""
    end = reactor.seconds() + seconds
    while not condition():
        assert reactor.seconds() < end, f"gave up waiting until {what}"
        await deferLater(reactor, 0.01)


def at_once(work: Coroutine[Any, Any, _T]) -> _T:
    """What a coroutine returns or raises that does not wait for anything."""
    try:
        work.send(None)
    except StopIteration as ended:
        return ended.value  # type: ignore[no-any-return]
    work.close()
    raise AssertionError("it waits")


@define
class Reply:
    """An HTTP response, as raw as it came."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]

    @property
    def data(self) -> list[Any]:
        """The data of the events; JSON where it is."""
        texts = [
            event[6:] for event in self.body.decode().split("\n\n") if event.startswith("data: ")
        ]
        return [text if text == "[DONE]" else json.loads(text) for text in texts]

    @property
    def comments(self) -> list[str]:
        return [event for event in self.body.decode().split("\n\n") if event.startswith(":")]

    @property
    def content(self) -> str:
        """The text of the answer, streamed or not."""
        if self.headers.get("content-type", "").startswith("application/json"):
            return self.json["choices"][0]["message"]["content"]
        deltas = [c["choices"][0]["delta"] for c in self.data if c != "[DONE]" and c.get("choices")]
        return "".join(delta.get("content") or "" for delta in deltas)


class Connection(Protocol):
    """One connection to a port under test, which shows every byte and when it came."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.arrivals: list[tuple[float, bytes]] = []
        self.closed = False
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> None:
        content = b"" if body is None else body if isinstance(body, bytes) else encode(body)
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(content)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + content)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.arrivals.append((reactor.seconds(), data))
        self._look()

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.closed = True
        self._look()

    def _look(self) -> None:
        # Whoever is told may look again.
        ready = [waiting for waiting in self._waiting if waiting[0]()]
        self._waiting = [waiting for waiting in self._waiting if waiting not in ready]
        for _, waiter in ready:
            if not waiter.called:
                waiter.callback(None)

    def text_so_far(self) -> str:
        """The text of a streamed answer that is still coming."""
        deltas = re.findall(rb'"delta":(\{.*?\}),"logprobs"', self.received)
        return "".join(json.loads(delta).get("content") or "" for delta in deltas)

    def when(self, condition: Callable[[], bool], seconds: float = 30.0) -> Deferred[None]:
        waiter: Deferred[None] = Deferred()
        waiter.addTimeout(seconds, reactor)
        if condition():
            waiter.callback(None)
        else:
            self._waiting.append((condition, waiter))
        return waiter

    async def until_received(self, text: bytes) -> None:
        await self.when(lambda: text in self.received or self.closed)
        assert text in self.received, self.received

    async def reply(self) -> Reply:
        """The response, when its body has ended as it should."""
        await self.when(lambda: self._complete() is not None or self.closed, 60)
        reply = self._complete()
        assert reply is not None, f"a cut response: {self.received!r}"
        return reply

    def _complete(self) -> Reply | None:
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(self.received[:end])
        status_line, *lines = head.decode("latin-1").split("\r\n")
        _, status, reason = status_line.split(" ", 2)
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body = dechunked(self.received, end + 4)
            if body is None:
                return None
        else:
            length = int(headers.get("content-length", "0"))
            if len(self.received) < end + 4 + length:
                return None
            body = bytes(self.received[end + 4 : end + 4 + length])
        return Reply(int(status), reason, headers, body)

    def drop(self) -> None:
        """Go, as a client does that has lost interest."""
        self.transport.abortConnection()


def encode(body: Any) -> bytes:
    return json.dumps(body).encode()


def dechunked(data: bytes | bytearray, start: int) -> bytes | None:
    """The body that starts there; None if its last chunk is not there yet."""
    if not data.endswith(b"0\r\n\r\n"):
        return None
    pieces = []
    while (end := data.find(b"\r\n", start)) >= 0:
        size = int(data[start:end], 16)
        if not size:
            return b"".join(pieces)
        pieces.append(data[end + 2 : end + 2 + size])
        start = end + 2 + size + 2
    return None


@define
class Client:
    """
    What sends requests to a port.

    @ivar connections: all that were made.
    """

    port: int
    connections: list[Connection] = field(factory=list, kw_only=True)

    async def connect(self, port: int | None = None) -> Connection:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port or self.port)
        connection = await endpoint.connect(Factory.forProtocol(Connection))
        self.connections.append(connection)
        return connection

    async def send(
        self, method: str, path: str, body: Any = None, port: int | None = None, **headers: str
    ) -> Connection:
        connection = await self.connect(port)
        connection.send(method, path, body, **headers)
        return connection

    async def ask(self, body: Any, port: int | None = None, **headers: str) -> Reply:
        """POST a chat completion."""
        connection = await self.send("POST", "/v1/chat/completions", body, port, **headers)
        return await connection.reply()

    async def begin(self, body: Any, **headers: str) -> Connection:
        """POST a chat completion and do not wait for the answer."""
        return await self.send("POST", "/v1/chat/completions", body, **headers)

    async def ask_all(self, bodies: Iterable[Any]) -> list[Reply]:
        """POST chat completions side by side; the replies come in the order of the requests."""
        return await gatherResults([Deferred.fromCoroutine(self.ask(body)) for body in bodies])

    async def get(self, path: str, method: str = "GET") -> Reply:
        return await (await self.send(method, path)).reply()

    def drop_all(self) -> None:
        for connection in self.connections:
            if not connection.closed:
                connection.drop()
        self.connections.clear()


@define
class Product(Client):
    """
    A running daemon, with either engine.

    @ivar api: what it takes for Google.
    @ivar seen: how many requests the API had when the present test began.
    @ivar twin: is asked the same as the Gemini Proxy, by whoever asks alone.
    """

    daemon: Daemon
    api: StandIn
    stream_port: int
    run_root: Path
    seen: int = 0
    twin: Twin | None = None
    _asking: int = 0

    async def ask(self, body: Any, port: int | None = None, **headers: str) -> Reply:
        before, is_alone = len(self.asked), not self._asking
        self._asking += 1
        try:
            reply = await super().ask(body, port, **headers)
        finally:
            self._asking -= 1
        if self.twin is not None and is_alone and not self._asking and port in (None, self.port):
            await self.twin.compare(body, headers, self.asked[before:], reply)
        return reply

    @property
    def both_ports(self) -> list[Callable[[Any], Awaitable[Reply]]]:
        """What asks the Gemini Proxy, and what asks the Stream Proxy."""
        return [partial(self.ask, port=port) for port in (self.port, self.stream_port)]

    @property
    def asked(self) -> list[Any]:
        """
        The requests that the API got in the present test; those for its list of models come when it
        is not known, and do not count.
        """
        # The stand-in keeps the last ones alone: their places are not their numbers.
        return [
            got for got in self.api.requests if got.number >= self.seen and got.method != "list"
        ]

    async def until_asked(self, number: int = 1) -> Any:
        """The API's n-th request of the present test, once it is there."""
        return await self.api.when_request(self.seen + number - 1)

    @property
    def _members(self) -> list[Any]:
        """The CLI workers, if there are any."""
        return [] if self.daemon.pool is None else self.daemon.pool._members

    def worker_pids(self) -> list[int]:
        return [m.worker.pid for m in self._members if m.worker.pid]

    def busy(self) -> int:
        """How many attempts at answers are under way."""
        if self.daemon.pool is None:
            return sum(request.closed is None for request in self.asked)
        return sum(member.leases for member in self._members)

    async def until_idle(self) -> None:
        await until(lambda: not self.busy(), "nothing is being answered")
        await until(
            lambda: not any(member.sessions._opening for member in self._members),
            "no session is being opened",
        )

    def temp_files(self) -> list[Path]:
        """What the CLI left in its temp directories; its errors go there, request and all."""
        return [path for path in self.run_root.glob("*/*/tmp/**/*") if path.is_file()]

    def session_files(self) -> list[Path]:
        return [path for path in self.run_root.glob("*/*/.gemini/tmp/*/chats/*") if path.is_file()]

    def begin_test(self) -> None:
        self.seen = self.api._count
        self.api._plays.clear()

    async def end_test(self) -> None:
        self.drop_all()
        if self.twin is not None:
            self.twin.product.drop_all()
        # Whoever is gone asks for nothing in the next test.
        await until(lambda: not self.daemon._admission.open, "all clients are gone")
        await self.until_idle()


_fresh = itertools.count(1)


def fresh_model() -> str:
    """A name that no test has used: a key is left alone for the models that refused it."""
    return f"gemini-fresh-{next(_fresh)}"


def chat(*messages: str | dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A request; strings are messages of the user and the assistant in turns."""
    roles = ("user", "assistant")
    return {
        "model": "gemini-2.5-flash",
        "messages": [
            {"role": roles[i % 2], "content": m} if isinstance(m, str) else m
            for i, m in enumerate(messages or ("Hello",))
        ],
    } | fields


def gpt(*messages: str | dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A request for a model that is not Gemini's."""
    return chat(*messages, **({"model": "gpt-x"} | fields))


def _echo_at_once(request: ReceivedRequest) -> Scenario:
    """What the demo answers, without its pace."""
    return evolve(echo(request), pace=0.0)


@contextmanager
def no_failures() -> Iterator[None]:
    """Fails if something is logged that no daemon should have to log."""
    logged: list[Any] = []
    globalLogPublisher.addObserver(logged.append)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(logged.append)
    assert_no_failures(logged)


@asynccontextmanager
async def running(run_root: Path, *args: Any, **kwargs: Any) -> AsyncIterator[Product]:
    """A daemon for one test; see L{_running}."""
    with no_failures():
        async with _running(run_root, *args, **kwargs) as product:
            yield product


@asynccontextmanager
async def _running(
    run_root: Path,
    patience: Patience = Patience(),  # noqa: B008
    cli_limits: CliLimits | None = None,
    vertex: bool = False,
    **settings: Any,
) -> AsyncIterator[Product]:
    """
    A daemon with a stand-in of its own; settings by their environment variables.

    @param vertex: whether it takes the stand-in for Vertex AI.
    """
    api = StandIn(reactor, _echo_at_once)
    api_port = reactor.listenTCP(0, api.site(), interface="127.0.0.1")
    os.makedirs(run_root, mode=0o700, exist_ok=True)
    environ = {
        "PATH": os.environ["PATH"],
        "XDG_RUNTIME_DIR": str(run_root),
        "GEMINI_API_KEY": "the-key",
        ("GOOGLE_VERTEX_BASE_URL" if vertex else "GOOGLE_GEMINI_BASE_URL"): (
            f"http://127.0.0.1:{api_port.getHost().port}"
        ),
        "GEMINI_CLI": CLI,
        "PORT": str(free_port()),
        "STREAM_PORT": str(free_port()),
        "RETRY_DELAY": "0.05",
        "DRAIN": "0",
        "GEMINI_WORKERS": "2",
        "LOG_DIR": str(run_root / "logs"),
        "DATA_DIR": str(run_root / "data"),
    } | {name: str(value) for name, value in settings.items()}
    config = Config.load({}, environ)
    cli = find_cli(config.gemini_cli, environ) if config.needs_cli else None
    daemon = Daemon(config, cli, reactor, environ, patience, cli_limits)
    daemon.startService()
    product = Product(
        int(environ["PORT"]), daemon, api, int(environ["STREAM_PORT"]), run_root / "gemproxy"
    )
    try:
        await until(lambda: daemon.pool is None or daemon.pool.warm, "a worker is warm", 60)
        yield product
    finally:
        product.drop_all()
        if daemon.running:
            await daemon.stopService()
        await api_port.stopListening()
        await api.stop()


@define
class Relay(Client):
    """
    A running daemon without an engine: all it does is to relay.

    @ivar upstream: what it takes for New-API.
    """

    daemon: Daemon
    upstream: FakeNewApi
    logged: list[Any] = field(factory=list)

    async def count_of(self, name: str, label: str) -> float:
        """The sum of the metrics of this name with this label."""
        lines = (await self.get("/metrics")).body.decode().splitlines()
        found = [line for line in lines if line.startswith(name + "{") and label in line]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    @property
    def warnings(self) -> list[str]:
        """What was logged, of what matters."""
        return [formatEvent(event) for event in self.logged if event["log_level"] >= LogLevel.warn]


@asynccontextmanager
async def running_relay(
    patience: Patience = Patience(),  # noqa: B008
    file: FileConfig | None = None,
    place: Place = ALONE,
    **settings: Any,
) -> AsyncIterator[Relay]:
    """A Stream Proxy with a New-API of its own; settings by their environment variables."""
    # What is there already is not looked at when garbage is collected, which is then fast.
    gc.freeze()
    upstream = FakeNewApi()
    environ = {
        "GEMINI_PROXY_URL": upstream.url,
        "UPSTREAM_URL": upstream.url,
        "PORT": "off",
        "STREAM_PORT": str(free_port()),
        "MAX_RETRIES": "0",
        "DRAIN": "0",
        "LOG_DIR": "",
        "USAGE_DAYS": "0",
    } | {name: str(value) for name, value in settings.items()}
    config = Config.load({}, environ, file=file)
    daemon = Daemon(config, None, reactor, environ, patience, place=place)
    number = environ["STREAM_PORT"]
    relay = Relay(int(number) if number.isdigit() else 0, daemon, upstream)
    globalLogPublisher.addObserver(relay.logged.append)
    daemon.startService()
    try:
        yield relay
    finally:
        relay.drop_all()
        await daemon.stopService()
        await upstream.stop()
        gc.collect()
        globalLogPublisher.removeObserver(relay.logged.append)
    assert_no_failures(relay.logged)


def assert_no_failures(logged: Iterable[Any]) -> None:
    """Nothing was logged that no daemon should have to log."""
    failures = [
        formatEvent(event)
        for event in logged
        if "log_failure" in event or event["log_level"] is LogLevel.critical
    ]
    assert not failures, "\n".join(failures)


def shared_daemon(
    scope: Any, engines: Sequence[str] = ENGINES, has_twin: bool = False, **settings: Any
) -> Any:
    """
    A fixture for one daemon that many tests share, with each engine: a worker takes a second to
    start.

    A module that names one C{shared_product} has its C{product} run with these settings.

    @param has_twin: whether the daemon with the CLI has a L{Twin}.
    """

    @asynccontextmanager
    async def with_twin(engine: str, make_folder: Callable[[str], Path]) -> AsyncIterator[Product]:
        folder = make_folder("run")
        async with _running(folder, **({"GEMINI_ENGINE": engine} | settings)) as product:
            if engine == "direct" or not has_twin:
                yield product
                return
            folder = make_folder("twin")
            async with _running(folder, **(settings | {"GEMINI_ENGINE": "direct"})) as twin:
                product.twin = Twin(twin)
                yield product

    @pytest.fixture(scope=scope, params=engines)
    def shared_product(
        request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Product]:
        context = with_twin(request.param, tmp_path_factory.mktemp)
        # What is logged in between is for each test to see: not all of them are about this daemon.
        with no_failures():
            shared = pytest_twisted.blockon(Deferred.fromCoroutine(context.__aenter__()))
        yield shared
        with no_failures():
            pytest_twisted.blockon(Deferred.fromCoroutine(context.__aexit__(None, None, None)))

    return shared_product
