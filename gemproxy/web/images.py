"""The relay of an answer that consists of pictures."""

from __future__ import annotations

from typing import Any

from gemproxy.chat.errors import ChatError
from gemproxy.chat.images import images_document, no_picture
from gemproxy.web.relay import DocumentRelay


class ImagesRelay(DocumentRelay):
    """Collects an answer, and sends its pictures as OpenAI's images API does."""

    def __init__(self, as_urls: bool, *args: Any, **kwargs: Any) -> None:
        """@param as_urls: whether the client wants data URLs instead of base64."""
        super().__init__(*args, **kwargs)
        self._as_urls = as_urls

    def finish(self) -> ChatError | None:
        completion = self._collector.completion()
        return None if self._has_delivered(completion) else no_picture(completion)

    def fail(self, error: ChatError) -> None:
        # The pictures that came before are whole, and paid for.
        if not self._has_delivered(self._collector.completion()):
            super().fail(error)

    def _has_delivered(self, completion: dict[str, Any]) -> bool:
        created, usage = int(self._exchange.time), self._exchange.usage
        document = images_document(completion, self._as_urls, created, usage)
        if document is not None:
            self._deliver(document)
        return document is not None
