"""C{gemproxy keys}: the accounts of clients, whether a daemon runs or not."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from datetime import UTC, datetime
from time import time
from typing import Any

from gemproxy.accounts.account import accounts_of_keys
from gemproxy.accounts.budget import PERIODS, Spent, period_at
from gemproxy.accounts.file import FILE, AccountExists, AccountsFile, NoSuchAccount
from gemproxy.accounts.records import Record, limits_of_json, notes_on
from gemproxy.config import Config

_NONE = "none"
# As None means that there is no limit.
_NOT_GIVEN = object()


def add_commands(commands: Any) -> None:
    """
    Add those of C{gemproxy keys}.

    @param commands: of a parser, as argparse has them.
    """
    add = commands.add_parser("add", help="add an account, and print its key, once")
    add.add_argument("name", metavar="NAME")
    _add_limits(add)
    listing = commands.add_parser("list", help="list the accounts")
    listing.add_argument("--json", action="store_true", help="as JSON")
    show = commands.add_parser("show", help="show an account")
    show.add_argument("name", metavar="NAME")
    limit = commands.add_parser("limit", help="change what an account may do")
    limit.add_argument("name", metavar="NAME")
    _add_limits(limit)
    switch = limit.add_mutually_exclusive_group()
    switch.add_argument("--on", dest="on", action="store_const", const=True, help="take its key")
    switch.add_argument("--off", dest="on", action="store_const", const=False, help="do not")
    revoke = commands.add_parser("revoke", help="take an account's key away, for good")
    revoke.add_argument("name", metavar="NAME")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    number = f"a number, or {_NONE}"
    amount: dict[str, Any] = {"metavar": "N", "type": _amount, "default": _NOT_GIVEN}
    parser.add_argument(
        "--models", metavar="NAMES", help="the models it may ask, comma separated, with *"
    )
    parser.add_argument("--requests-per-minute", help=number, **amount)
    parser.add_argument("--tokens-per-minute", help=number, **amount)
    parser.add_argument("--concurrent", help=f"requests at once: {number}", **amount)
    parser.add_argument(
        "--budget",
        metavar="BUDGET",
        action="append",
        help=f"such as 5USD/month or '200k tokens/day', more than once for several; or {_NONE}",
    )
    parser.add_argument("--expires", metavar="DATE", help=f"such as 2027-01-31 (UTC), or {_NONE}")


def _amount(text: str) -> int | None:
    if text == _NONE:
        return None
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no number")
    return int(text)


def run(given: argparse.Namespace, config: Config) -> int:
    """
    Run one of the commands; returns the exit status.

    @param given: what L{add_commands} has parsed, with the name of the command in C{action}.
    """
    file = AccountsFile(config.data_dir / FILE)
    try:
        _ACTIONS[given.action](given, config, file)
    except (ValueError, AccountExists, NoSuchAccount) as error:
        return _complain(str(error))
    except (sqlite3.Error, OSError) as error:
        return _complain(f"{config.data_dir / FILE} (DATA_DIR): {error}")
    finally:
        file.close()
    return 0


def _complain(message: str) -> int:
    print(f"gemproxy: {message}", file=sys.stderr)
    return 1


def _add(given: argparse.Namespace, config: Config, file: AccountsFile) -> None:
    is_first = not config.proxy_api_keys and not file.records()
    record, key = file.add(given.name, limits_of_json(_changes(given)), time())
    _tell(f"The key of '{record.account.name}', which is kept nowhere:")
    print(key)
    _tell_notes(record, config)
    if is_first:
        _tell("From now on clients need a key.")
        if config.admin_key is None:
            _tell("/admin and the console need ADMIN_KEY from now on.")


def _list(given: argparse.Namespace, config: Config, file: AccountsFile) -> None:
    records = [record for record in file.records() if record.revoked is None]
    spent = _spent(file)
    if given.json:
        print(json.dumps([_document(record, spent) for record in records], indent=2))
        return
    rows: list[tuple[str, ...]] = [("NAME", "KEY", "TODAY", "THIS MONTH", "LIMITS")]
    for record in records:
        name = record.account.name
        sums = [_shown_spent(spent.get((name, period), Spent())) for period in PERIODS]
        rows.append((name, f"...{record.hint}", *sums, ", ".join(_limits(record)) or "-"))
    rows += [
        (account.name, "(PROXY_API_KEYS)", "", "", "-")
        for account in accounts_of_keys(config.proxy_api_keys).values()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _show(given: argparse.Namespace, config: Config, file: AccountsFile) -> None:
    found = next((one for one in file.records() if one.account.name == given.name), None)
    if found is None or found.revoked is not None:
        raise NoSuchAccount(f"There is no account '{given.name[:100]}'.")
    print(json.dumps(_document(found, _spent(file)), indent=2))


def _limit(given: argparse.Namespace, config: Config, file: AccountsFile) -> None:
    changes = _changes(given)
    if given.on is not None:
        changes["on"] = given.on
    record = file.change(given.name, changes)
    print(f"{record.account.name}: {', '.join(_limits(record)) or 'no limits'}")
    _tell_notes(record, config)


def _revoke(given: argparse.Namespace, config: Config, file: AccountsFile) -> None:
    file.revoke(given.name, time())
    print(f"The key of '{given.name}' is taken no more.")


_ACTIONS = {"add": _add, "list": _list, "show": _show, "limit": _limit, "revoke": _revoke}


def _tell(sentence: str) -> None:
    """Beside the output, which a script may take the key from."""
    print(sentence, file=sys.stderr)


def _tell_notes(record: Record, config: Config) -> None:
    for note in notes_on(record.account.limits, config.prices.known_currency):
        _tell(note)


def _changes(given: argparse.Namespace) -> dict[str, Any]:
    """What was given, as L{limits_of_json} takes it."""
    changes: dict[str, Any] = {
        name: value
        for name in ("requests_per_minute", "tokens_per_minute", "concurrent")
        if (value := getattr(given, name)) is not _NOT_GIVEN
    }
    if given.models is not None:
        changes["models"] = [] if given.models == _NONE else given.models.split(",")
    if given.budget is not None:
        changes["budgets"] = [] if given.budget == [_NONE] else given.budget
    if given.expires is not None:
        changes["expires"] = None if given.expires == _NONE else given.expires
    return changes


def _spent(file: AccountsFile) -> dict[tuple[str, str], Spent]:
    """By the names of accounts and periods."""
    now = time()
    names = {period_at(period, now): period for period in PERIODS}
    return {(name, names[when]): one for (name, when), one in file.spent(list(names)).items()}


def _document(record: Record, spent: dict[tuple[str, str], Spent]) -> dict[str, Any]:
    sums = {period: spent.get((record.account.name, period), Spent()) for period in PERIODS}
    return record.as_json() | {
        "spent": {
            period: {"requests": one.requests, "tokens": one.tokens, "cost": one.cost}
            for period, one in sums.items()
        }
    }


def _shown_spent(spent: Spent) -> str:
    cost = f", {spent.cost:.2f}" if spent.cost else ""
    return f"{spent.tokens} tokens{cost}" if spent.requests else "-"


def _limits(record: Record) -> list[str]:
    limits = record.account.limits
    shown = [str(budget) for budget in limits.budgets]
    for amount, unit in (
        (limits.requests_per_minute, "requests/minute"),
        (limits.tokens_per_minute, "tokens/minute"),
        (limits.concurrent, "at once"),
    ):
        if amount is not None:
            shown.append(f"{amount} {unit}")
    if limits.models:
        shown.append(f"models {' '.join(limits.models)}")
    if limits.expires is not None:
        shown.append(f"until {datetime.fromtimestamp(limits.expires, UTC):%Y-%m-%d %H:%M} UTC")
    return shown if limits.is_on else ["off", *shown]
