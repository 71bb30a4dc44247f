"""The Gemini engine: processes chat completion requests by means of the Gemini API."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from time import time
from typing import Any

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from gemproxy.backend import Answer
from gemproxy.backoff import RetryPolicy
from gemproxy.chat.chunks import ChunkFactory, estimated_usage
from gemproxy.chat.embeddings import EmbeddingsRequest
from gemproxy.chat.errors import ChatError, naming_models
from gemproxy.chat.models import by_name, is_always_served, served_model
from gemproxy.chat.request import ChatRequest, Headers
from gemproxy.gemini.api.counting import TokenCounting
from gemproxy.gemini.api.keys import KeyRing
from gemproxy.gemini.api.model_list import ModelList
from gemproxy.gemini.attempt import AttemptFailed, Attempts, Choice, Tally
from gemproxy.gemini.embedding import Embedding
from gemproxy.gemini.flow import Flow
from gemproxy.gemini.prepare import Prepared, needs_of, prepare
from gemproxy.gemini.signature_memory import SignatureMemory
from gemproxy.gemini.translate.parameters import Defaults
from gemproxy.gemini.translate.remote_pictures import remote_pictures
from gemproxy.gemini.translate.signatures import is_corrupted
from gemproxy.gemini.writer import ChoiceWriter, Opening
from gemproxy.offload.pool import Offload
from gemproxy.util.gather import gather_or_cancel
from gemproxy.util.log import make_logger


@frozen
class GeminiEngine:
    """
    A backend that has Google's models answer.

    @ivar attempts: the way to them.
    @ivar model_list: the models on offer; requests may use other Gemini models.
    @ivar defaults: what applies unless a client says otherwise.
    @ivar counting: counts tokens.
    @ivar embedding: embeds texts.
    @ivar offload: what is large is translated by it.
    @ivar fetch_pictures: see L{PictureFetcher.fetch}; None to reject messages with URLs of
        pictures.
    @ivar signatures: the signatures of function calls made by models.
    @ivar wall_clock: the creation time of completions, in seconds since the epoch.
    """

    log = make_logger()

    clock: IReactorTime
    attempts: Attempts
    keys: KeyRing
    policy: RetryPolicy
    model_list: ModelList
    defaults: Defaults
    counting: TokenCounting
    embedding: Embedding
    offload: Offload
    fetch_pictures: Callable[[dict[str, str]], Awaitable[dict[str, str]]] | None = None
    signatures: SignatureMemory = field(factory=SignatureMemory)
    wall_clock: Callable[[], float] = time

    def models(self, headers: Headers) -> Deferred[list[dict[str, Any]]]:
        return self.model_list.get()

    async def check_model(self, model: str) -> None:
        """@raise ChatError: 400, the name is malformed; 404, the model is not served."""
        if not is_always_served(model):
            served_model(model, by_name(await self.model_list.get()))

    def complete(self, request: ChatRequest, answer: Answer) -> Deferred[None]:
        return Deferred.fromCoroutine(self._complete(request, answer))

    async def _complete(self, request: ChatRequest, answer: Answer) -> None:
        await self.check_model(request.model)
        prepared = await self._prepared(request)
        request.forget()
        wanted = prepared.wanted
        answer.ignored(wanted.ignored)
        if wanted.stops:
            answer.stop_at(wanted.stops)
        chunks = ChunkFactory(
            f"chatcmpl-{secrets.token_hex(12)}", int(self.wall_clock()), request.model
        )
        opening = Opening()
        flow = Flow()
        tally = Tally(answer)
        choices = [
            Choice(
                request.model,
                prepared,
                answer,
                ChoiceWriter(answer, chunks, opening, index, wanted),
                flow,
                tally,
            )
            for index in range(wanted.choices)
        ]
        answer.pace(flow)
        try:
            await gather_or_cancel(self._choose(choice, request) for choice in choices)
        finally:
            answer.pace(None)
            for choice in choices:
                choice.release()
        if tally.total is None:
            length = sum(choice.writer.length for choice in choices)
            usage = estimated_usage(request.prompt_length, length)
            answer.counted(usage)
        else:
            usage = tally.total
        if request.include_usage or not request.stream:
            answer.events([chunks.usage(usage)])

    def count(self, request: ChatRequest) -> Deferred[int]:
        return Deferred.fromCoroutine(self._count(request))

    async def _count(self, request: ChatRequest) -> int:
        await self.check_model(request.model)
        prepared = await self._prepared(request)
        return await self.counting.count(request.model, prepared.body, self._preferred(prepared))

    def embed(self, request: EmbeddingsRequest) -> Deferred[tuple[bytes, int]]:
        return self.embedding.embed(request)

    async def _prepared(self, request: ChatRequest, unsigned: bool = False) -> Prepared:
        """@raise ChatError: 400, the request is invalid, or a picture cannot be fetched."""
        if not (request.is_large or self._shows_pictures(request)):
            noted = self.signatures.noted()
            prepared = prepare(request, self.defaults, noted, {}, unsigned)
            if noted.lacking and await self.signatures.find(noted.lacking):
                return prepare(request, self.defaults, self.signatures.noted(), {}, unsigned)
            return prepared
        needs = await self.offload.when(request.is_large, needs_of, request, self.defaults)
        pictures = dict[str, str]()
        if self.fetch_pictures is not None and needs.pictures:
            pictures = await self.fetch_pictures(needs.pictures)
        await self.signatures.find(needs.signatures)
        signatures = self.signatures.among(needs.signatures)
        return await self.offload.when(
            request.is_large, prepare, request, self.defaults, signatures, pictures, unsigned
        )

    def _shows_pictures(self, request: ChatRequest) -> bool:
        """Whether there are pictures to be fetched."""
        fetches = self.fetch_pictures is not None
        return fetches and bool(remote_pictures(request.body.get("messages")))

    async def _choose(self, choice: Choice, request: ChatRequest) -> None:
        """Generate one choice, retrying as the policy allows."""
        retried = 0
        while True:
            lease = await self.keys.acquire(choice.model, self._preferred(choice.prepared))
            try:
                reply = await self.attempts.run(choice, lease.key)
            except AttemptFailed as failed:
                failure = failed.failure
                # However bad, it is Google's answer, for whoever wants that.
                answered = failed.reply if choice.prepared.is_native else None
                another_key = self.keys.release(lease, failure)
            except BaseException:
                self.keys.abandon(lease)
                raise
            else:
                self.keys.release(lease, None)
                break
            delay = self.policy.delay(
                failure.retryable, failure.delay, retried, choice.answer.commitment()
            )
            if answered is not None and delay is None:
                reply = answered
                break
            if not choice.writer.may_restart():
                if answered is None:
                    raise failure.error
                reply = answered
                break
            if is_corrupted(failure.error.message) and choice.prepared.is_signed:
                unsigned = await self._prepared(request, unsigned=True)
                request.forget()
                choice.prepared = evolve(unsigned, key=lease.key)
                continue
            if another_key:
                continue
            if delay is None:
                raise await self._final(failure.error, choice.model)
            retried += 1
            choice.answer.retrying(failure.error)
            self.log.info(
                "{model}: {error}; retry {retried} of {retries} in {delay:.1f} s",
                model=choice.model,
                error=failure.error,
                retried=retried,
                retries=self.policy.retries,
                delay=delay,
            )
            choice.answer.note(f"retry {retried} of {self.policy.retries}", delay)
            await deferLater(self.clock, delay)
        of_calls = [(call.id, call.signature) for call in reply.calls]
        of_others = [(signature, signature) for signature in reply.signatures]
        self.signatures.remember([*of_calls, *of_others], lease.key)
        if choice.prepared.is_native:
            choice.writer.finish_native(reply)
        else:
            choice.writer.finish(reply)

    def _preferred(self, prepared: Prepared) -> str | None:
        """The API key that a request needs if possible."""
        return self.keys.first if prepared.needs_files else prepared.key

    async def _final(self, error: ChatError, model: str) -> ChatError:
        """The error for the client; if Google does not have the model, it names those it has."""
        if error.code != "model_not_found":
            return error
        names = await self.model_list.true_names()
        return naming_models(error, [name for name in names if name != model])
