"""Which call a delta goes on with, whatever servers leave out."""

from __future__ import annotations

from typing import Any

from gemproxy.dialects.calls import Calls


def delta(index: int | None, name: str = "", id: str | None = None) -> dict[str, Any]:
    return {"index": index, "id": id, "function": {"name": name}}


def test_calls_of_one_index_are_removed_in_any_order():
    calls: Calls[str] = Calls()
    calls.add(delta(0, "f"), "c1", "first")
    calls.add(delta(0, "f"), "c2", "second")
    assert calls.all() == ["first", "second"]
    assert calls.of(delta(0)) == "second"
    calls.remove("second")
    calls.remove("first")
    assert calls.all() == []
    assert calls.of(delta(0)) is None


def test_another_name_without_an_id_goes_on_where_the_index_is_the_same():
    calls: Calls[str] = Calls()
    calls.add(delta(1, "f"), "c1", "first")
    assert calls.of(delta(1, "f")) == "first"
    assert calls.of(delta(1, "f", "c2")) is None
    calls.add(delta(None, "f"), "c3", "second")
    assert calls.of(delta(None, "f")) is None
    assert calls.of(delta(None)) == "second"
