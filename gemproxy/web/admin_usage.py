"""What /admin says of the usage: who used how much of what, and what it cost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from time import time

from attrs import frozen

from gemproxy.chat.errors import INVALID_REQUEST, ChatError, bad_request
from gemproxy.usage.recorder import NoUsage
from gemproxy.usage.report import BadQuestion, Question, question_of
from gemproxy.web.admin import Endpoint
from gemproxy.web.admission import ProxyRequest

_TYPES = {"json": b"application/json", "csv": b"text/csv; charset=utf-8; header=present"}


@frozen
class AdminUsage:
    """
    @ivar read: answers a question in a form; raises NoUsage or BadQuestion.
    @ivar wall_clock: in seconds since the epoch.
    """

    read: Callable[[Question, str], Awaitable[bytes]]
    wall_clock: Callable[[], float] = time

    def endpoints(self) -> Sequence[Endpoint]:
        return (Endpoint("GET", "/admin/usage", self._show),)

    async def _show(self, request: ProxyRequest) -> None:
        """@raise ChatError: 400, the query cannot be understood; 404, there is nothing to show."""
        given = {
            name.decode("utf-8", "replace"): values[-1].decode("utf-8", "replace")
            for name, values in (request.args or {}).items()
        }
        form = given.get("format") or _form_of(request.header_text(b"accept") or "")
        if form not in _TYPES:
            raise bad_request("'format' must be json or csv.", "format")
        try:
            body = await self.read(question_of(given, self.wall_clock()), form)
        except BadQuestion as error:
            raise bad_request(str(error), error.name) from None
        except NoUsage as error:
            raise ChatError(404, INVALID_REQUEST, str(error), "no_usage", final=True) from None
        request.setHeader(b"content-type", _TYPES[form])
        if form == "csv":
            request.setHeader(b"content-disposition", b'attachment; filename="usage.csv"')
        request.setHeader(b"content-length", str(len(body)).encode())
        request.write(body)


def _form_of(accept: str) -> str:
    return "csv" if "text/csv" in accept and "json" not in accept else "json"
