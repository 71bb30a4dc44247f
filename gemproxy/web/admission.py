"""Whether a request is served: what is checked before its content is looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from io import BytesIO
from time import time
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request

from gemproxy.accounts.account import Account
from gemproxy.accounts.directory import Directory
from gemproxy.accounts.known_keys import KnownKeys
from gemproxy.accounts.limiter import Permit
from gemproxy.accounts.refusals import model_not_allowed
from gemproxy.chat.errors import INVALID_REQUEST, SERVER_ERROR, ChatError, bad_request, overloaded
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.request import Headers
from gemproxy.http.client_connections import host_of
from gemproxy.http.loops import LoopMark
from gemproxy.http.server_request import ServerRequest
from gemproxy.metrics import Metrics
from gemproxy.usage.meter import Meter
from gemproxy.util.heap import HeapTrimmer
from gemproxy.util.log import make_logger
from gemproxy.util.log_limit import LogLimit
from gemproxy.util.masking import NO_KEYS, Masking
from gemproxy.web.access import METRICS, OPEN_PATHS, Access, is_local_host, is_loopback
from gemproxy.web.credentials import Credentials
from gemproxy.web.forwarded import NO_PROXIES, TrustedProxies
from gemproxy.web.paths import is_well_known, leads_elsewhere, split_target, tidy_path
from gemproxy.web.responses import send_error
from gemproxy.web.throttle import AdmissionThrottle

# TRACK is what Microsoft's servers call TRACE.
_REFUSED_METHODS = (b"TRACE", b"TRACK", b"CONNECT")

NO_ADMIN = KnownKeys[bool]({})
_WATCHER = Account("admin")

# These ask for nothing that costs anything.
_READS = (b"GET", b"HEAD", b"OPTIONS")
_RATE_LIMITS = b"x-ratelimit-"

# Seconds until large requests may be fewer.
_FULL_RETRY_AFTER = 5

# Bytes of a body at a path where whoever sends it need not have a key.
_OPEN_BODY = 100_000

# Bytes of a body whose memory the allocator may keep for long.
_WORTH_TRIMMING = 100_000

# Monitoring requests these every few seconds.
_UNLOGGED_PATHS = OPEN_PATHS | {METRICS}


@frozen
class Limits:
    """
    @ivar body: bytes of a request's body at most.
    @ivar bodies: bytes of all bodies that are held; None for any number.
    @ivar per_client: requests of one address at a time; None for any number.
    @ivar headers_timeout: seconds for the headers to arrive.
    @ivar body_timeout: seconds for the body after them.
    @ivar linger: seconds for which a refused body is read and discarded: the connection of a
        client that is still sending would be reset, and it would never see the error.
    """

    body: int
    bodies: int | None = None
    per_client: int | None = None
    headers_timeout: float = 30.0
    body_timeout: float = 600.0
    linger: float = 2.0


class Admission:
    """
    Decides which requests are admitted, and knows those that are under way.

    @ivar stopping: no further request is admitted.
    @ivar held: bytes of the bodies that are in memory, or may be.
    """

    log = make_logger()

    def __init__(
        self,
        clock: IReactorTime,
        access: Access,
        limits: Limits,
        metrics: Metrics,
        new_id: Callable[[], str],
        proxies: TrustedProxies = NO_PROXIES,
        mark: LoopMark | None = None,
        own_keys: Masking = NO_KEYS,
        log_limit: LogLimit | None = None,
        accounts: Directory | None = None,
        meter: Meter | None = None,
        admin_keys: KnownKeys[bool] = NO_ADMIN,
        wall_clock: Callable[[], float] = time,
    ) -> None:
        """
        @param mark: that of this daemon's own requests, which are refused; None for none.
        @param own_keys: of this daemon, which errors may quote.
        @param log_limit: for the lines of requests that were refused; None for no limit.
        @param accounts: those of clients; None if there are none.
        @param meter: learns of requests that were refused.
        @param admin_keys: by which those come who run the daemon.
        @param wall_clock: in seconds since the epoch.
        """
        self.clock = clock
        self.access = access
        self.limits = limits
        self.metrics = metrics
        self.new_id = new_id
        self.proxies = proxies
        self.mark = mark
        self.own_keys = own_keys
        self.log_limit = log_limit
        self.accounts = accounts
        self.meter = meter or Meter()
        self.admin_keys = admin_keys
        self.wall_clock = wall_clock
        self.stopping = False
        self.held = 0
        self._heap = HeapTrimmer(clock)
        self.open: set[ProxyRequest] = set()
        self._clients: Counter[str] = Counter()
        self._emptied: list[Deferred[None]] = []

    def refusal(self, request: ProxyRequest, path: bytes) -> ChatError | None:
        """Why a request is refused; None if it is admitted."""
        if self.stopping and path not in OPEN_PATHS:
            return overloaded("The proxy is stopping.", 5)
        if self.mark is not None and self.mark.is_in(request.requestHeaders):
            return ChatError(
                508,
                SERVER_ERROR,
                "This request has been here before: an upstream asks this proxy for what the proxy"
                " asks the upstream. Remove the one from the channels of the other.",
                "loop_detected",
                final=True,
            )
        error = self.access.refusal(
            path,
            request.header_text(b"host"),
            request.header_text(b"origin"),
            request.account or self._watcher(request, path),
            request.header_text(b"sec-fetch-site"),
        )
        if error is None and request.account is not None and not self.access.is_open(path):
            error = request.account.refusal(self.wall_clock())
        limit = self.limits.per_client
        if error is not None or limit is None or path in OPEN_PATHS:
            return error
        if self._clients[request.client_address] >= limit:
            return ChatError(
                429,
                "rate_limit_error",
                f"{limit} requests from this address are under way, which is the limit.",
                "too_many_requests",
                retry_after=1,
            )
        return None

    def _watcher(self, request: ProxyRequest, path: bytes) -> Account | None:
        """Whoever runs the daemon may see its metrics."""
        is_known = path == METRICS and self.admin_keys.find(request.credentials.keys())
        return _WATCHER if is_known else None

    def target(self, method: bytes, target: bytes, host: str | None) -> bytes:
        """
        The path and query that a request target means.

        @param host: the Host header, if there is one.
        @raise ChatError: 400, the target is neither a path nor a URI of this proxy, or leads out of
            the API; 501, the method is not for proxies of this kind.
        """
        if method in _REFUSED_METHODS or method != method.upper():
            # An upstream that echoes TRACE would show its key to the client. There may be one that
            # takes small letters for large ones; what such a request takes would not be counted.
            raise ChatError(501, INVALID_REQUEST, f"{method.decode()} is not served.", final=True)
        if is_well_known(target) or (target == b"*" and method == b"OPTIONS"):
            return target
        try:
            authority, path = split_target(target)
        except ValueError:
            raise bad_request("The request target must be a path that begins with '/'.") from None
        if authority is not None and not self.access.is_own(authority.decode("latin-1"), host):
            raise bad_request("The request target is the URI of another server.")
        if leads_elsewhere(path.partition(b"?")[0]):
            raise bad_request("The path must not contain '.' or '..' segments.")
        return path

    def refused(self, error: ChatError) -> None:
        """A request is about to get this error instead of being let in."""
        if error.status == 401:
            self.metrics.refused_keys.labels("client").inc()

    def refusal_to_hold(self, size: int) -> ChatError | None:
        """
        Why so much more of a body is not taken; None if it is.

        @param size: in bytes.
        """
        limit = self.limits.bodies
        if limit is None or self.held + size <= limit:
            return None
        return overloaded(
            f"The requests under way are larger than {limit} bytes together, which is the limit"
            " (MAX_BODIES).",
            _FULL_RETRY_AFTER,
        )

    def release(self, request: ProxyRequest) -> None:
        """The body of a request is not held any longer."""
        self.held -= request.held
        if request.held > _WORTH_TRIMMING:
            self._heap.soon()
        request.held = 0

    def opened(self, request: ProxyRequest) -> None:
        self.open.add(request)
        self._clients[request.client_address] += 1

    def when_empty(self) -> Deferred[None]:
        """Fires when no request is under way."""
        if not self.open:
            return succeed(None)
        emptied: Deferred[None] = Deferred(self._emptied.remove)
        self._emptied.append(emptied)
        return emptied

    def answered(self, request: ProxyRequest) -> None:
        """A response is complete."""
        self.metrics.responded(request.code)
        if not request.is_counted and self._counts(request):
            self.meter.count(
                id=request.id,
                account=None if request.account is None else request.account.name,
                model="",
                upstream="",
                status=request.code,
                duration=request.age(),
            )
        if (
            request.path not in _UNLOGGED_PATHS
            and not request.is_logged
            and self._has_a_line(request)
        ):
            self.log.info(
                "request={id} method={method} path={path} status={status} duration={seconds:.3f}s",
                id=request.id,
                method=dumps(request.method.decode("latin-1")[:20]).decode(),
                path=dumps(request.path.decode("latin-1")[:200]).decode(),
                status=request.code,
                seconds=request.age(),
            )

    def _counts(self, request: ProxyRequest) -> bool:
        """Whether a request was refused that would have been answered by a model, or so."""
        is_known = request.is_let_in or request.account is not None
        return (
            request.code >= 400
            and request.code != 401
            and request.method == b"POST"
            and is_known
            and request.path.startswith(b"/v1")
        )

    def _has_a_line(self, request: ProxyRequest) -> bool:
        """Whether a response has a line: whoever has no key must not be able to fill a disk."""
        is_refused = not request.is_let_in or request.code == 401 or request.is_over_limits
        return not is_refused or self.log_limit is None or self.log_limit.allows(request.code)

    def closed(self, request: ProxyRequest) -> None:
        """A request has ended, with or without a response."""
        if request not in self.open:
            return
        self.open.discard(request)
        self.release(request)
        request.end_permit()
        self._clients[request.client_address] -= 1
        if not self._clients[request.client_address]:
            del self._clients[request.client_address]
        if not self.open:
            emptied, self._emptied = self._emptied, []
            for waiting in emptied:
                waiting.callback(None)


class ProxyRequest(ServerRequest):
    """
    A request that is received in limited time and size, and is admitted or refused.

    @ivar id: identifies it in the response and in the log.
    @ivar is_logged: its handler writes the log line.
    @ivar is_counted: its handler has told, or will tell, the meter of it.
    @ivar is_let_in: whether it was admitted.
    @ivar body_limit: bytes of its body at most.
    @ivar held: bytes of its body that are in memory, or may be.
    """

    # There may be thousands of requests.
    __slots__ = (
        "_account",
        "_admission",
        "_begun",
        "_client_address",
        "_credentials",
        "_deadline",
        "_limit_error",
        "_permit",
        "_permitted",
        "_refused",
        "_size",
        "_target",
        "_throttle",
        "body_limit",
        "held",
        "id",
        "is_counted",
        "is_let_in",
        "is_logged",
    )

    def __init__(
        self, admission: Admission, throttle: AdmissionThrottle, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.id = admission.new_id()
        self.is_logged = self.is_counted = False
        self.held = 0
        self.body_limit = admission.limits.body
        self._admission = admission
        self._throttle = throttle
        self._size = 0
        self._client_address: str | None = None
        self._credentials: Credentials | None = None
        self._account: Account | None = None
        # Whether its account may ask now; None if nothing limits it.
        self._permitted: Deferred[None] | None = None
        self._permit: Permit | None = None
        self._limit_error: ChatError | None = None
        self.is_let_in = False
        self._refused = False
        self._target: bytes | None = None
        # For the body; the channel has one for the head.
        self._deadline: IDelayedCall | None = None
        self._begun = admission.clock.seconds()
        self.setHeader(b"x-request-id", self.id.encode())

    @property
    def peer(self) -> str:
        """The address that the connection comes from."""
        return host_of(self.getClientAddress())

    @property
    def client_address(self) -> str:
        """The address that the request comes from, as far as proxies are trusted to tell it."""
        if self._client_address is None:
            said = self.requestHeaders.getRawHeaders(b"x-forwarded-for") or ()
            self._client_address = self._admission.proxies.client_of(self.peer, said)
        return self._client_address

    @property
    def is_of_this_machine(self) -> bool:
        """
        Whether the client is on this machine. A proxy on it that is not trusted may pass on the
        requests of anybody; a page whose host name resolves to it is of anybody too.
        """
        names = (name.lower() for name, _ in self.requestHeaders.getAllRawHeaders())
        return (
            is_loopback(self.client_address)
            and self._admission.proxies.knows_client_of(self.peer, names)
            and is_local_host(self.header_text(b"host"))
        )

    @property
    def credentials(self) -> Credentials:
        """What the client shows; also when its headers are freed."""
        if self._credentials is None:
            query = self._target_so_far.partition(b"?")[2]
            self._credentials = Credentials.of(self._header_texts, query)
        return self._credentials

    @property
    def account(self) -> Account | None:
        """Whose key the client shows; None if clients need none, or it shows none that is known."""
        accounts = self._admission.accounts
        if self._account is None and accounts is not None and accounts.are_needed:
            self._account = accounts.find(self.credentials.keys())
        return self._account

    @property
    def _target_so_far(self) -> bytes:
        """As the client wrote it, also before the request is there."""
        is_there = self.uri != Request.uri
        return self.uri if is_there else self.request_line[1]

    @property
    def is_over_limits(self) -> bool:
        """Whether the limits of its account do not allow it."""
        return self._limit_error is not None

    @property
    def is_restricted(self) -> bool:
        """Whether some models are not for its account."""
        return self.account is not None and bool(self.account.limits.models)

    def may_ask(self, *names: str) -> bool:
        """
        Whether a model is for its account.

        @param names: of one model.
        """
        return self.account is None or self.account.may_ask(*names)

    def check_model(self, *names: str) -> None:
        """
        @param names: of the model that it asks, the client's own first; empty if it names none.
        @raise ChatError: 403, its account may not.
        """
        account = self.account
        if account is not None and not account.may_ask(*names):
            raise model_not_allowed(account.name, names[0], account.limits.models)

    def without_keys(self, error: ChatError) -> ChatError:
        """An error as it may be shown: others may have quoted keys of this daemon or the client."""
        masking = self._admission.own_keys.in_errors(self.credentials.secrets())
        return error.masked(masking.in_bytes)

    def send_failure(self, failure: Failure) -> None:
        """
        Send the error with which its work has failed.

        @param failure: of a L{ChatError}.
        """
        error = cast("ChatError", failure.value)
        send_error(self, self.without_keys(error))
        # It refers to all that the callers had in hand, such as the body.
        error.with_traceback(None)

    def headers_to_forward(self) -> Headers:
        """The client's headers, with what an upstream is told of the client."""
        headers = [
            (name, value)
            for name, values in self.requestHeaders.getAllRawHeaders()
            for value in values
        ]
        scheme = b"https" if self.isSecure() else b"http"
        return self._admission.proxies.forwarded(
            headers, self.peer, scheme, self.getHeader(b"host")
        )

    @property
    def is_encrypted(self) -> bool:
        """Whether the client speaks TLS: with this server, or with a proxy that is trusted."""
        said = self.requestHeaders.getRawHeaders(b"x-forwarded-proto") or (b"",)
        is_told = self._admission.proxies.trusts(self.peer) and said[-1].lower() == b"https"
        return is_told or self.isSecure()

    def age(self) -> float:
        """Seconds since its first line."""
        return self._admission.clock.seconds() - self._begun

    def header_text(self, name: bytes) -> str | None:
        """A header's value; bytes that are not UTF-8 are escaped."""
        values = self._header_texts(name)
        return values[-1] if values else None

    def _header_texts(self, name: bytes) -> list[str]:
        values = self.requestHeaders.getRawHeaders(name)
        return [value.decode("utf-8", "backslashreplace") for value in values] if values else []

    def forget_request_headers(self) -> None:
        # What is shown in them is masked until the end.
        _ = self.credentials
        super().forget_request_headers()

    # While it is received:

    def gotLength(self, length: int | None) -> None:
        error = self._early_refusal(length)
        super().gotLength(length if error is None else 0)
        if error is not None:
            self._refuse(error)

    def wait_for_body(self) -> None:
        if self._deadline is None:
            self._end_in(self._admission.limits.body_timeout)

    def _early_refusal(self, length: int | None) -> ChatError | None:
        """Why a request is refused before its body arrives; None if the body is received."""
        doubt = self.framing_doubt
        if doubt is not None:
            return bad_request(doubt)
        if length == 0:
            return None
        method, target, _ = self.request_line
        path, bad_target = b"", None
        try:
            path = tidy_path(self._target_of(method, target).partition(b"?")[0])
        except ChatError as refusal:
            bad_target = refusal
        error = self._admission.refusal(self, path) or bad_target
        if error is None:
            self._let_in(method, path)
            if self._admission.access.is_open(path):
                # Anybody may send it.
                self.body_limit = min(self.body_limit, _OPEN_BODY)
            if length is not None and length > self.body_limit:
                error = self.too_large()
            elif not self.is_passed_as_it_comes():
                error = self._admission.refusal_to_hold(length or 0)
        return error or self._limit_error

    def is_passed_as_it_comes(self) -> bool:
        """Whether its body is not held."""
        return False

    def hold(self, size: int) -> None:
        """
        Count more of its body, until it ends.

        @param size: in bytes.
        @raise ChatError: 503, that is too much for all.
        """
        error = self._admission.refusal_to_hold(size)
        if error is not None:
            raise error
        self.held += size
        self._admission.held += size

    def _target_of(self, method: bytes, target: bytes) -> bytes:
        """
        The path and query that the request line means; they are worked out once.

        @raise ChatError: 400, see L{Admission.target}.
        """
        if self._target is None:
            self._target = self._admission.target(method, target, self.header_text(b"host"))
        return self._target

    def _let_in(self, method: bytes, path: bytes) -> None:
        self.is_let_in = True
        self._admission.opened(self)
        account, accounts = self.account, self._admission.accounts
        if accounts is None or account is None or not account.limits.are_measured:
            return
        is_asking = method not in _READS or self.getHeader(b"upgrade") is not None
        if is_asking and not self._admission.access.is_open(path):
            begun = accounts.limiter.begin(account)
            self._permitted = begun.addCallbacks(self._keep_permit, self._learn_limit)

    def _keep_permit(self, permit: Permit) -> None:
        self._permit = permit
        if self not in self._admission.open:
            # The client did not wait for it.
            self.end_permit()

    def _learn_limit(self, failure: Failure) -> None:
        failure.trap(ChatError)
        self._limit_error = cast("ChatError", failure.value)

    def end_permit(self) -> None:
        """It counts no longer among the requests that are under way."""
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.release()

    def handleContentChunk(self, data: bytes) -> None:
        if self._refused:
            return
        self._size += len(data)
        if self._size > self.body_limit:
            self._refuse(self.too_large())
            return
        try:
            self.hold(len(data))
        except ChatError as error:
            self._refuse(error)
        else:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        self._end_in(None)
        if self._refused:
            self.method, self.uri = command, path
            self.path = tidy_path(path.partition(b"?")[0])
            self.finish()
        else:
            super().requestReceived(command, path, version)

    def complete_head(self) -> None:
        if self._permitted is not None:
            self._tell_limits()

    def _tell_limits(self) -> None:
        """Say what is left of the account's limits, and not what is left of an upstream's."""
        account, accounts = self.account, self._admission.accounts
        assert accounts is not None  # noqa: S101 - for mypy
        assert account is not None  # noqa: S101 - for mypy
        for theirs, _ in list(self.responseHeaders.getAllRawHeaders()):
            if theirs.lower().startswith(_RATE_LIMITS):
                self.responseHeaders.removeHeader(theirs)
        for name, value in accounts.limiter.headers(account):
            self.setHeader(name.encode(), value.encode())

    def finish(self) -> None:
        super().finish()
        self._admission.closed(self)
        self._admission.answered(self)

    def connectionLost(self, reason: Failure) -> None:
        self._end_in(None)
        super().connectionLost(reason)
        self._admission.closed(self)

    def _end_in(self, seconds: float | None) -> None:
        """Wait so long for the rest of the request from now on; None: it is there."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = self._admission.clock.callLater(seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._deadline = None
        if self._refused or self.content is None:
            self.channel.loseConnection()
        else:
            self._refuse(ChatError(408, INVALID_REQUEST, "The request was not received in time."))

    def take_body(self) -> bytes:
        """The body, which is there as a whole. It is freed."""
        assert isinstance(self.content, BytesIO)  # noqa: S101 - for mypy
        # Not copied, unlike what read() returns.
        body = self.content.getvalue()
        self.content.close()
        return body

    def too_large(self) -> ChatError:
        limit, setting = self.body_limit, ""
        if limit == self._admission.limits.body:
            setting = " (MAX_BODY)"
        return ChatError(
            413,
            INVALID_REQUEST,
            f"The request body is larger than {limit} bytes, which is the limit{setting}.",
        )

    def _refuse(self, error: ChatError) -> None:
        """Send an error before the request is complete."""
        self._refused = True
        # While the rest of it comes, others may take its place. If several were received at once
        # and each kept its part, all of them would be refused.
        assert self.content is not None  # noqa: S101 - for mypy
        self.content.close()
        self._admission.release(self)
        self._admission.refused(error)
        self.begin_early()
        if self.path is None:
            # The error has the shape that clients of the path expect.
            self.path = tidy_path(self.request_line[1].partition(b"?")[0])
        self._open_to_pages(preflight=False)
        send_error(self, error)
        self._linger()

    def _linger(self) -> None:
        """The response is sent: read the rest of the request for a moment, then close."""
        self._end_in(self._admission.limits.linger)

    # When it is there:

    def process(self) -> None:
        bad_target = None
        try:
            self.uri = self._target_of(self.method, self.uri)
        except ChatError as refusal:
            bad_target = refusal
        self.path = tidy_path(self.uri.partition(b"?")[0])
        preflight = self.method == b"OPTIONS" and self.getHeader(b"origin") is not None
        self._open_to_pages(preflight)
        error = None if self.is_let_in else self._admission.refusal(self, self.path)
        error = error or bad_target
        if error is None and not _is_utf8(self.path):
            error = bad_request("The path is not UTF-8.")
        if preflight and (error is None or error.status == 401):
            self.setResponseCode(204)
            answer = self.finish
        elif error is not None:
            answer = partial(self._answer_with, error)
        else:
            if not self.is_let_in:
                self._let_in(self.method, self.path)
            answer = self._answer_within_limits
        self._throttle.spread(partial(self._answer, answer))

    def _answer(self, answer: Callable[[], None]) -> None:
        # The client may have disconnected while the request waited.
        if self.channel is not None:
            answer()

    def _answer_within_limits(self) -> None:
        if self._permitted is None:
            super().process()
        else:
            self._permitted.addCallback(self._answer_if_permitted)

    def _answer_if_permitted(self, _: None) -> None:
        if self._limit_error is not None:
            self._answer_with(self._limit_error)
        elif self.channel is not None:
            super().process()

    def _answer_with(self, error: ChatError) -> None:
        self._admission.refused(error)
        send_error(self, error)
        self.finish()

    def getRequestHostname(self) -> bytes:
        """A constant: Klein must not depend on what clients send as Host."""
        return b"localhost"

    def _open_to_pages(self, preflight: bool) -> None:
        access = self._admission.access
        for name, value in access.cors_headers(self.header_text(b"origin"), preflight).items():
            self.setHeader(name.encode(), value.encode())


def _is_utf8(path: bytes) -> bool:
    """Whether it is UTF-8 when it is unquoted."""
    if is_well_known(path):
        return True
    try:
        unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
