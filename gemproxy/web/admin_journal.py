"""C{/admin/journal}: the last exchanges, for those who run the daemon."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from attrs import frozen

from gemproxy.chat.errors import INVALID_REQUEST, ChatError, bad_request
from gemproxy.chat.jsontext import dumps
from gemproxy.journal_reader import JournalReader, Wanted, status_filter
from gemproxy.util.masking import NO_KEYS, Masking
from gemproxy.web.admin import Endpoint
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.detached import Detached
from gemproxy.web.responses import send_rendered

_WORDS = ("id", "model", "account")
_PAGE, _LONGEST_PAGE = 50, 200
# Characters of what is searched for.
_LONGEST_TEXT = 1000


@frozen
class AdminJournal:
    """
    @ivar reader: None if no journal is kept.
    @ivar in_thread: calls a function in a thread of its own kind: a search takes long, and what is
        written must not wait for it.
    @ivar own_keys: of this daemon; some may be newer than the files.
    """

    reader: JournalReader | None
    in_thread: Callable[..., Awaitable[Any]]
    own_keys: Masking = NO_KEYS

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            Endpoint("GET", "/admin/journal", lambda request: Detached(self._list(request))),
            Endpoint(
                "GET",
                "/admin/journal/<name>",
                lambda request, name: Detached(self._show(request, name)),
            ),
        )

    async def _list(self, request: ProxyRequest) -> None:
        reader, asked = self._reader(), _Asked(request)
        try:
            is_status = status_filter(asked.text("status"))
        except ValueError:
            raise bad_request("'status' must be such as 503, 5xx or error.", "status") from None
        words = {name: word for name in _WORDS if (word := asked.text(name))}
        wanted = Wanted(words, is_status, asked.text("text"))
        before = asked.number("before", None, 1, 10**15)
        limit = asked.number("limit", _PAGE, 1, _LONGEST_PAGE)
        send_rendered(request, await self.in_thread(self._page, reader, wanted, before, limit))

    async def _show(self, request: ProxyRequest, name: str) -> None:
        content = await self.in_thread(self._entry, self._reader(), name)
        if content is None:
            raise ChatError(
                404,
                INVALID_REQUEST,
                f"The journal has no exchange '{name[:100]}'. LOG_KEEP says how many are kept.",
                "not_found",
            )
        send_rendered(request, content)

    def _reader(self) -> JournalReader:
        if self.reader is None:
            raise ChatError(
                404, INVALID_REQUEST, "No journal is kept: LOG_DIR is not set.", "journal_off"
            )
        return self.reader

    # In a thread, where large ones are rendered too:

    def _page(self, reader: JournalReader, wanted: Wanted, before: int | None, limit: int) -> bytes:
        return self.own_keys.in_bytes(dumps(reader.search(wanted, before, limit)))

    def _entry(self, reader: JournalReader, name: str) -> bytes | None:
        entry = reader.entry(name)
        return None if entry is None else self.own_keys.in_bytes(dumps(entry))


@frozen
class _Asked:
    """The parameters of a request."""

    request: ProxyRequest

    def text(self, name: str) -> str:
        """@raise ChatError: 400, it is too long."""
        values = (self.request.args or {}).get(name.encode(), [b""])
        text = str(values[-1], "utf-8", "replace")
        if len(text) > _LONGEST_TEXT:
            raise bad_request(f"'{name}' must have {_LONGEST_TEXT} characters at most.", name)
        return text

    def number(self, name: str, default: int | None, low: int, high: int) -> int | None:
        """@raise ChatError: 400, it is not such a number."""
        text = self.text(name)
        if not text:
            return default
        if not text.isascii() or not text.isdecimal() or not low <= int(text) <= high:
            raise bad_request(f"'{name}' must be from {low} to {high}.", name)
        return int(text)
