"""
Large and hostile bodies, one after the other, on both ports, while others are watched.

Each is either served or refused with an error that says why; nobody else waits; afterwards the
daemon is as small as before. Then the disk is full, and they are served as well.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from attrs import frozen

from testing.processes import children, cost, free_port, is_helper

_ROOT = Path(__file__).parent.parent.parent
_MIB = 1024 * 1024
# Seconds after which the memory is back, and the share of it that may be missing.
_SETTLE = 10.0
_MISSING = 0.2
# Bytes of bodies that are beyond the limits if they are meant to be.
_FULL_SIZE = 20_000_000


@frozen
class Bomb:
    """
    @ivar make: the body of a given size, for a given model.
    @ivar statuses: of its answers.
    """

    name: str
    make: Callable[[int, str], bytes]
    statuses: tuple[int, ...] = (200,)


def _message(text: bytes, model: str) -> bytes:
    """@param text: the content as JSON."""
    return b'{"model":"%b","messages":[{"role":"user","content":%b}]}' % (model.encode(), text)


def _text(unit: str, ends_with: str = "") -> Callable[[int, str], bytes]:
    """A message of one text, in raw JSON."""
    one, last = unit.encode(), ends_with.encode()

    def make(size: int, model: str) -> bytes:
        return _message(b'"%b%b"' % (one * ((size - 200) // len(one)), last), model)

    return make


def _beside(unit: bytes, around: bytes = b"[]") -> Callable[[int, str], bytes]:
    """Something else in the body, besides a message."""

    def make(size: int, model: str) -> bytes:
        value = around[:1] + unit * ((size - 200) // len(unit)) + unit[:-1] + around[1:]
        return b'%b,"x":%b}' % (_message(b'"Hi"', model)[:-1], value)

    return make


def _messages(size: int, model: str, number: int | None = None) -> bytes:
    one = b'{"role":"user","content":"a"},'
    many = one * (number or (size - 200) // len(one))
    return b'{"model":"%b","messages":[%b]}' % (model.encode(), many[:-1])


def _picture(header: str, unit: str, share: float = 1.0) -> Callable[[int, str], bytes]:
    def make(size: int, model: str) -> bytes:
        url = header + unit * (int(size * share - 300) // len(unit))
        part = b'[{"type":"image_url","image_url":{"url":"%b"}}]' % url.encode()
        return _message(part, model)

    return make


_PNG = "data:image/png;base64,iVBORw0KGgo"
REFUSED = (400,)
BAD = "! "
"""Begins the lines of what should not be."""
BOMBS = (
    Bomb("one text of ASCII", _text("a")),
    Bomb("one text of Cyrillic", _text("\u0436")),
    Bomb("one text of Chinese", _text("\u4e2d")),
    Bomb("ASCII, and one emoji", _text("a", "\U0001f600")),
    Bomb("emoji", _text("\U0001f600")),
    Bomb("line ends", _text("\\n")),
    Bomb("quotation marks", _text('\\"')),
    Bomb("escapes of four digits", _text("\\u4e2d")),
    Bomb("one lone surrogate", _text("a", "\\ud800")),
    Bomb("nothing but lone surrogates", _text("\\ud800")),
    Bomb("arrays", _beside(b"[],"), REFUSED),
    Bomb("arrays and a lone surrogate", _beside(b'[],"\\ud800",'), REFUSED),
    Bomb("objects", _beside(b"{},"), REFUSED),
    Bomb("numbers", _beside(b"1,"), REFUSED),
    Bomb("keys", _beside(b'"k":1,', b"{}"), REFUSED),
    Bomb("levels", _beside(b"[" * 1000 + b"0" + b"]" * 1000 + b","), REFUSED),
    Bomb("messages of a letter", _messages, REFUSED),
    Bomb("20,000 messages of a letter", lambda size, model: _messages(size, model, 20_000)),
    Bomb(
        "a number of 20 digits, and a text",
        _beside(b'123456789012345678901,"' + b"a" * 9999 + b'",'),
    ),
    Bomb("a picture of 20 MB", _picture(_PNG, "AAAA", 0.55), (200, 400)),
    Bomb("a picture of all of it", _picture(_PNG, "AAAA"), (200, 400)),
    Bomb("semicolons for a picture", _picture("data:", ";"), (200, 400)),
    Bomb("percent signs for a picture", _picture("data:text/plain,", "%", 0.5), (200, 400)),
    Bomb("no JSON", lambda size, model: b"{" + b"a" * (size - 200), REFUSED),
)


class Sut:
    """The daemon with its upstreams, and those who watch it."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.port, self.stream_port = free_port(), free_port()
        python = {"PYTHONPATH": str(_ROOT), "PATH": os.environ["PATH"]}
        self._sink = _start(["-m", "testing.trial.sink"], python)
        assert self._sink.stdout is not None
        upstream = f"http://127.0.0.1:{self._sink.stdout.readline().strip()}"
        self.log = folder / "log"
        settings = {
            "PATH": f"{_ROOT}/node_modules/.bin:{os.environ['PATH']}",
            "PYTHONPATH": str(_ROOT),
            "XDG_RUNTIME_DIR": str(folder),
            "GEMINI_API_KEY": "the-key",
            "GOOGLE_GEMINI_BASE_URL": upstream,
            "UPSTREAM_URL": upstream,
            "GEMINI_WORKERS": "1",
            "MAX_RETRIES": "0",
            "PORT": str(self.port),
            "STREAM_PORT": str(self.stream_port),
            "LOG_DIR": str(folder / "journal"),
            "LOG_KEEP": "2",
        }
        with self.log.open("wb") as output:
            twistd = Path(sys.executable).with_name("twistd")
            self.process = subprocess.Popen(
                [sys.executable, str(twistd), "-n", "--pidfile=", "gemproxy"],
                cwd=folder,
                env=settings | environ,
                stdout=output,
                stderr=output,
            )
        self._until_ready()
        self._prober = _start(["-m", "testing.trial.prober", str(self.port)], python)

    def _until_ready(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                if self.ask(self.port, "GET", "/ready")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise RuntimeError(self.log.read_text()[-2000:])

    def ask(self, port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read(2000).decode("utf-8", "replace")
        finally:
            connection.close()

    def longest_wait(self) -> float:
        """The longest that others waited since the last call, in milliseconds."""
        assert self._prober.stdin is not None
        assert self._prober.stdout is not None
        self._prober.stdin.write("?\n")
        self._prober.stdin.flush()
        return float(self._prober.stdout.readline())

    def memory(self) -> float:
        return cost(self.process.pid).memory / _MIB

    def helpers(self) -> float:
        """Memory of the processes that it has for large requests."""
        return sum(cost(pid).memory / _MIB for pid in children(self.process.pid) if is_helper(pid))

    def fill_disk(self, is_full: bool) -> None:
        """Have it fail to write to any file."""
        limit = 0 if is_full else resource.RLIM_INFINITY
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def stop(self) -> None:
        for process in (self._prober, self.process, self._sink):
            process.terminate()
            process.wait(60)


def _start(arguments: list[str], environ: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=dict(environ),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def trial(
    folder: Path, size: int = 48_000_000, limit: float = 100.0, names: str = ""
) -> Iterator[str]:
    """
    Yields a line for each body, and what is wrong, which begins with L{BAD}.

    @param size: of the bodies, in bytes.
    @param limit: the longest that others may wait, in milliseconds, beyond what they do anyway.
    @param names: only bodies whose names contain this.
    """
    sut = Sut(folder, {})
    try:
        for port, model in ((sut.port, "gemini-2.5-flash"), (sut.stream_port, "gpt-x")):
            sut.ask(port, "POST", "/v1/chat/completions", _message(b'"Hi"', model))
        sut.longest_wait()
        time.sleep(2)
        usual = sut.longest_wait()
        before = sut.memory()
        yield f"usual: {usual:.0f} ms, {before:.0f} MiB"
        for bomb in BOMBS:
            if names in bomb.name:
                yield from _drop(sut, bomb, size, max(limit, usual + limit))
        yield from _settle(sut, before)
        sut.fill_disk(True)
        for port, model in ((sut.port, "gemini-2.5-flash"), (sut.stream_port, "gpt-x")):
            body = _text("a")(size // 10, model)
            status, said = sut.ask(port, "POST", "/v1/chat/completions", body)
            yield f"{'' if status == 200 else BAD}full disk, {model}: {status} {said[:100]}"
        sut.fill_disk(False)
        lines = sut.log.read_text(errors="replace").splitlines()
        for number, line in enumerate(lines):
            if "Traceback" in line or "Unhandled" in line:
                yield from (
                    f"{BAD}{shown[:300]}" for shown in lines[max(0, number - 3) : number + 14]
                )
                break
    finally:
        sut.stop()


def _drop(sut: Sut, bomb: Bomb, size: int, limit: float) -> Iterator[str]:
    ports = ((sut.port, "gemini-2.5-flash"), (sut.stream_port, "gpt-x"))
    for port, model in ports:
        body = bomb.make(size, model)
        for is_json in (False, True):
            if is_json:
                body = body[:-1] + b',"stream":true}'
            sut.longest_wait()
            begun = time.monotonic()
            status, said = sut.ask(port, "POST", "/v1/chat/completions", body)
            took = time.monotonic() - begun
            # The journal comes a moment later.
            time.sleep(1.0)
            wait, memory, helpers = sut.longest_wait(), sut.memory(), sut.helpers()
            expected = bomb.statuses if size >= _FULL_SIZE else (200, 400)
            is_fine = status in expected and wait <= limit
            yield (
                f"{'' if is_fine else BAD}{bomb.name} ({len(body) / 1e6:.0f} MB) to {model}: "
                f"{status} after {took:.1f} s; others waited {wait:.0f} ms; "
                f"{memory:.0f} + {helpers:.0f} MiB {'' if status == 200 else _reason(said)}"
            )


def _reason(said: str) -> str:
    try:
        return str(json.loads(said)["error"]["message"])[:100]
    except (ValueError, KeyError, TypeError):
        return repr(said[:100])


def _settle(sut: Sut, before: float) -> Iterator[str]:
    time.sleep(_SETTLE)
    after, helpers = sut.memory(), sut.helpers()
    is_fine = after <= before * (1 + _MISSING) and not helpers
    wrong = "" if is_fine else BAD
    yield f"{wrong}memory after {_SETTLE:.0f} s: {after:.0f} MiB, {before:.0f} before"
