"""Finds out the facts, and changes nothing. What blocks is to be called in a thread."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from gemproxy.doctor.facts import Answered, Asked, Listener, PortFact, Unanswered
from gemproxy.gemini.cli.install import installed_version
from gemproxy.http.agent import PersistentAgent, endpoints
from gemproxy.http.body import RepeatableBody, read_beginning
from gemproxy.http.confined import ConfinedAgent
from gemproxy.http.errors import describe_request_error, is_untrusted
from gemproxy.http.places import ask_health, place_of
from gemproxy.http.proxies import NO_PROXIES, Proxies
from gemproxy.http.url import split_url
from gemproxy.http.write_coalescer import WriteCoalescer

_CONNECT_TIMEOUT = 5.0
PATIENCE = 8.0
"""Seconds for the beginning of a response, or for a program to tell its version."""

_BODY_PATIENCE = 2.0
_BODY_LIMIT = 256 * 1024
_VERSION = re.compile(r"\d+\.\d+\.\d+[\w.+-]*")


@frozen
class Inquirer:
    """
    Sends single requests.

    @ivar reactor: Twisted's.
    @ivar now: seconds since the epoch, by this machine's clock.
    """

    reactor: Any
    now: Callable[[], float]

    def agent(self, proxies: Proxies) -> PersistentAgent:
        """What sends requests; it must be closed."""
        return PersistentAgent(
            self.reactor,
            WriteCoalescer(),
            endpoints(self.reactor, _CONNECT_TIMEOUT),
            proxies=proxies,
        )

    async def ask(
        self,
        who: str,
        url: bytes,
        headers: Headers,
        proxies: Proxies = NO_PROXIES,
        body: bytes | None = None,
    ) -> Asked:
        """
        GET a URL, or POST a body to it.

        @param who: the server, as the subject of a sentence.
        """
        agent = self.agent(proxies)
        origin, _ = split_url(url)
        method, sent = (b"GET", None) if body is None else (b"POST", RepeatableBody(body))
        asking = ConfinedAgent(agent, origin).request(method, url, headers, sent)
        try:
            response = await asking.addTimeout(PATIENCE, self.reactor)
            body = await read_beginning(response, _BODY_LIMIT, self.reactor, _BODY_PATIENCE)
            return Answered(response.code, body, _date_of(response), self.now())
        except DeferredTimeout:
            return Unanswered(f"{who} did not answer within {PATIENCE:g} s.")
        except Exception as error:
            return Unanswered(describe_request_error(who, error), is_untrusted(error))
        finally:
            await agent.close()


def _date_of(response: IResponse) -> float | None:
    for value in response.headers.getRawHeaders("date") or ():
        with suppress(ValueError):
            return parsedate_to_datetime(value).timestamp()
    return None


def cli_version(executable: str, path: str) -> str | None:
    """
    The version of an executable of the CLI; None if it cannot be found out.

    @param path: the PATH that contains node.
    """
    version = installed_version(executable)
    if version is not None:
        return version
    # What wraps the CLI is asked itself, which takes node a second.
    with tempfile.TemporaryDirectory(prefix="gemproxy-") as home:
        variables = {"PATH": path, "HOME": home, "GEMINI_CLI_NO_RELAUNCH": "true"}
        shown = _output([executable, "--version"], variables)
    found = _VERSION.search(shown)
    return found[0] if found else None


def _output(command: Sequence[str], environ: Mapping[str, str]) -> str:
    """What a program prints; nothing if it does not end in time, with all that it has started."""
    try:
        process = subprocess.Popen(  # noqa: S603 - what GEMINI_CLI names
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return ""
    with process:
        try:
            return process.communicate(timeout=PATIENCE)[0].decode("utf-8", "replace")
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return ""


def port(number: int | str, host: str) -> PortFact:
    """
    @param number: see L{gemproxy.http.listening.Address}; likewise C{host}.
    """
    problem: OSError | None = None
    if isinstance(number, int):
        if number == 0:
            return PortFact(Listener.UNKNOWN, "The system chooses a free port.")
        try:
            _bind(number, host)
        except OSError as error:
            problem = error
        else:
            return PortFact(Listener.NOBODY)
        if problem.errno != errno.EADDRINUSE:
            return PortFact(Listener.FORBIDDEN, f"{problem.strerror or problem}.")
    place = place_of(number, host)
    if place is None:
        return PortFact(Listener.UNKNOWN, "An endpoint of this kind cannot be tried.")
    try:
        health = ask_health(place)
    except HTTPException:
        return PortFact(Listener.STRANGER)
    except OSError:
        if problem is not None:
            return PortFact(Listener.STRANGER)
        return PortFact(Listener.UNKNOWN, "Nobody listens there.")
    return PortFact(Listener.DAEMON if health.is_gemproxy else Listener.STRANGER)


def _bind(number: int, host: str) -> None:
    """@raise OSError: it is not possible."""
    [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
        host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    with socket.socket(family, kind, protocol) as probe:
        # As the daemon does: connections of an earlier one do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def folder_problem(path: Path) -> str | None:
    """Why no file can be made in a folder, which may be still to be made; None if one can."""
    try:
        while not path.exists():
            path = path.parent
        with tempfile.TemporaryFile(dir=path) as file:
            # Where the disk is full, that fails.
            file.write(b"\0" * os.sysconf("SC_PAGE_SIZE"))
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None
