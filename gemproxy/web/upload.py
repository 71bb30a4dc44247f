"""Requests whose bodies are passed on while they arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from gemproxy.chat.errors import ChatError
from gemproxy.util.idle_timeout import IdleTimeout
from gemproxy.web.admission import Admission, ProxyRequest
from gemproxy.web.paths import tidy_path
from gemproxy.web.throttle import AdmissionThrottle

# Decides by method, tidied path and content type; the last is empty if the client sent none.
IsStreamed = Callable[[bytes, bytes, bytes], bool]


def never_streamed(method: bytes, path: bytes, content_type: bytes) -> bool:
    return False


@implementer(IBodyProducer)
class Upload:
    """
    A body on its way from a client to an upstream. The client is paused while the upstream is.

    @ivar length: as the client announced it; C{UNKNOWN_LENGTH} if it did not.
    @ivar complete: the client has sent all of it.
    """

    def __init__(self, length: int | None, client: IPushProducer) -> None:
        self.length: Any = UNKNOWN_LENGTH if length is None else length
        self.complete = False
        self._client = client
        self._idle_timeout: IdleTimeout | None = None
        self._held: list[bytes] = []
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] = Deferred(lambda _: self.stopProducing())
        self._is_stopped = False

    def watch(self, idle_timeout: IdleTimeout) -> None:
        """Pause an idle timeout of the upstream while the client is to send."""
        self._idle_timeout = idle_timeout

    # Called for the client:

    def receive(self, data: bytes) -> None:
        if self._is_stopped:
            return
        if self._consumer is None:
            self._held.append(data)
            self._client.pauseProducing()
        else:
            self._consumer.write(data)

    def end(self) -> None:
        self.complete = True
        # The disconnect of a paused client would not be noticed.
        self._client.resumeProducing()
        self._wait_for_client(False)
        if self._consumer is not None and not self._is_stopped:
            self._finish(None)

    def fail(self, error: ChatError) -> None:
        """Abort it: the upstream's request fails."""
        self._is_stopped = True
        self._finish(Failure(error))

    # IBodyProducer, to the upstream's connection:

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        self._consumer = consumer
        for data in self._held:
            consumer.write(data)
        self._held.clear()
        if self.complete:
            self._finish(None)
        else:
            self.resumeProducing()
        return self._done

    def pauseProducing(self) -> None:
        if not self.complete:
            self._client.pauseProducing()
            self._wait_for_client(False)

    def resumeProducing(self) -> None:
        self._client.resumeProducing()
        self._wait_for_client(not self.complete)

    def stopProducing(self) -> None:
        """Discard the rest of it."""
        self._is_stopped = True
        self._held.clear()
        self._client.resumeProducing()
        self._wait_for_client(False)

    # What Twisted needs of a request's content:

    def tell(self) -> int:
        return 0

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0

    def close(self) -> None:
        self._is_stopped = True
        self._held.clear()

    def _wait_for_client(self, waits: bool) -> None:
        if self._idle_timeout is not None:
            if waits:
                self._idle_timeout.pause()
            else:
                self._idle_timeout.resume()

    def _finish(self, failure: Failure | None) -> None:
        if self._done.called:
            return
        if failure is None:
            self._done.callback(None)
        else:
            self._done.errback(failure)


def may_be_json(content_type: bytes) -> bool:
    """As far as the client tells. Some do not, and C{curl -d} says it sends a form."""
    kind = content_type.lower()
    return not kind or b"json" in kind or b"x-www-form-urlencoded" in kind


class StreamedRequest(ProxyRequest):
    """
    A request that is served as soon as its headers are there, if its body is to be passed on: its
    content is an L{Upload} then.
    """

    __slots__ = ("_idle_timeout", "_is_answered", "_is_passed", "_is_streamed", "_upload")

    def __init__(
        self,
        admission: Admission,
        throttle: AdmissionThrottle,
        is_streamed: IsStreamed,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(admission, throttle, *args, **kwargs)
        self._is_streamed = is_streamed
        self._upload: Upload | None = None
        self._idle_timeout: float | None = None
        self._is_answered = False
        self._is_passed: bool | None = None

    def gotLength(self, length: int | None) -> None:
        super().gotLength(length)
        method, target, version = self.request_line
        if length == 0 or self._refused:
            return
        if not self.is_passed_as_it_comes():
            return
        assert self.content is not None  # noqa: S101 - for mypy
        self.content.close()
        self._upload = Upload(length, cast("IPushProducer", self.transport))
        self.content = self._upload
        # A client that is paused is not idle. There is a deadline for the whole body.
        self._idle_timeout = self.channel.setTimeout(None)
        super(ProxyRequest, self).requestReceived(method, target, version)
        if self.startedWriting:
            self.stop_continue()

    def is_passed_as_it_comes(self) -> bool:
        if self._is_passed is None:
            self._is_passed = self._can_be_passed()
        return self._is_passed

    def _can_be_passed(self) -> bool:
        method, target, _ = self.request_line
        meant = self._target_of(method, target)
        content_type = self.getHeader(b"content-type") or b""
        if self.is_restricted and may_be_json(content_type):
            # It may name a model.
            return False
        return self._is_streamed(method, tidy_path(meant.partition(b"?")[0]), content_type)

    def handleContentChunk(self, data: bytes) -> None:
        if self._upload is None:
            super().handleContentChunk(data)
            return
        self._size += len(data)
        if self._size > self.body_limit:
            self._upload.fail(self.too_large())
        else:
            self._upload.receive(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self._upload is None:
            super().requestReceived(command, path, version)
            return
        self._end_in(None)
        self._upload.end()
        if self._is_answered:
            self._finish()

    def complete_head(self) -> None:
        super().complete_head()
        if self._upload is not None and not self._upload.complete:
            self.setHeader(b"connection", b"close")

    def finish(self) -> None:
        if self._upload is None or self._upload.complete:
            self._finish()
        elif not self._is_answered:
            self._answer_early()

    def _answer_early(self) -> None:
        """End the response while the client is still sending."""
        assert self._upload is not None  # noqa: S101 - for mypy
        self._is_answered = True
        self._upload.stopProducing()
        self.close_after_response()
        self.end_body()
        self._linger()

    def _finish(self) -> None:
        channel = self.channel
        super().finish()
        if self._upload is not None and channel.persistent:
            channel.setTimeout(self._idle_timeout)

    def _too_slow(self) -> None:
        if self._upload is None:
            super()._too_slow()
        else:
            self._deadline = None
            self.channel.loseConnection()
