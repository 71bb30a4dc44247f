"""
Clients and an upstream that take next to no CPU: wrk asks, and nginx answers from files.

Where one machine runs both sides, what these take the daemons lack. Our own, in Python, take
more than a daemon does; these take a twentieth of that.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import orjson
from attrs import frozen

from bench.answers import Spec
from bench.contenders import Unavailable
from bench.load import HISTORY, without_http_chunks
from testing.google.responses import SSE
from testing.processes import Running, free_port

SCRIPT = Path(__file__).with_name("post.lua")
GEMINI_MODEL = "gemini-3.8-flash"


@frozen
class Load:
    """
    @ivar answer: the name of the answer that the upstream gives.
    @ivar chunks: how many that has.
    @ivar worth: what an answer counts for in a rate.
    """

    answer: str
    stream: bool = True
    connections: int = 32
    chunks: int = 20
    model: str = "bench"
    worth: int = 1

    @property
    def body(self) -> str:
        return json.dumps({"model": self.model, "messages": HISTORY, "stream": self.stream})

    @property
    def key(self) -> str:
        """The upstream's, which finds the answer by it."""
        return f"sk-{self.answer}"

    def request(self, port: int) -> bytes:
        """Head and body, for clients of our own."""
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{port}\r\n"
            "Content-Type: application/json\r\n"
            f"Authorization: Bearer {self.key}\r\n"
            f"Content-Length: {len(self.body)}\r\n\r\n"
        )
        return (head + self.body).encode()


@frozen
class Answered:
    """
    What came of a load.

    @ivar failed: without a connection, with another status than 200, cut, or, where it was
        looked at, with another text.
    @ivar client_cpu: seconds.
    """

    answers: int
    seconds: float
    failed: int
    client_cpu: float


def found(program: str) -> str:
    """@raise Unavailable: it is not installed."""
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if path is None:
        raise Unavailable(f"{program} is not installed (apt-get install nginx wrk)")
    return path


def command(load: Load, port: int, seconds: int, expected: str | None = None) -> Sequence[str]:
    """@param expected: what is looked for in each answer."""
    return (
        *(found("wrk"), "--threads=1", f"--connections={load.connections}"),
        *(f"--duration={seconds}s", "--timeout=30s", f"--script={SCRIPT}"),
        *(f"http://127.0.0.1:{port}/v1/chat/completions", "--", load.key, load.body),
        *([] if expected is None else [expected]),
    )


def run(load: Load, port: int, seconds: int, expected: str | None = None) -> Answered:
    """
    Ask for so long.

    @param expected: see L{command}.
    """
    before = client_cpu()
    wrk = subprocess.run(
        command(load, port, seconds, expected), capture_output=True, text=True, check=True
    )
    known = json.loads(wrk.stdout.splitlines()[-1])
    return Answered(**known, client_cpu=client_cpu() - before)


def client_cpu() -> float:
    """Seconds that all wrks have taken that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


_NGINX = """\
daemon off; master_process off; worker_rlimit_nofile 20000;
pid nginx.pid; error_log stderr error;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000; default_type text/event-stream;
  sendfile on; tcp_nopush on; etag off;
  open_file_cache max=10 inactive=1h; open_file_cache_valid 1h;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  map $http_authorization $answer {{ ~^Bearer.sk-(?<name>[a-z]+)$ $name; }}
  # Bytes a second; 0: as fast as they go.
  map $answer $pace {{ held 4k; default 0; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    # A file answers GET alone: the redirection makes one of the POST.
    location = /v1/chat/completions {{ error_page 405 =200 /answers/$answer; return 405; }}
    location ~ ^/v1beta/models/.+: {{ error_page 405 =200 /answers/gemini; return 405; }}
    location /answers/ {{ internal; root {folder}; limit_rate $pace; }}
    location / {{ return 404; }}
  }}
}}
"""


def start_nginx(folder: Path, loads: Sequence[Load]) -> tuple[Running, int]:
    """
    The upstream of all loads, and Google's API.

    @raise Unavailable: nginx is not installed.
    """
    nginx = found("nginx")
    answers = folder / "answers"
    answers.mkdir(parents=True)
    for load in loads:
        written = _of_gemini if load.answer == "gemini" else _of_openai
        (answers / load.answer).write_bytes(written(load.chunks))
    port = free_port()
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=port))
    running = Running.start([nginx, "-p", str(folder), "-c", "nginx.conf"], folder)
    running.until_listening(port)
    return running, port


def _of_openai(chunks: int) -> bytes:
    spec = Spec(chunks)
    events = b"".join(spec.template() % (0.0, number) for number in range(chunks))
    return without_http_chunks(events + spec.end(False))


def _of_gemini(chunks: int) -> bytes:
    usage = {"promptTokenCount": 9, "candidatesTokenCount": chunks, "totalTokenCount": 9 + chunks}
    documents = []
    for number in range(chunks):
        content = {
            "role": "model",
            "parts": [{"text": f"#{number:06d} the quick brown fox jumps over; "}],
        }
        candidate = {"content": content, "index": 0}
        if number == chunks - 1:
            candidate["finishReason"] = "STOP"
        document = {"candidates": [candidate], "modelVersion": GEMINI_MODEL, "usageMetadata": usage}
        documents.append(SSE.document(number, orjson.dumps(document)))
    return b"".join(documents) + SSE.end(chunks)
