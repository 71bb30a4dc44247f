"""Those that are compared, each a process of its own in front of the fake upstream."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from attrs import define, field, frozen

from bench.load import CLIENT_KEY, Target
from testing.processes import Running, free_port

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache" / "bench"
LITELLM_VERSION = "1.106.2"


class Unavailable(Exception):
    """A contender cannot be run here; the message says why."""


@frozen
class Limits:
    """
    What is not worth trying, because it takes hours or breaks down.

    @ivar streams: side by side at most.
    @ivar answers: small ones in one round.
    @ivar megabytes: of the large answer.
    """

    streams: int = 10_000
    answers: int = 600
    megabytes: int = 20


@define(eq=False)
class Contender:
    """
    @ivar start: runs it in a folder, in front of an upstream's port; returns its process and port.
    @ivar is_proxy: not the upstream itself.
    """

    name: str
    start: Callable[[Path, int], tuple[Running, int]]
    limits: Limits = Limits()
    is_proxy: bool = True
    running: Running | None = None
    target: Target = field(default=Target(0))

    def run(self, folder: Path, upstream: int) -> None:
        """@raise Unavailable: it is not there."""
        self.running, port = self.start(folder / self.name, upstream)
        self.running.until_listening(port)
        self.target = Target(port)

    def stop(self) -> None:
        if self.running is not None:
            self.running.stop()
            self.running = None

    @property
    def process(self) -> Running:
        assert self.running is not None
        return self.running


def start_upstream(folder: Path) -> tuple[Running, int]:
    port = free_port()
    running = Running.start(
        [sys.executable, "-m", "bench.upstream", str(port)],
        folder,
        {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
    )
    running.until_listening(port)
    return running, port


def gemproxy_environment(folder: Path) -> dict[str, str]:
    """What our daemon runs in: its defaults, and places of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": f"{ROOT / 'node_modules' / '.bin'}:{os.environ['PATH']}",
        "XDG_RUNTIME_DIR": str(folder),
        "GEMINI_API_KEY": "key-of-the-bench",
    }


def start_gemproxy(folder: Path, environ: dict[str, str], **options: object) -> Running:
    twistd = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "gemproxy"]
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return Running.start([*twistd, *given], folder, environ)


def _gemproxy(folder: Path, upstream: int) -> tuple[Running, int]:
    port = free_port()
    running = start_gemproxy(
        folder,
        gemproxy_environment(folder),
        port=free_port(),
        stream_port=port,
        upstream_url=f"http://127.0.0.1:{upstream}",
        # Nothing is asked of Gemini here, but its worker is there as it always is.
        google_gemini_base_url="http://127.0.0.1:9",
    )
    return running, port


_NGINX = """\
daemon off; master_process off; worker_rlimit_nofile 20000;
pid nginx.pid; error_log stderr error;
events {{ worker_connections 16384; }}
http {{
  access_log off; client_max_body_size 50m; keepalive_requests 1000000;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  upstream api {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
"""


def _nginx(folder: Path, upstream: int) -> tuple[Running, int]:
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if nginx is None:
        raise Unavailable("nginx is not installed")
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nginx.conf").write_text(_NGINX.format(upstream=upstream, port=port))
    return Running.start([nginx, "-p", str(folder), "-c", "nginx.conf"], folder), port


def _least(folder: Path, upstream: int) -> tuple[Running, int]:
    """What the frameworks need that gemproxy is made with."""
    port = free_port()
    command = [sys.executable, "-m", "bench.least_relay", str(port), str(upstream)]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    return Running.start(command, folder, environ), port


_LITELLM = """\
model_list:
  - model_name: "*"
    litellm_params: {{model: "openai/*", api_base: "http://127.0.0.1:{upstream}/v1", api_key: "x"}}
"""


def _litellm(folder: Path, upstream: int) -> tuple[Running, int]:
    port = free_port()
    program = _installed_litellm()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(_LITELLM.format(upstream=upstream))
    environ = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "LITELLM_LOG": "ERROR",
        # It starts without one no more; the clients show it.
        "LITELLM_MASTER_KEY": CLIENT_KEY,
        # Otherwise it fetches its list of prices when it starts.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    arguments = ["--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    return Running.start([str(program), *arguments, "--telemetry", "False"], folder, environ), port


def _installed_litellm() -> Path:
    venv = CACHE / f"litellm-{LITELLM_VERSION}"
    program = venv / "bin" / "litellm"
    ready = venv / "installed"
    if not ready.exists():
        print(f"installing LiteLLM {LITELLM_VERSION} ...", file=sys.stderr)
        wanted = f"litellm[proxy]=={LITELLM_VERSION}"
        try:
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
            subprocess.run([str(venv / "bin" / "pip"), "install", "-q", wanted], check=True)
        except subprocess.CalledProcessError as error:
            raise Unavailable(f"LiteLLM cannot be installed: {error}") from None
        ready.touch()
    return program


def all_contenders() -> list[Contender]:
    return [
        Contender("gemproxy", _gemproxy),
        Contender("nginx", _nginx),
        Contender("least Klein", _least, Limits(streams=1000)),
        Contender("LiteLLM", _litellm, Limits(streams=200, answers=40, megabytes=2)),
    ]
