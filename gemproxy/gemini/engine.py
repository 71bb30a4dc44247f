"""The Gemini engine: processes chat completion requests through the Gemini CLI."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from time import time
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from gemproxy.backend import Answer
from gemproxy.backoff import RetryPolicy
from gemproxy.chat.chunks import ChunkFactory, estimated_usage
from gemproxy.chat.errors import ChatError, naming_models
from gemproxy.chat.models import by_name, is_always_served, served_model
from gemproxy.chat.request import ChatRequest, Headers
from gemproxy.gemini.attempt import AttemptFailed, Attempts, Choice, Tally, api_request
from gemproxy.gemini.counting import TokenCounting
from gemproxy.gemini.flow import Flow
from gemproxy.gemini.keys import KeyRing
from gemproxy.gemini.model_list import ModelList
from gemproxy.gemini.translate.families import Family, family_of
from gemproxy.gemini.translate.history import merged
from gemproxy.gemini.translate.messages import Conversation, translate_messages
from gemproxy.gemini.translate.parameters import Defaults, Parameters, parameters
from gemproxy.gemini.translate.signatures import Signatures, is_corrupted
from gemproxy.gemini.writer import ChoiceWriter, Opening
from gemproxy.util.gather import gather_or_cancel
from gemproxy.util.log import make_logger


@frozen
class GeminiEngine:
    """
    A backend that uses the Gemini CLI.

    @ivar model_list: the models on offer; requests may use other Gemini models.
    @ivar defaults: what applies unless a client says otherwise.
    @ivar counting: counts tokens.
    @ivar fetch_pictures: replaces the URLs of pictures by the pictures; None to reject messages
        with such URLs.
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
    fetch_pictures: Callable[[Any], Awaitable[Any]] | None = None
    signatures: Signatures = field(factory=Signatures)
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
        body = request.body
        request.forget()
        family = family_of(request.model)
        wanted = parameters(body, family, self.defaults)
        answer.ignored(wanted.ignored)
        if wanted.stops:
            answer.stop_at(wanted.stops)
        conversation = await self._conversation(body, family, wanted)
        # Release the memory while the response is generated.
        del body
        chunks = ChunkFactory(
            f"chatcmpl-{secrets.token_hex(12)}", int(self.wall_clock()), request.model
        )
        opening = Opening()
        flow = Flow()
        tally = Tally(answer)
        choices = [
            Choice(
                request.model,
                conversation,
                wanted.request,
                answer,
                ChoiceWriter(answer, chunks, opening, index, wanted),
                flow,
                tally,
            )
            for index in range(wanted.choices)
        ]
        answer.pace(flow)
        try:
            await gather_or_cancel(
                [Deferred.fromCoroutine(self._choose(choice)) for choice in choices]
            )
        finally:
            answer.pace(None)
        if tally.total is None:
            length = sum(choice.writer.length for choice in choices)
            usage = estimated_usage(request.body.get("messages"), length)
            answer.counted(usage)
        else:
            usage = tally.total
        if request.include_usage or not request.stream:
            answer.events([chunks.usage(usage)])

    async def _conversation(
        self, body: Mapping[str, Any], family: Family, wanted: Parameters
    ) -> Conversation:
        messages = body.get("messages")
        if self.fetch_pictures is not None:
            messages = await self.fetch_pictures(messages)
        return translate_messages(messages, family, self.signatures, wanted.instruction)

    def count(self, request: ChatRequest) -> Deferred[int]:
        return Deferred.fromCoroutine(self._count(request))

    async def _count(self, request: ChatRequest) -> int:
        await self.check_model(request.model)
        family = family_of(request.model)
        wanted = parameters(request.body, family, self.defaults)
        conversation = await self._conversation(request.body, family, wanted)
        asked = api_request(conversation, merged(conversation.turns), wanted.request)
        return await self.counting.count(request.model, asked, conversation.key)

    async def _choose(self, choice: Choice) -> None:
        """Generate one choice, retrying as the policy allows."""
        retried = 0
        while True:
            lease = self.keys.acquire(choice.model, choice.conversation.key)
            try:
                reply = await self.attempts.run(choice, lease.key)
            except AttemptFailed as failed:
                failure = failed.failure
                another_key = self.keys.release(lease, failure)
            except BaseException:
                self.keys.abandon(lease)
                raise
            else:
                self.keys.release(lease, None)
                break
            if not choice.writer.may_restart():
                raise failure.error
            if is_corrupted(failure.error.message) and choice.conversation.is_signed:
                choice.conversation = choice.conversation.without_signatures(lease.key)
                continue
            if another_key:
                continue
            delay = self.policy.delay(
                failure.retryable, failure.delay, retried, choice.answer.commitment()
            )
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
            choice.answer.note(f"retry {retried} of {self.policy.retries} in {delay:.0f} s")
            await deferLater(self.clock, delay)
        for call in reply.calls:
            self.signatures.remember(call.id, call.signature, lease.key)
        for signature in reply.signatures:
            self.signatures.remember(signature, signature, lease.key)
        choice.writer.finish(reply)

    async def _final(self, error: ChatError, model: str) -> ChatError:
        """The error for the client; if Google does not have the model, it names those it has."""
        if error.code != "model_not_found":
            return error
        names = await self.model_list.true_names()
        return naming_models(error, [name for name in names if name != model])
