"""What traces cost a request, with a collector that takes them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench import dialects
from testing.processes import Running


class _Exports(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def collector() -> Iterator[str]:
    """The base URL of what takes traces and forgets them."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Exports) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def start(folder: Path, upstream: int, collector: str | None) -> tuple[Running, int]:
    """A daemon that sends its traces to a collector, or has none; and its port."""
    environ = {} if collector is None else {"OTEL_EXPORTER_OTLP_ENDPOINT": collector}
    return dialects.start(folder, upstream, environ=environ, usage_days=0)
