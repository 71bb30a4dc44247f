"""Requests in other dialects than chat completions, from their bodies to the end of the answer."""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import Any

from attrs import evolve, frozen

from gemproxy.backend import Backend
from gemproxy.chat.errors import INVALID_REQUEST, ChatError, bad_request
from gemproxy.dialects.dialect import Dialect, DialectRequest, RecordsNeeded, Translation
from gemproxy.dialects.seal import Seal
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.chat import ChatService
from gemproxy.web.kept_responses import KeptResponses
from gemproxy.web.responses import send_json
from gemproxy.web.site import headers_of

_LONGEST_PAGE = 100


@frozen(eq=False)
class DialectService:
    """
    Answers requests in any dialect as L{ChatService} answers chats.

    @ivar seal: for what clients are to bring back unchanged.
    @ivar kept: the answers that requests may refer to; None if none are kept.
    @ivar wall_clock: the time of answers, in seconds since the epoch.
    """

    chats: ChatService
    seal: Seal
    kept: KeptResponses | None = None
    wall_clock: Callable[[], float] = time

    async def answer(
        self,
        request: ProxyRequest,
        dialect: Dialect,
        raw: bytes,
        backend: Backend,
        route: str,
        name: Callable[[str], str],
        has_hosted_tools: bool = True,
        takes_google: bool = True,
    ) -> None:
        """
        Answer one request, well or with an error.

        @param raw: its body.
        @param route: the name of the way the request takes, for the journal.
        @param name: makes the backend's name of a model of the client's.
        @param has_hosted_tools: whether the backend can search the web and execute code.
        @param takes_google: whether all who may answer take requests of Google's API.
        @raise CancelledError: the client has disconnected.
        """
        owner = "" if self.kept is None else request.credentials.owner()
        translation = await self.translate(request, dialect, raw, has_hosted_tools, takes_google)
        answering = self.chats.answer_in(
            request, translation.renamed(name), raw, backend, f"{route}/{dialect.name}"
        )
        size = len(raw)
        del raw
        await answering
        record = translation.record()
        if self.kept is not None and record is not None:
            await self.kept.put(record[0], owner, record[1], size)

    async def translate(
        self,
        request: ProxyRequest,
        dialect: Dialect,
        raw: bytes,
        has_hosted_tools: bool = True,
        takes_google: bool = True,
    ) -> Translation:
        """
        A request translated. Its headers are freed.

        @param raw: its body.
        @param has_hosted_tools: whether whoever answers can search the web and execute code.
        @param takes_google: whether all who may answer take requests of Google's API.
        @raise ChatError: 400, it cannot be understood.
        """
        headers = headers_of(request)
        asked = DialectRequest(
            request.path,
            raw,
            request.id,
            int(self.wall_clock()),
            self.seal,
            headers,
            request.args or {},
            has_hosted_tools,
            self.kept is not None,
            takes_google=takes_google,
        )
        try:
            translation = await self.chats.reader.translation(dialect, asked)
        except RecordsNeeded as needed:
            assert self.kept is not None  # noqa: S101 - for mypy
            records = await self.kept.get(needed.ids, request.credentials.owner())
            asked = evolve(asked, kept=records)
            translation = await self.chats.reader.translation(dialect, asked)
        request.forget_request_headers()
        return translation

    async def show_kept(self, request: ProxyRequest, id: str) -> bool:
        """
        Answer a request about a response that is kept. Returns whether it is.

        @raise ChatError: 400, it cannot be done.
        """
        if self.kept is None:
            return False
        owner = request.credentials.owner()
        record = (await self.kept.get([id], owner)).get(id)
        if record is None:
            return False
        if request.method == b"DELETE":
            await self.kept.delete(id, owner)
            send_json(request, {"id": id, "object": "response", "deleted": True})
        elif request.path.endswith(b"/input_items"):
            send_json(request, _listed(record["input"], request))
        elif request.path.endswith(b"/cancel"):
            raise bad_request("Only a response in the background can be cancelled.")
        else:
            send_json(request, record["response"])
        return True


def response_not_found(id: str) -> ChatError:
    return ChatError(
        404,
        INVALID_REQUEST,
        f"The response '{id[:100]}' is not kept here. RESPONSES_KEEP says how many are.",
        code="not_found",
        final=True,
    )


def _listed(items: list[dict[str, Any]], request: ProxyRequest) -> dict[str, Any]:
    """
    A page of items, the newest first as OpenAI has them.

    @raise ChatError: 400, a parameter is invalid.
    """
    args = request.args or {}

    def given(name: bytes, default: str) -> str:
        return str(args.get(name, [default.encode()])[0], "utf-8", "replace")

    order, limit, after = given(b"order", "desc"), given(b"limit", "20"), given(b"after", "")
    if order not in ("asc", "desc"):
        raise bad_request("'order' must be 'asc' or 'desc'.", "order")
    if not limit.isdecimal() or not 1 <= int(limit) <= _LONGEST_PAGE:
        raise bad_request(f"'limit' must be from 1 to {_LONGEST_PAGE}.", "limit")
    ordered = items if order == "asc" else items[::-1]
    ids = [item["id"] for item in ordered]
    start = ids.index(after) + 1 if after in ids else 0
    page = ordered[start : start + int(limit)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start + len(page) < len(ordered),
    }
