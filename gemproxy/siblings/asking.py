"""What the processes of one daemon ask each other, over a private Unix socket of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import frozen
from treq.client import HTTPClient
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocol, IStreamClientEndpoint
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent
from twisted.web.iweb import IAgentEndpointFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from gemproxy.chat.jsontext import dumps, loads
from gemproxy.http.site import QuietSite
from gemproxy.processes.place import ALONE, Place
from gemproxy.util.gather import gather_or_cancel
from gemproxy.util.log import make_logger

PATIENCE = 1.0
"""Seconds that a sibling has to answer."""

SILENT = None
"""In place of the answer of a sibling that is there, and has not answered in time."""

_SUFFIX = ".sock"
# unix(7): the address of a socket has 108 bytes at most.
_LONGEST_FOLDER = 80
# Seconds between two looks whether the socket is there.
_LOOKS = 5.0


class Siblings(Service):
    """
    Answers the other processes of a daemon, and asks them. Questions and answers are JSON. A
    process alone has no siblings, and no socket.

    One that was silent is not asked again before it has answered what it was asked then: nobody
    waits for it, and nothing piles up while it is stopped.

    @ivar place: that of this process.
    """

    log = make_logger()

    def __init__(self, reactor: Any, place: Place) -> None:
        self._reactor = reactor
        self.place = place
        self._folder = place.folder
        self._name = place.name
        self._answers: dict[bytes, Callable[[Any], Any]] = {}
        self._port: IListeningPort | None = None
        self._descriptor: int | None = None
        self._looks = LoopingCall(lambda: Deferred.fromCoroutine(self._be_there()))
        self._looks.clock = reactor
        self._is_bad = False
        self._asking: set[Deferred[None]] = set()
        # Those that are still to answer what is overdue.
        self._silent: set[str] = set()

    @property
    def are_possible(self) -> bool:
        """Whether the process is one of several."""
        return self._folder is not None

    def answer(self, path: str, function: Callable[[Any], Any]) -> None:
        """
        Have a question answered.

        @param path: such as C{/metrics}.
        @param function: called with the question; returns the answer, or an awaitable of it.
        """
        if self.are_possible:
            self._answers[path.encode()] = function

    def startService(self) -> None:
        super().startService()
        if self._folder is not None:
            self._looks.start(_LOOKS).addErrback(
                lambda failure: self.log.failure("nobody can ask this process any more", failure)
            )

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._looks.running:
            self._looks.stop()
        for asking in list(self._asking):
            asking.cancel()
        with suppress(OSError):
            await self._close()
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    async def _be_there(self) -> None:
        """Listen, and once more if the folder was removed: systemd does so when a user logs out."""
        if self._can_be_found():
            return
        try:
            await self._close()
            if self.running:
                self._listen()
        except (CannotListenError, OSError) as error:
            if not self._is_bad:
                self.log.warn("other processes cannot ask this one: {error}", error=error)
            self._is_bad = True
        else:
            self._is_bad = False

    def _listen(self) -> None:
        """@raise CannotListenError: nothing can be made in the folder; likewise OSError."""
        self._open_folder()
        site = QuietSite(_Asked(self._answers), reactor=self._reactor)
        address = self._address_of(self._name)
        self._port = self._reactor.listenUNIX(address, site, backlog=200, mode=0o600)

    async def _close(self) -> None:
        """@raise OSError: the folder was removed, and cannot be made again."""
        if self._port is not None:
            self._leave_to_be_removed()
            port, self._port = self._port, None
            await maybeDeferred(port.stopListening)

    def _can_be_found(self) -> bool:
        return self._port is not None and os.path.lexists(self._address_of(self._name))

    def _leave_to_be_removed(self) -> None:
        """A port that is closed removes its socket, which must be there."""
        self._open_folder()
        Path(self._address_of(self._name)).touch()

    def _open_folder(self) -> None:
        """@raise OSError: it is not there, and cannot be made."""
        assert self._folder is not None  # noqa: S101 - for mypy
        for path in (self._folder.parent, self._folder):
            path.mkdir(mode=0o700, exist_ok=True)
        opened = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        if self._descriptor is None:
            self._descriptor = opened
        else:
            # The addresses stay the same.
            os.dup2(opened, self._descriptor, inheritable=False)
            os.close(opened)

    def _address_of(self, name: str) -> str:
        """Of the socket of a process. A path that is too long is shortened as Linux can do it."""
        folder = str(self._folder)
        if len(os.fsencode(folder)) > _LONGEST_FOLDER:
            folder = f"/proc/self/fd/{self._descriptor}"
        return f"{folder}/{name}{_SUFFIX}"

    def names(self) -> set[str]:
        """Of the processes that run, and have begun to answer. This one is among them."""
        if self._folder is None:
            return {self._name}
        return {path.stem for path in self._folder.glob(f"*{_SUFFIX}")} | {self._name}

    async def ask(
        self, path: str, question: Any = None, patience: float = PATIENCE
    ) -> Mapping[str, Any]:
        """
        Ask all siblings at once.

        @param patience: seconds.
        @return: the answers by the names of the processes. One that is L{SILENT} has not answered
            in time. Those that are not there yet, or not any more, are left out.
        """
        if self._folder is None:
            return {}
        names = sorted(self.names() - {self._name})
        answers = await gather_or_cancel(
            [self._answer_of(name, path, question, patience) for name in names]
        )
        return {name: found[0] for name, found in zip(names, answers, strict=True) if found}

    def _answer_of(
        self, name: str, path: str, question: Any, patience: float
    ) -> Deferred[tuple[Any, ...]]:
        """Fires with the answer of one of them, in time; with nothing if it is not there."""
        found: Deferred[tuple[Any, ...]] = Deferred()
        if name in self._silent:
            found.callback((SILENT,))
            return found

        def give_up() -> None:
            self._silent.add(name)
            found.callback((SILENT,))

        def end(result: Any) -> None:
            self._asking.discard(asking)
            if timer.active():
                timer.cancel()
                found.callback(() if isinstance(result, Failure) else (result,))
            else:
                self._silent.discard(name)

        timer = self._reactor.callLater(patience, give_up)
        asking = Deferred.fromCoroutine(self._ask_one(name, path, question)).addBoth(end)
        if not asking.called:
            self._asking.add(asking)
        return found

    async def _ask_one(self, name: str, path: str, question: Any) -> Any:
        sockets = _Sockets(self._reactor, self._address_of)
        client = HTTPClient(Agent.usingEndpointFactory(self._reactor, sockets))
        response = await client.post(f"http://{name}{path}", data=dumps(question))
        body = await response.content()
        if response.code != 200:
            raise ValueError(f"{name} has failed to answer {path}")
        return loads(body)


NO_SIBLINGS = Siblings(None, ALONE)
"""Those of a process alone."""


@frozen
@implementer(IAgentEndpointFactory)
class _Sockets:
    """The host in a URL is the name of a process."""

    reactor: Any
    address_of: Callable[[str], str]

    def endpointForURI(self, uri: URI) -> _Quiet:
        return _Quiet(UNIXClientEndpoint(self.reactor, self.address_of(uri.host.decode())))


@frozen
@implementer(IStreamClientEndpoint)
class _Quiet:
    """Does not log each connection."""

    endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        protocolFactory.noisy = False
        return self.endpoint.connect(protocolFactory)


class _Asked(Resource):
    """Answers siblings."""

    isLeaf = True
    log = make_logger()

    def __init__(self, answers: Mapping[bytes, Callable[[Any], Any]]) -> None:
        super().__init__()
        self._answers = answers

    def render(self, request: Request) -> int:
        working = Deferred.fromCoroutine(self._answer(request))
        request.notifyFinish().addErrback(lambda _: working.cancel())
        working.addErrback(self._fail, request)
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        function = self._answers.get(request.path)
        if function is None:
            # Of another version, while one takes the place of the other.
            request.setResponseCode(404)
            request.finish()
            return
        assert request.content is not None  # noqa: S101 - for mypy
        answer = function(loads(request.content.read() or b"null"))
        if hasattr(answer, "__await__"):
            answer = await answer
        body = dumps(answer)
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"content-length", str(len(body)).encode())
        request.write(body)
        request.finish()

    def _fail(self, failure: Failure, request: Request) -> None:
        if failure.check(CancelledError):
            return
        path = request.path.decode("utf-8", "replace")
        self.log.failure("a sibling cannot be answered {path}", failure, path=path)
        request.setResponseCode(500)
        request.finish()
