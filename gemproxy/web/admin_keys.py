"""The accounts of clients, for those who run the daemon: /admin/keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from time import time
from typing import Any

from attrs import asdict, frozen

from gemproxy.accounts.account import NO_LIMITS, AccountLimits
from gemproxy.accounts.directory import Directory
from gemproxy.accounts.file import AccountExists, AccountsFile, NoSuchAccount
from gemproxy.accounts.records import Json, Record, limits_as_json, limits_of_json, notes_on
from gemproxy.chat.errors import INVALID_REQUEST, SERVER_ERROR, ChatError, bad_request
from gemproxy.chat.jsontext import loads
from gemproxy.siblings.asking import NO_SIBLINGS, Siblings
from gemproxy.web.admin import Endpoint
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.responses import send_json

_LOOK = "/accounts"


@frozen
class AdminKeys:
    """
    @ivar directory: what the daemon knows.
    @ivar file: what is changed.
    @ivar has_admin_key: whether C{/admin} stays open when clients need keys.
    @ivar currency: that of the prices; None if there are none.
    @ivar wall_clock: in seconds since the epoch.
    @ivar siblings: other processes, which look at the file when this one has changed it.
    """

    directory: Directory
    file: AccountsFile
    has_admin_key: bool
    currency: Callable[[], str | None]
    wall_clock: Callable[[], float] = time
    siblings: Siblings = NO_SIBLINGS

    def __attrs_post_init__(self) -> None:
        self.siblings.answer(_LOOK, self._look)

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            Endpoint("GET", "/admin/keys", self._list),
            Endpoint("POST", "/admin/keys", self._add),
            Endpoint("GET", "/admin/keys/<name>", self._show),
            Endpoint("PATCH", "/admin/keys/<name>", self._change),
            Endpoint("DELETE", "/admin/keys/<name>", self._revoke),
        )

    def _list(self, request: ProxyRequest) -> None:
        numbered: list[Json] = [
            {"name": account.name, "is_setting": True} | limits_as_json(NO_LIMITS)
            for account in self.directory.numbered()
        ]
        named = [self._shown(record) for record in self.directory.records if not record.revoked]
        send_json(request, {"data": numbered + named})

    def _show(self, request: ProxyRequest, name: str) -> None:
        for record in self.directory.records:
            if record.account.name == name and not record.revoked:
                send_json(request, self._shown(record))
                return
        raise _no_such_account(f"There is no account '{name[:100]}'.")

    async def _add(self, request: ProxyRequest) -> None:
        if not (self.has_admin_key or self.directory.are_needed):
            raise ChatError(
                409,
                INVALID_REQUEST,
                "With the first account clients need keys, and nobody would be let in here any"
                " more: set ADMIN_KEY first, or use the command 'gemproxy keys add'.",
                "admin_key_needed",
            )
        document = _document_of(request)
        name = document.pop("name", None)
        if not isinstance(name, str):
            raise bad_request("'name' must be the name of the account.", "name")
        try:
            limits = _limits_of(document)
            record, key = await self._have(self.file.add, name, limits, self.wall_clock())
        except AccountExists as error:
            raise ChatError(
                409, INVALID_REQUEST, str(error), "account_exists", "name", final=True
            ) from None
        send_json(request, self._shown(record) | {"secret": key}, 201)

    async def _change(self, request: ProxyRequest, name: str) -> None:
        record = await self._have(self.file.change, name, _document_of(request))
        send_json(request, self._shown(record))

    async def _revoke(self, request: ProxyRequest, name: str) -> None:
        await self._have(self.file.revoke, name, self.wall_clock())
        send_json(request, {"name": name, "revoked": True})

    async def _have(self, work: Callable[..., Any], *args: Any) -> Any:
        """@raise ChatError: 400, 404 or 500, it cannot be done."""
        try:
            result = await self.directory.change(work, *args)
        except ValueError as error:
            raise bad_request(str(error)) from None
        except NoSuchAccount as error:
            raise _no_such_account(str(error)) from None
        except (sqlite3.Error, OSError) as error:
            raise ChatError(
                500, SERVER_ERROR, f"The accounts cannot be written: {error}.", "not_written"
            ) from None
        # Who is answered may ask another process next.
        await self.siblings.ask(_LOOK)
        return result

    async def _look(self, _: None) -> bool:
        await self.directory.look()
        return True

    def _shown(self, record: Record) -> Json:
        spent = self.directory.spent(record.account.name)
        return record.as_json() | {
            "is_setting": False,
            "notes": notes_on(record.account.limits, self.currency()),
            "spent": {period: asdict(one) for period, one in spent.items()},
        }


def _no_such_account(message: str) -> ChatError:
    return ChatError(404, INVALID_REQUEST, message, "no_such_account", final=True)


def _limits_of(document: Json) -> AccountLimits:
    """@raise ChatError: 400, they are none."""
    try:
        return limits_of_json(document)
    except ValueError as error:
        raise bad_request(str(error)) from None


def _document_of(request: ProxyRequest) -> Json:
    """@raise ChatError: 400, the body is no JSON object."""
    try:
        document = loads(request.take_body())
    except ValueError as error:
        raise bad_request(f"The request body is not valid JSON: {error}.") from None
    if not isinstance(document, dict):
        raise bad_request("The request body must be a JSON object.")
    return document
