"""What the Gemini route costs, with the real CLI, beside one CLI process for each request."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from time import monotonic, sleep

from attrs import define

from bench.answers import Spec, WrongAnswer
from bench.api import words
from bench.contenders import ROOT, gemproxy_environment, start_gemproxy
from bench.load import Received, connections
from bench.numbers import Measures, percentile
from testing.processes import Cost, Running, children, cost, cost_of_children, free_port

MODEL = "gemini-3.8-flash"
MARKER = b"#000000"
_SHORT = Spec(5, 0, 0)
# As long as an answer of a few hundred tokens takes.
LONG = Spec(80, 0, 50)
_CLI = ROOT / "node_modules" / ".bin" / "gemini"
_CLI_RUNS = 3


@define(eq=False)
class Route:
    """The daemon and the API behind it."""

    daemon: Running
    api: Running
    port: int
    api_port: int

    def costs(self) -> tuple[Cost, Cost]:
        """The daemon's, and its CLI processes'."""
        return cost(self.daemon.pid), cost_of_children(self.daemon.pid)

    def bytes_sent(self) -> list[int]:
        """The size of each request that the API has had."""
        return [int(line) for line in self.api.log.read_text().split() if line.isdigit()]


@contextmanager
def running_api(folder: Path) -> Iterator[tuple[Running, int]]:
    """The API, and its port."""
    port = free_port()
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    api = Running.start([sys.executable, "-m", "bench.api", str(port)], folder, environ)
    try:
        api.until_listening(port)
        yield api, port
    finally:
        api.stop()


@contextmanager
def running(folder: Path, root: Path = ROOT, **options: str) -> Iterator[Route]:
    """
    A daemon that has just begun to listen, in front of the API.

    @param root: the folder with its code.
    @param options: of twistd.
    """
    with running_api(folder / "api") as (api, api_port):
        port = free_port()
        environ = gemproxy_environment(folder / "daemon") | {"PYTHONPATH": str(root)}
        daemon = start_gemproxy(
            folder / "daemon",
            environ,
            port=port,
            stream_port="off",
            google_gemini_base_url=f"http://127.0.0.1:{api_port}",
            **options,
        )
        try:
            daemon.until_listening(port)
            yield Route(daemon, api, port, api_port)
        finally:
            daemon.stop()


def until_ready(port: int) -> None:
    end = monotonic() + 60
    while monotonic() < end:
        with suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5)
            return
        sleep(0.05)
    raise RuntimeError("no worker became warm")


def _post(path: str, body: object) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"x-goog-api-key: key\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def of_api(spec: Spec) -> bytes:
    path = f"/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
    return _post(path, {"contents": [{"role": "user", "parts": [{"text": spec.model}]}]})


def of_daemon(spec: Spec, **fields: object) -> bytes:
    message = {"role": "user", "content": spec.model}
    body = {"model": MODEL, "stream": True, "messages": [message]} | fields
    return _post("/v1/chat/completions", body)


def check(answer: Received, spec: Spec, of_daemon: bool) -> None:
    texts = []
    for line in answer.body().replace(b"\r", b"").split(b"\n"):
        if line.startswith(b"data: {"):
            chunk = json.loads(line[6:])
            if of_daemon:
                texts += [c["delta"].get("content") or "" for c in chunk.get("choices") or ()]
            else:
                parts = chunk["candidates"][0].get("content", {}).get("parts", ())
                texts += [part.get("text", "") for part in parts]
    if texts and "".join(texts) != "".join(words(spec)):
        raise WrongAnswer(f"another text: {''.join(texts)[:200]!r}")
    if not texts or (of_daemon and not answer.raw.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")):
        raise WrongAnswer(f"no answer: {answer.raw[-300:]!r}")


async def ask(
    port: int, requests: Callable[[], bytes], spec: Spec, clients: int, times: int, of_daemon: bool
) -> list[float]:
    """Seconds to the first content, of clients that each ask again when they are answered."""
    spread = spec.chunks * spec.pace / 1000
    opened = await connections(port, clients)
    firsts: list[float] = []

    async def ask(number: int) -> None:
        await asyncio.sleep(spread * number / clients)
        for _ in range(times):
            answer = await opened[number].ask(requests(), MARKER)
            check(answer, spec, of_daemon)
            assert answer.first is not None
            firsts.append(answer.first - answer.asked)

    await asyncio.gather(*(ask(number) for number in range(clients)))
    for client in opened:
        client.close()
    return sorted(firsts)


async def _added(route: Route, spec: Spec, clients: int, times: int, name: str) -> Measures:
    """First content over the API's own, and CPU for each request."""
    own = await ask(route.api_port, lambda: of_api(spec), spec, clients, times, False)
    daemon, cli = route.costs()
    begun = monotonic()
    firsts = await ask(route.port, lambda: of_daemon(spec), spec, clients, times, True)
    seconds = monotonic() - begun
    daemon_after, cli_after = route.costs()
    base = median(own)
    count = clients * times
    return {
        f"{name}_ms": (median(firsts) - base) * 1000,
        f"{name}_p99_ms": ((percentile(firsts, 99) or 0.0) - base) * 1000,
        f"{name}_requests_s": count / seconds,
        f"{name}_daemon_cpu_ms": (daemon_after.cpu - daemon.cpu) / count * 1000,
        f"{name}_cli_cpu_ms": (cli_after.cpu - cli.cpu) / count * 1000,
    }


async def _unusual(route: Route) -> Measures:
    """Each request with generation settings that none had before."""
    number = 0

    def request() -> bytes:
        nonlocal number
        number += 1
        settings = {"temperature": number / 100, "top_p": 0.5, "seed": number, "stop": ["END"]}
        return of_daemon(_SHORT, **settings)

    usual = await ask(route.port, lambda: of_daemon(_SHORT), _SHORT, 1, 15, True)
    unusual = await ask(route.port, request, _SHORT, 1, 15, True)
    return {"unusual_settings_ms": (median(unusual) - median(usual)) * 1000}


async def measure(folder: Path) -> Measures:
    """One round with our daemon, from a fresh start."""
    with running(folder) as route:
        await asyncio.to_thread(until_ready, route.port)
        await ask(route.port, lambda: of_daemon(_SHORT), _SHORT, 1, 5, True)
        sent = len(route.bytes_sent())
        measures = await _added(route, _SHORT, 1, 25, "one_client")
        # The first half of these were the API's own.
        measures["api_bytes"] = median(route.bytes_sent()[sent + 25 :])
        measures |= await _unusual(route)
        # As many workers as it takes are started by those who wait for them.
        await ask(route.port, lambda: of_daemon(_SHORT), _SHORT, 40, 2, True)
        measures |= await _added(route, LONG, 10, 2, "ten_clients")
        measures |= await _added(route, LONG, 40, 3, "forty_clients")
        measures |= await _added(route, _SHORT, 40, 5, "forty_at_once")
        daemon, cli = route.costs()
        workers = len(children(route.daemon.pid))
        measures |= {
            "workers": workers,
            "worker_mb": cli.memory / workers / 1e6,
            "daemon_mb": daemon.memory / 1e6,
        }
    return measures


# One process for each request:


async def measure_processes(folder: Path) -> Measures:
    """What everybody does first: the command line, once for each request."""
    with running(folder) as route:
        await asyncio.to_thread(until_ready, route.port)
        home = folder / "home"
        (home / ".gemini").mkdir(parents=True, exist_ok=True)
        settings = {"security": {"auth": {"selectedType": "gemini-api-key"}}}
        (home / ".gemini" / "settings.json").write_text(json.dumps(settings))
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "GEMINI_CLI_HOME": str(home),
            "GEMINI_API_KEY": "key",
            "GOOGLE_GEMINI_BASE_URL": f"http://127.0.0.1:{route.api_port}",
            "GEMINI_CLI_TRUST_WORKSPACE": "true",
        }
        own = await ask(route.api_port, lambda: of_api(_SHORT), _SHORT, 1, 10, False)
        sent = len(route.bytes_sent())
        runs = [await asyncio.to_thread(_run, environ, home) for _ in range(_CLI_RUNS)]
        firsts = [first for first, _ in runs]
        return {
            "one_client_ms": (median(firsts) - median(own)) * 1000,
            "one_client_cli_cpu_ms": median(cpu for _, cpu in runs) * 1000,
            "one_client_requests_s": 1 / median(firsts),
            "api_bytes": sum(route.bytes_sent()[sent:]) / _CLI_RUNS,
        }


def _run(environ: dict[str, str], home: Path) -> tuple[float, float]:
    """Seconds to the first content, and of CPU."""
    command: Sequence[str] = [
        *(str(_CLI), "-m", MODEL, "-p", _SHORT.model, "--output-format", "stream-json")
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = monotonic()
    first, output = None, b""
    with subprocess.Popen(
        command,
        env=environ,
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        while piece := os.read(process.stdout.fileno(), 65536):
            output += piece
            if first is None and MARKER in output:
                first = monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if first is None or process.returncode:
        raise WrongAnswer(f"the CLI ended with {process.returncode}: {output[-500:]!r}")
    return first, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
