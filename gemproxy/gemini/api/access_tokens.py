"""Access tokens of Google Cloud, by google-auth, which blocks and so has a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from math import inf
from pathlib import Path
from time import time
from typing import Any
from warnings import catch_warnings, simplefilter

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from gemproxy.chat.errors import SERVER_ERROR, ChatError
from gemproxy.gemini.api.auth_transport import AuthTransport
from gemproxy.gemini.api.client import ApiFailed
from gemproxy.gemini.api.endpoint import Signature
from gemproxy.gemini.translate.errors import KEY_REFUSED, AttemptFailure, transient
from gemproxy.util.log import make_logger
from gemproxy.util.masking import NO_KEYS, Masking
from gemproxy.util.threads import Threads

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
# Seconds before its end from which on a token is renewed, and from which on it is not used.
EARLY, LATE = 300.0, 10.0
# Seconds for a request to wait for a token.
PATIENCE = 30.0
# Seconds after a failure in which nobody renews a token that is still good, and after a refusal in
# which the next token is kept although it is refused.
_REST = 10.0


@frozen
class Token:
    """
    @ivar text: what goes into C{Authorization}.
    @ivar end: in seconds since the epoch.
    @ivar payer: the project that is charged, if it is not that of the credentials.
    """

    text: str = field(repr=False)
    end: float
    payer: str | None = None

    @property
    def signature(self) -> Signature:
        headers = ((b"authorization", f"Bearer {self.text}".encode()),)
        if self.payer is None:
            return headers
        return (*headers, (b"x-goog-user-project", self.payer.encode()))


def load(path: Path | None, ask: Any) -> Any:
    """
    The credentials of google-auth: a service account, workload identity, or those of a user.

    @param path: of their file; None for the application default credentials.
    @param ask: sends requests, see L{AuthTransport}.
    @raise google.auth.exceptions.GoogleAuthError: there are none.
    """
    import google.auth

    if path is None:
        return google.auth.default(scopes=[SCOPE], request=ask)[0]
    with catch_warnings():
        # That the file may name other servers: it is the owner's own.
        simplefilter("ignore", DeprecationWarning)
        return google.auth.load_credentials_from_file(str(path), scopes=[SCOPE], request=ask)[0]


@define(eq=False)
class GoogleAuth:
    """
    Gets tokens. It blocks.

    @ivar path: see L{load}; likewise C{ask}.
    """

    path: Path | None
    ask: AuthTransport
    _credentials: Any = field(default=None, repr=False)

    def token(self) -> Token:
        """
        Another token.

        @raise google.auth.exceptions.GoogleAuthError: there is none.
        """
        if self._credentials is None:
            self._credentials = load(self.path, self.ask)
        credentials = self._credentials
        credentials.refresh(self.ask)
        # It is UTC, and does not say so.
        end = credentials.expiry
        return Token(
            credentials.token,
            time() + EARLY * 2 if end is None else end.replace(tzinfo=UTC).timestamp(),
            getattr(credentials, "quota_project_id", None),
        )


class AccessTokens:
    """
    Signs with a token that is good. It is renewed before its end, once for all requests that want
    one; those that come before the end do not wait for that.
    """

    log = make_logger()

    def __init__(
        self,
        reactor: Any,
        token: Callable[[], Token],
        wall_clock: Callable[[], float] = time,
        patience: float = PATIENCE,
    ) -> None:
        """
        @param token: gets another token; it may block, and raises what says why there is none.
        @param wall_clock: in seconds since the epoch.
        @param patience: seconds for a request to wait.
        """
        self._clock: IReactorTime = reactor
        self._in_thread = Threads(reactor, 1, "google-auth").call
        self._get = token
        self._wall_clock = wall_clock
        self._patience = patience
        self._token: Token | None = None
        self._texts: tuple[str, ...] = ()
        self._masking = NO_KEYS
        self._waiting: list[Deferred[Token]] | None = None
        self._rests_until = self._holds_until = -inf

    async def sign(self, key: str) -> Signature:
        """@raise ApiFailed: there is no token."""
        token = self._token
        left = 0.0 if token is None else token.end - self._wall_clock()
        if token is None or left <= LATE:
            token = await self._renewed()
        elif left <= EARLY and self._clock.seconds() >= self._rests_until:
            self._renew()
        return token.signature

    def refused(self, signature: Signature) -> None:
        """Another token is needed, unless there is one by now, or it would be refused as well."""
        now = self._clock.seconds()
        if self._token is None or self._token.signature != signature or now < self._holds_until:
            return
        self._token = None
        self._holds_until = now + _REST

    def hide(self, text: bytes) -> bytes:
        return self._masking.in_bytes(text)

    def _renewed(self) -> Deferred[Token]:
        renewed: Deferred[Token] = Deferred(self._gave_up)
        self._renew().append(renewed)
        return renewed.addTimeout(self._patience, self._clock, _too_late)

    def _gave_up(self, waiting: Deferred[Token]) -> None:
        if self._waiting is not None and waiting in self._waiting:
            self._waiting.remove(waiting)

    def _renew(self) -> list[Deferred[Token]]:
        """Have the token renewed, unless that is under way; returns who waits for it."""
        if self._waiting is None:
            self._waiting = []
            waiting = self._waiting
            renewing = Deferred.fromCoroutine(self._in_thread(self._get))
            renewing.addCallbacks(self._has, self._failed).addErrback(self._surprised)
            return waiting
        return self._waiting

    def _has(self, token: Token) -> None:
        self._token = token
        # With the last one, which requests that are under way have.
        self._masking = Masking((*self._texts, token.text))
        self._texts = (token.text,)
        for waiting in self._no_longer_waiting():
            waiting.callback(token)

    def _failed(self, failure: Any) -> None:
        error = ApiFailed(_why(failure.value))
        self._rests_until = self._clock.seconds() + _REST
        waiting = self._no_longer_waiting()
        if not waiting:
            self.log.warn("the token for Vertex AI was not renewed: {error}", error=error)
        for each in waiting:
            each.errback(error)

    def _surprised(self, failure: Any) -> None:
        self.log.failure("whoever waited for a token failed", failure)

    def _no_longer_waiting(self) -> list[Deferred[Token]]:
        waiting, self._waiting = self._waiting or [], None
        return waiting


def _why(error: Exception) -> AttemptFailure:
    # google-auth has the server's whole answer behind the message.
    first = error.args[0] if error.args else error
    said = " ".join(str(first).split())[:300]
    # It may have wrapped what the transport raised.
    retryable = any(getattr(each, "retryable", False) for each in (error, first))
    if retryable or isinstance(error, OSError):
        return transient(f"Google gave no access token for Vertex AI: {said}")
    return AttemptFailure(
        ChatError(
            502,
            SERVER_ERROR,
            f"gemproxy has no access token for Vertex AI: {said} Credentials come from "
            "GOOGLE_APPLICATION_CREDENTIALS, or from `gcloud auth application-default login`.",
            KEY_REFUSED,
            final=True,
        ),
        retryable=False,
    )


def _too_late(result: Any, seconds: float) -> Any:
    raise ApiFailed(transient(f"Google gave no access token within {seconds:g} s."))
