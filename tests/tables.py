"""Tables of examples for what is pure: a test for each row would cost more than the rows do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import iscoroutinefunction
from typing import Any

import pytest


def each(names: str | tuple[str, ...], rows: Iterable[Any]) -> Callable[..., Callable[..., None]]:
    """
    Like C{pytest.mark.parametrize}, but with one test for all rows, which names those that fail.
    Fixtures cannot be had: they would be the same for all.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., None]:
        keys = names if isinstance(names, tuple) else (names,)
        values = rows if isinstance(names, tuple) else ((row,) for row in rows)
        table = [dict(zip(keys, row, strict=True)) for row in values]
        assert not iscoroutinefunction(function), "nobody would wait for it"
        assert table

        def test(**given: Any) -> None:
            failed: list[BaseException] = []
            for row in table:
                try:
                    function(**given, **row)
                except (Exception, pytest.fail.Exception) as error:
                    error.add_note(f"That was with {row!r:.500}.")
                    failed.append(error)
            if failed:
                raise BaseExceptionGroup(f"{len(failed)} of {len(table)} rows", failed)

        test.__name__, test.__doc__ = function.__name__, function.__doc__
        test.__module__, test.__qualname__ = function.__module__, function.__qualname__
        return test

    return decorate
