"""Has Google embed texts, whatever engine answers chats."""

from __future__ import annotations

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from gemproxy.backoff import RetryPolicy
from gemproxy.chat.chunks import estimated_tokens
from gemproxy.chat.embeddings import EmbeddingsRequest, embeddings_document
from gemproxy.chat.errors import ChatError, upstream_failed
from gemproxy.chat.request import is_large
from gemproxy.chat.shapes import as_object
from gemproxy.gemini.api.client import ApiFailed, GeminiApi
from gemproxy.gemini.api.keys import KeyRing
from gemproxy.gemini.translate.embeddings import Batch, Embedded, counting_body, embedded
from gemproxy.offload.pool import Offload
from gemproxy.util.gather import gather_or_cancel

# Bytes of an answer: a hundred vectors of 3,072 numbers, each on a line of its own.
_SIZE_LIMIT = 32 * 1024 * 1024
# Batches of a request. By way of Vertex AI each text is one.
_AT_ONCE = 4


@frozen
class Embedding:
    """
    @ivar timeout: seconds for each batch.
    @ivar offload: reads what is large.
    """

    clock: IReactorTime
    api: GeminiApi
    keys: KeyRing
    policy: RetryPolicy
    timeout: float
    offload: Offload

    def embed(self, request: EmbeddingsRequest) -> Deferred[tuple[bytes, int]]:
        """See L{gemproxy.backend.Embedder}."""
        return Deferred.fromCoroutine(self._embed(request))

    async def _embed(self, request: EmbeddingsRequest) -> tuple[bytes, int]:
        batches = self.api.endpoint.embedding(request)
        found: dict[int, Embedded] = {}

        async def embed_the_next() -> None:
            for batch in batches:
                found[batch.first] = await self._batch(request, batch)

        await gather_or_cancel(embed_the_next() for _ in range(_AT_ONCE))
        vectors = [found[first] for first in sorted(found)]
        counts = [each.tokens for each in vectors]
        tokens = sum(count for count in counts if count is not None)
        if None in counts:
            tokens = await self._counted(request)
        items = [each.items for each in vectors]
        return embeddings_document(request.model, items, tokens), tokens

    async def _batch(self, request: EmbeddingsRequest, batch: Batch) -> Embedded:
        answer = await self._ask(request.model, batch.method, batch.body)
        try:
            return await self.offload.when(
                is_large(answer), embedded, answer, batch, request.as_base64
            )
        except ValueError as error:
            raise upstream_failed(f"The Gemini API's answer has {error}.") from None

    async def _counted(self, request: EmbeddingsRequest) -> int:
        """The tokens of the inputs, as Google counts them; else a guess: the vectors are there."""
        target = self.api.endpoint.of_model(request.model, "countTokens")
        try:
            lease = await self.keys.acquire(request.model)
            # Counting has quotas of its own: no key rests for what it says.
            self.keys.abandon(lease)
            answer = await self.api.ask(b"POST", target, lease.key, counting_body(request))
            total = as_object(answer).get("totalTokens")
        except (ApiFailed, ChatError):
            total = None
        return total if isinstance(total, int) else estimated_tokens(request.length)

    async def _ask(self, model: str, method: str, body: bytes) -> bytes:
        """Ask for a document, retrying as the policy allows."""
        target = self.api.endpoint.of_model(model, method)
        retried = 0
        while True:
            lease = await self.keys.acquire(model)
            try:
                answer = await self.api.read(
                    b"POST", target, lease.key, body, self.timeout, _SIZE_LIMIT
                )
            except ApiFailed as failed:
                failure = failed.failure
                another_key = self.keys.release(lease, failure)
            except BaseException:
                self.keys.abandon(lease)
                raise
            else:
                self.keys.release(lease, None)
                return answer
            if another_key:
                continue
            delay = self.policy.delay(failure.retryable, failure.delay, retried, None)
            if delay is None:
                raise failure.error
            retried += 1
            await deferLater(self.clock, delay)
