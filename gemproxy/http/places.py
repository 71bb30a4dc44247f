"""Where a daemon listens, and what it says of its health there. It blocks: no reactor is needed."""

from __future__ import annotations

import json
import re
import socket
import ssl
from contextlib import suppress
from http.client import HTTPConnection

from attrs import frozen

# Seconds for an answer. Docker gives the whole check five.
_TIMEOUT = 4.0
_MOST_WORDS = 10_000

# The addresses that stand for all of a machine, and the one of them that is asked.
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
_ENDPOINTS = {"tcp": "port", "ssl": "port", "unix": "address"}
# Of each response of gemproxy.
_REQUEST_ID = re.compile(r"[0-9a-f]{16}")


@frozen
class Place:
    """
    Where a daemon listens.

    @ivar port: None for a UNIX socket.
    @ivar address: an IP address or host name, or the path of a UNIX socket.
    """

    address: str
    port: int | None = None
    is_encrypted: bool = False

    def connect(self) -> socket.socket:
        """@raise OSError: nothing answers there."""
        if self.port is None:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(_TIMEOUT)
            connection.connect(self.address)
            return connection
        connection = socket.create_connection((self.address, self.port), _TIMEOUT)
        if not self.is_encrypted:
            return connection
        # The certificate is for the clients' name of this machine, which is not known here.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(connection)


def place_of(port: int | str | None, host: str) -> Place | None:
    """
    Where a port of the settings can be asked; None if that cannot be told from them.

    @param port: see L{gemproxy.http.listening.Address}; likewise C{host}.
    """
    if isinstance(port, int):
        # 0 is a port that the system chooses.
        return Place(_ANY_ADDRESS.get(host, host), port) if port else None
    # Arguments of an endpoint are separated by colons; those in values have a backslash.
    kind, *arguments = re.split(r"(?<!\\):", port or "")
    named = dict(one.split("=", 1) for one in arguments if "=" in one)
    first = next((one for one in arguments if "=" not in one), "")
    main = named.get(_ENDPOINTS.get(kind, ""), first).replace("\\:", ":")
    if kind == "unix" and main:
        return Place(main)
    if kind not in _ENDPOINTS or not main.isdecimal() or not int(main):
        return None
    interface = named.get("interface", "0.0.0.0").replace("\\:", ":")  # noqa: S104 - compared, not bound
    return Place(_ANY_ADDRESS.get(interface, interface), int(main), kind == "ssl")


@frozen
class Health:
    """
    What is said at C{/health}.

    @ivar is_gemproxy: whether it is gemproxy that says so.
    """

    status: int
    said: str
    is_gemproxy: bool


def ask_health(place: Place) -> Health:
    """
    @raise OSError: nothing answers there.
    @raise HTTPException: the answer is none of HTTP.
    """
    connection = HTTPConnection("localhost")
    connection.sock = place.connect()
    with connection.sock:
        connection.request("GET", "/health")
        response = connection.getresponse()
        said = response.read(_MOST_WORDS).decode(errors="replace")
        id = response.headers.get("x-request-id", "")
    return Health(response.status, said, _REQUEST_ID.fullmatch(id) is not None and _has_state(said))


def _has_state(said: str) -> bool:
    with suppress(ValueError):
        document = json.loads(said)
        return isinstance(document, dict) and isinstance(document.get("status"), str)
    return False
