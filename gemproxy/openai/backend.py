"""A backend for New-API or any other server with an OpenAI-compatible API."""

from __future__ import annotations

from typing import Any, cast

from attrs import evolve, field, frozen
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from gemproxy.backend import COMMITS_IN, Answer
from gemproxy.chat.answer_limits import AnswerLimits
from gemproxy.chat.errors import (
    SERVER_ERROR,
    ChatError,
    Unanswered,
    bad_request,
    overloaded,
    upstream_failed,
    upstream_silent,
)
from gemproxy.chat.jsontext import loads
from gemproxy.chat.request import ChatRequest, Headers, credentials_in
from gemproxy.chat.sse import Event
from gemproxy.http.body import BodyCut, BodyTooLarge, read_beginning, read_body
from gemproxy.http.connection import Body
from gemproxy.http.errors import describe_request_error, is_untrusted, lacks_descriptors
from gemproxy.http.header_map import HeaderMap
from gemproxy.http.headers import without
from gemproxy.http.loops import LoopMark
from gemproxy.http.treq_client import send
from gemproxy.http.url import BaseURL
from gemproxy.offload.pool import Offload
from gemproxy.openai.conversion import (
    ConversionMemory,
    Convert,
    Form,
    body_in,
    cannot_stream,
    first_form,
    form_after,
    is_as_sent,
)
from gemproxy.openai.errors import error_of, is_error, refusal
from gemproxy.openai.headers import (
    NO_OWN_KEYS,
    OwnKeys,
    query_to_upstream,
    request_id_of,
    to_client,
    to_upstream,
)
from gemproxy.openai.stream import StreamError, UpstreamStream
from gemproxy.util.idle_timeout import IdleTimeout
from gemproxy.util.log import make_logger
from gemproxy.util.masking import NO_KEYS, Masking, shown_keys

# Clients must receive the list of models within 3 s.
MODELS_TIMEOUT = 2.5
_MODELS_LIMIT = 64 * 1024 * 1024
_ERROR_LIMIT = 1024 * 1024
# Seconds to wait for the body of an error response.
_ERROR_PATIENCE = 5.0
# Seconds to wait for the end of the body after [DONE], so that the connection can be reused.
_TAIL = 2.0
# Seconds of silence after which an answer is complete of which every choice has a finish reason.
FINISH_PATIENCE = 5.0
# Seconds after which there may be a file descriptor again.
_SHORT_OF_DESCRIPTORS = 5.0
_CUT = upstream_failed("The upstream closed the connection before the response was complete.")
# Some say 201 for an answer that they have created.
_GOOD = (200, 201, 202, 203)
# A compressed stream arrives in lumps.
_SENT = ((b"Content-Type", b"application/json"), (b"Accept-Encoding", b"identity"))
# In whose place these are, and what is for us.
_OWN = (b"content-type", b"accept-encoding", COMMITS_IN)
_PASSED_ERROR_HEADERS = ("retry-after", "x-should-retry")


def base_url(setting: str) -> BaseURL:
    """
    Parse the base URL of an API. Without a path it gets C{/v1}. C{/chat/completions} at its end,
    which documentation of providers has, is removed.

    @raise ValueError: the URL is not an absolute one of http or https.
    """
    base = BaseURL.parse(setting)
    path = base.path.removesuffix(b"/chat/completions").rstrip(b"/")
    return evolve(base, path=path or b"/v1", version=b"/v1")


@frozen
class OpenAIBackend:
    """
    An OpenAI-compatible upstream.

    @ivar agent: sends requests to the upstream only.
    @ivar base: the upstream's base URL; see L{base_url}.
    @ivar fixed_key: the key to send instead of the client's own key; None to pass on the client's.
    @ivar timeout: seconds without data after which a request is cancelled.
    @ivar offload: what is large is written anew by it.
    @ivar models_timeout: seconds for the list of models.
    @ivar is_gemproxy: whether it is another gemproxy, which may be told L{COMMITS_IN}.
    @ivar convert: whether requests of clients that do not stream become streaming ones.
    @ivar setting: what the base URL is set by, for messages.
    @ivar finish_patience: see L{FINISH_PATIENCE}.
    @ivar mark: by which a request that comes back is known; None for none.
    @ivar headers: further headers to send with each request.
    @ivar limits: for its answers.
    @ivar own_keys: keys by which clients are let in here. They are not passed on.
    @ivar masking: of all keys that this daemon knows.
    @ivar memory: what the upstream has refused to stream.
    """

    log = make_logger()

    clock: IReactorTime
    agent: IAgent
    base: BaseURL
    fixed_key: str | None
    timeout: float
    offload: Offload
    models_timeout: float = MODELS_TIMEOUT
    is_gemproxy: bool = False
    convert: Convert = Convert.AUTO
    setting: str = "UPSTREAM_URL"
    finish_patience: float = FINISH_PATIENCE
    mark: LoopMark | None = None
    headers: Headers = ()
    limits: AnswerLimits = AnswerLimits()
    own_keys: OwnKeys = NO_OWN_KEYS
    masking: Masking = NO_KEYS
    memory: ConversionMemory = field(factory=ConversionMemory, repr=False, eq=False)

    def complete(self, request: ChatRequest, answer: Answer) -> Deferred[None]:
        idle_timeout = IdleTimeout(self.clock, self.timeout)
        work = Deferred.fromCoroutine(self._complete(request, answer, idle_timeout))
        work = idle_timeout.watch(work)
        return work.addErrback(self._masked, credentials_in(request.headers))

    def _masked(self, failure: Failure, credentials: list[str]) -> Failure:
        """
        An error as the client may see it: an upstream may quote the key that it got.

        @param credentials: the client's own.
        """
        error = failure.value
        if failure.check(TimeoutError):
            error = upstream_silent(self.timeout)
        if not isinstance(error, ChatError):
            return failure
        shown = shown_keys(credentials)
        if self.fixed_key is not None:
            shown.append(self.fixed_key)
        return Failure(error.masked(self.masking.in_errors(shown).in_bytes))

    def models(self, headers: Headers) -> Deferred[list[dict[str, Any]]]:
        work = Deferred.fromCoroutine(self._models(headers))
        return work.addErrback(self._masked, credentials_in(headers))

    async def _complete(
        self, request: ChatRequest, answer: Answer, idle_timeout: IdleTimeout
    ) -> None:
        answer.note("waiting for the upstream")
        form = first = first_form(self.convert, request, self.memory, self.clock.seconds())
        headers = () if form is Form.AS_SENT else request.headers
        while (refused := await self._try(request, form, answer, idle_timeout)) is not None:
            following = form_after(form, refused) if self.convert is Convert.AUTO else None
            if following is None:
                raise refused
            self.log.debug(
                "{model}: sent again {form}, because of: {error}",
                model=request.model,
                form=following.value,
                error=refused,
            )
            form, request.headers = following, headers
        if form is not first:
            self.memory.learn(request.model, form, self.clock.seconds())

    async def _try(
        self, request: ChatRequest, form: Form, answer: Answer, idle_timeout: IdleTimeout
    ) -> ChatError | None:
        """
        Send the request in one form, and pass on the answer. Returns the error if there is one
        before anything was passed on.

        @raise ChatError: there was no response, or an error after something was passed on.
        """
        headers = _headers_in(form, request)
        if self.is_gemproxy and (commitment := answer.commitment()) is not None:
            headers = (*headers, (COMMITS_IN, b"%.3f" % commitment.left))
        target = self._with_query(b"/v1/chat/completions", request.query)
        choices = request.choices
        if is_as_sent(form, request):
            body = request.raw
        else:
            body = await self.offload.when(request.is_large, body_in, form, request)
        request.forget()
        asked = self._ask(b"POST", target, headers, body)
        del body
        response = await asked
        idle_timeout.reset()
        received, mask = headers_of(response), self.masking.in_bytes
        passed = tuple((name, mask(value)) for name, value in to_client(received))
        answer.passed_on(passed, request_id_of(received))
        del received
        if response.code not in _GOOD:
            return await self._refusal(response)
        for names in response.headers.getRawHeaders("x-gemproxy-ignored") or ():
            answer.ignored(names.split(", "))
        reading: Deferred[None] = Deferred()
        stream = UpstreamStream(
            request.include_usage or not request.stream,
            choices,
            self.setting,
            self.limits,
        )
        reader = _StreamReader(
            self.clock, stream, answer, idle_timeout, reading, self.finish_patience
        )
        response.deliverBody(reader)
        # Release the memory while the body is received.
        del response, asked, headers
        try:
            await reading
        except CancelledError:
            reader.abort()
            raise
        except ChatError as error:
            if reader.has_passed:
                raise
            return error
        finally:
            answer.pace(None)
            self._warn(request.model, stream)
        return None

    def _warn(self, model: str, stream: UpstreamStream) -> None:
        if stream.broken:
            self.log.warn(
                "{model}: {count} events from the upstream are not valid JSON objects",
                model=model,
                count=stream.broken,
            )
        if stream.end_is_assumed:
            self.log.warn(
                "{model}: the upstream's answer ended without a finish_reason and without [DONE]; "
                "it is taken for complete",
                model=model,
            )

    async def _models(self, headers: Headers) -> list[dict[str, Any]]:
        asked = Deferred.fromCoroutine(self._get_models(headers))
        asked.addTimeout(self.models_timeout, self.clock)
        try:
            listed = await asked
        except DeferredTimeout:
            raise upstream_silent(self.models_timeout) from None
        # Together's is a bare array.
        models = listed.get("data") if isinstance(listed, dict) else listed
        if not isinstance(models, list):
            if is_error(listed):
                raise error_of(listed, b"")
            raise upstream_failed(
                "The upstream's response to GET /v1/models is not a list of models."
            )
        usable = [
            model
            for model in models
            if isinstance(model, dict) and isinstance(model.get("id"), str) and model["id"]
        ]
        for model in filter(cannot_stream, usable):
            self.memory.learn(model["id"], Form.AS_SENT, self.clock.seconds())
        return usable

    async def _get_models(self, headers: Headers) -> Any:
        headers = without(headers, b"accept-encoding")
        response = await self._ask(b"GET", b"/v1/models", headers, None)
        if response.code not in _GOOD:
            raise await self._refusal(response)
        try:
            return loads(await read_body(response, _MODELS_LIMIT))
        except BodyCut:
            raise _CUT from None
        except BodyTooLarge:
            raise upstream_failed(
                "The upstream's response to GET /v1/models is too large."
            ) from None
        except ValueError:
            raise upstream_failed(
                "The upstream's response to GET /v1/models is not JSON."
            ) from None

    def forward(
        self, method: bytes, target: bytes, headers: Headers, body: IBodyProducer | None
    ) -> Deferred[IResponse]:
        """
        Pass on any request unchanged.

        @param target: path and query. Paths outside of C{/v1} are not below the base URL.
        """
        sent = self._headers(headers)
        path, _, query = target.partition(b"?")
        base = self.base if path.startswith(b"/v1/") else self.base.at_root()
        try:
            url = base.join(self._with_query(path, query))
        except ValueError:
            return fail(bad_request("The request target is not a path."))
        asked = maybeDeferred(self.agent.request, method, url, sent, body)
        return asked.addErrback(self._as_chat_error)

    def _as_chat_error(self, failure: Failure) -> Failure:
        failure.trap(Exception)
        return Failure(self._unanswered(cast("Exception", failure.value)))

    def _headers(self, headers: Headers) -> HeaderMap:
        """The headers to send with a client's request."""
        sent = HeaderMap.of(to_upstream(headers, self.fixed_key, self.own_keys))
        if self.mark is not None:
            self.mark.add_to(sent)
        for name, value in self.headers:
            sent.setRawHeaders(name, [value])
        return sent

    def _with_query(self, target: bytes, query: bytes) -> bytes:
        query = query_to_upstream(query, self.fixed_key, self.own_keys)
        return target + b"?" + query if query else target

    async def _ask(
        self, method: bytes, path: bytes, headers: Headers, body: bytes | None
    ) -> IResponse:
        """@raise ChatError: 502, no response was received."""
        sent = self._headers(headers)
        try:
            return await send(self.clock, self.agent, method, self.base.join(path), sent, body)
        except Exception as error:
            raise self._unanswered(error) from None

    def _unanswered(self, error: Exception) -> Exception:
        """Convert the error of a request without response to a CancelledError or a ChatError."""
        if isinstance(error, ChatError):
            return error
        if isinstance(error, (CancelledError, ConnectingCancelledError)):
            return CancelledError()
        reasons = getattr(error, "reasons", None)
        if reasons and reasons[0].check(ChatError, CancelledError):
            return cast("Exception", reasons[0].value)
        address = self.base.join(b"/").decode("ascii", "replace").rstrip("/")
        who = f"The upstream {address} ({self.setting})"
        if lacks_descriptors(error):
            # That is no fault of the upstream's, and no reason to let it rest.
            message = f"No file descriptor is left for a connection to {who[4:]} (ulimit -n)."
            return overloaded(message, _SHORT_OF_DESCRIPTORS)
        message = describe_request_error(who, error)
        return Unanswered(502, SERVER_ERROR, message, "upstream_error", final=is_untrusted(error))

    async def _refusal(self, response: IResponse) -> ChatError:
        """The error for an upstream's response with a status other than 200."""
        patience = min(_ERROR_PATIENCE, self.timeout / 2)
        body = await read_beginning(response, _ERROR_LIMIT, self.clock, patience)
        if response.code < 400:
            hint = f"; its base URL ({self.setting}) looks wrong" if response.code >= 300 else ""
            return upstream_failed(
                f"The upstream responded with status {response.code}; 200 was expected{hint}."
            )
        content_type = (response.headers.getRawHeaders(b"content-type") or [b"text/plain"])[0]
        passed = tuple(
            (name, value)
            for name in _PASSED_ERROR_HEADERS
            for value in response.headers.getRawHeaders(name) or ()
        )
        return refusal(response.code, content_type, body, passed, self.setting)


def headers_of(response: IResponse) -> Headers:
    return tuple(
        (name, value) for name, values in response.headers.getAllRawHeaders() for value in values
    )


def _headers_in(form: Form, request: ChatRequest) -> Headers:
    if form is Form.AS_SENT and not request.stream:
        return (*without(request.headers, *_OWN), *_SENT)
    headers = without(request.headers, *_OWN, b"accept")
    return (*headers, *_SENT, (b"Accept", b"text/event-stream"))


@implementer(IPushProducer)
class _StreamReader(Protocol):
    """
    Passes on a stream of events as it is received, at the client's pace.

    @ivar has_passed: whether anything of the answer was passed on.
    """

    def __init__(
        self,
        clock: IReactorTime,
        stream: UpstreamStream,
        answer: Answer,
        idle_timeout: IdleTimeout,
        finished: Deferred[None],
        finish_patience: float,
    ) -> None:
        self.has_passed = False
        self._clock = clock
        self._stream = stream
        self._answer = answer
        self._idle_timeout = idle_timeout
        self._finished: Deferred[None] | None = finished
        self._finish_patience = finish_patience
        self._grace: IDelayedCall | None = None
        self._tail: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._answer.pace(self)

    def pauseProducing(self) -> None:
        self._idle_timeout.pause()
        _cancel(self._grace)
        self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._idle_timeout.resume()
        self._producer.resumeProducing()
        self._watch_finish()

    def stopProducing(self) -> None:
        self._producer.stopProducing()

    @property
    def _producer(self) -> IPushProducer:
        return cast("IPushProducer", self.transport)

    def dataReceived(self, data: bytes) -> None:
        if self._finished is None:
            return
        self._idle_timeout.reset()
        try:
            events = self._stream.feed(data)
            if events:
                if self._stream.finished or self._grace is not None:
                    self._watch_finish()
                self._pass_on(events)
        except StreamError as broken:
            self._fail(broken)
            return
        except Exception:
            # Caught here, because the HTTP client would treat it as a connection failure.
            self._finish(Failure())
            self.abort()
            return
        if self._stream.done:
            self._finish(None)
            if not cast("Body", self.transport).is_over:
                # The client may have paused the connection and will not resume it again.
                self._producer.resumeProducing()
                self._tail = self._clock.callLater(_TAIL, self.abort)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        _cancel(self._tail)
        if self._finished is None:
            return
        if not reason.check(ResponseDone, PotentialDataLoss):
            self._finish(None if self._stream.finished else Failure(_CUT))
            return
        try:
            events = self._stream.close(is_proper=bool(reason.check(ResponseDone)))
        except StreamError as broken:
            self._fail(broken)
            return
        if self._stream.document is not None:
            self._answer.document(self._stream.document, events)
        elif events:
            self._pass_on(events)
        self._finish(None)

    def _pass_on(self, events: list[Event]) -> None:
        self.has_passed = True
        self._answer.events(events)

    def _watch_finish(self) -> None:
        """Some upstreams send neither [DONE] nor the end of the body."""
        _cancel(self._grace)
        if self._finished is not None and self._stream.is_whole and not self._stream.done:
            self._grace = self._clock.callLater(self._finish_patience, self._is_whole)

    def _is_whole(self) -> None:
        self._finish(None)
        self.abort()

    def abort(self) -> None:
        """Close the connection to the upstream, if it still belongs to this response."""
        _cancel(self._grace)
        self._finished = None
        if self.transport is not None:
            self._producer.stopProducing()

    def _fail(self, broken: StreamError) -> None:
        if broken.events:
            self._pass_on(broken.events)
        self._finish(Failure(broken.error))
        self.abort()

    def _finish(self, result: Failure | None) -> None:
        _cancel(self._grace)
        finished, self._finished = self._finished, None
        if finished is not None and not finished.called:
            if result is None:
                finished.callback(None)
            else:
                finished.errback(result)


def _cancel(call: IDelayedCall | None) -> None:
    if call is not None and call.active():
        call.cancel()
