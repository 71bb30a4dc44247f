"""OpenAI's embeddings API for Gemini's models."""

from __future__ import annotations

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from gemproxy.backend import Embedder
from gemproxy.chat.chunks import Usage
from gemproxy.chat.errors import ChatError
from gemproxy.chat.models import is_always_served
from gemproxy.usage.meter import Meter
from gemproxy.usage.row import CLIENT_GONE
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.reader import BodyReader
from gemproxy.web.responses import send_rendered

PATH = "/v1/embeddings"


@frozen
class EmbeddingsService:
    """
    Answers requests for embeddings.

    @ivar upstream: the name of who embeds, for the meter.
    """

    clock: IReactorTime
    reader: BodyReader
    embedder: Embedder
    meter: Meter
    upstream: str

    async def answer(self, request: ProxyRequest, raw: bytes, model: str) -> None:
        """
        Answer one request.

        @param raw: its body.
        @param model: the embedder's name of the model.
        @raise ChatError: it is refused.
        @raise CancelledError: the client has disconnected.
        """
        asked = evolve(await self.reader.embeddings(raw), model=model)
        del raw
        is_always_served(model)
        began, usage, status = self.clock.seconds(), None, 200
        request.is_counted = True
        try:
            document, tokens = await self.embedder.embed(asked)
            usage = Usage(tokens, 0)
        except CancelledError:
            status = CLIENT_GONE
            raise
        except ChatError as error:
            status = error.status
            raise
        finally:
            self.meter.count(
                id=request.id,
                account=None if request.account is None else request.account.name,
                model=model,
                upstream=self.upstream,
                status=status,
                usage=usage,
                duration=self.clock.seconds() - began,
            )
        send_rendered(request, document)
