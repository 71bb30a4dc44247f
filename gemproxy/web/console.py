"""The console: the files of a web page, which holds no secret and asks everything of /admin."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Any, cast

from attrs import frozen
from klein import Klein
from twisted.web.http import CACHED
from twisted.web.iweb import IRequest

from gemproxy.chat.errors import unknown_url
from gemproxy.web.admission import ProxyRequest

_PAGE = "index.html"
_TYPES = {
    "css": b"text/css; charset=utf-8",
    "html": b"text/html; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
}
# Pictures in answers are data: of their own. Nothing else comes from anywhere but this daemon, and
# no script or style is in the page itself, so that a text taken for HTML could do nothing.
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    b"img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; "
    b"require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    b"cache-control": b"no-cache",
    b"content-security-policy": _POLICY,
    b"cross-origin-opener-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
}


@frozen
class ConsoleFile:
    """
    @ivar etag: changes with the content, so that no browser mixes two versions.
    """

    content: bytes
    content_type: bytes
    etag: bytes

    @classmethod
    def of(cls, name: str, content: bytes) -> ConsoleFile:
        tag = sha256(content).hexdigest()[:32]
        return cls(content, _TYPES[name.rpartition(".")[2]], f'"{tag}"'.encode())

    def send(self, request: ProxyRequest) -> None:
        # A page is two dozen of them, and none says anything of what goes on.
        request.is_logged = True
        for name, value in _HEADERS.items():
            request.setHeader(name, value)
        request.setHeader(b"content-type", self.content_type)
        if request.setETag(self.etag) is CACHED:
            return
        request.setHeader(b"content-length", str(len(self.content)).encode())
        request.write(self.content)


def console_files() -> Mapping[str, ConsoleFile]:
    """The files by their names, as they came with this version."""
    return {
        path.name: ConsoleFile.of(path.name, path.read_bytes())
        for path in files("gemproxy").joinpath("console").iterdir()
        if path.name.rpartition(".")[2] in _TYPES
    }


def add_console_routes(app: Klein) -> None:
    """The page at C{/console}, and below it what it is made of."""
    there = console_files()

    @app.route("/console", methods=["GET"])
    def page(self: Any, request: IRequest) -> None:
        asked = cast("ProxyRequest", request)
        if asked.uri.partition(b"?")[0].endswith(b"/"):
            # What the page is made of is found from where it is.
            asked.redirect(b"../console")
            return
        there[_PAGE].send(asked)

    @app.route("/console/<name>", methods=["GET"])
    def part(self: Any, request: IRequest, name: str) -> None:
        if name not in there:
            raise unknown_url("GET", f"/console/{name}")
        there[name].send(cast("ProxyRequest", request))
