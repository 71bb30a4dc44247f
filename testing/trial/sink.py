"""
Both upstreams for large requests: takes what comes, and answers a word.

A process of its own: C{python -m testing.trial.sink}. It prints its port.
"""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PIECE = 1 << 20
_GOOGLE = (
    b'data: {"candidates":[{"content":{"role":"model","parts":[{"text":"Fine"}]},'
    b'"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":1}}\n\n'
)
_NEW_API = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":'
    b'0,"delta":{"role":"assistant","content":"Fine"},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(b"application/json", b'{"models":[],"data":[]}')

    def do_POST(self) -> None:
        left = int(self.headers.get("content-length", 0))
        while left and (piece := self.rfile.read(min(left, _PIECE))):
            left -= len(piece)
        is_google = "GenerateContent" in self.path
        self._answer(b"text/event-stream", _GOOGLE if is_google else _NEW_API)

    def _answer(self, content_type: bytes, body: bytes) -> None:
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (content_type, len(body), body)
        )

    def log_message(self, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, *args: Any) -> None:
        """A daemon may close a connection whenever it likes."""


def main() -> None:
    server = _Server(("127.0.0.1", 0), _Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
