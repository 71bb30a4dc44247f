"""What is found out about the machine and its network, before it is judged. Pure."""

from __future__ import annotations

from enum import Enum

from attrs import frozen


@frozen
class Answered:
    """
    An HTTP response.

    @ivar body: the beginning of it.
    @ivar date: its Date header, in seconds since the epoch; None if there is none.
    @ivar now: the time of this machine when it came, likewise.
    """

    status: int
    body: bytes = b""
    date: float | None = None
    now: float = 0.0

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_json(self) -> bool:
        """Whether the body begins as a JSON object or list does."""
        return self.body.lstrip()[:1] in (b"{", b"[")


@frozen
class Unanswered:
    """
    A request without a response.

    @ivar reason: a sentence.
    @ivar is_untrusted: whether it is the server's certificate that is not trusted.
    """

    reason: str
    is_untrusted: bool = False


Asked = Answered | Unanswered


class Listener(Enum):
    """
    Who listens at a port.

    @cvar NOBODY: gemproxy may.
    @cvar DAEMON: gemproxy does.
    @cvar STRANGER: somebody else does.
    @cvar FORBIDDEN: the system does not let gemproxy.
    @cvar UNKNOWN: that cannot be told without starting the daemon.
    """

    NOBODY = "nobody"
    DAEMON = "daemon"
    STRANGER = "stranger"
    FORBIDDEN = "forbidden"
    UNKNOWN = "unknown"


@frozen
class PortFact:
    """@ivar reason: the system's, if it is one for not listening there."""

    listener: Listener
    reason: str = ""
