"""What clients keep for the daemon and bring back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.dialects.seal import Seal

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(VALUES.filter(lambda value: value is not None))
def test_what_is_sealed_can_be_read_by_all_with_the_same_keys(value: Any):
    sealed = Seal.of_keys(["one", "two"]).close(value)
    assert Seal.of_keys(["two", "one", ""]).open(sealed) == value
    assert Seal.of_keys(["one"]).open(sealed) is None


@given(st.data())
def test_a_changed_text_is_noticed(data: st.DataObject):
    seal = Seal(b"secret")
    sealed = seal.close({"id": "signature"})
    at = data.draw(st.integers(0, len(sealed) - 1))
    other = data.draw(st.sampled_from("ABCxyz019-_=*").filter(lambda char: char != sealed[at]))
    opened = seal.open(sealed[:at] + other + sealed[at + 1 :])
    # The last character has bits that no byte is made of.
    assert opened is None or at == len(sealed) - 1
    assert seal.open(sealed[:at]) is None


@pytest.mark.parametrize(
    "text", [None, 3, "", "gp1_", "gp1_*", "gp1_é", "EqQBCgIYAhIM", "gp1_AAAA"]
)
def test_foreign_texts_are_no_seal(text: Any):
    assert Seal(b"secret").open(text) is None


def test_without_keys_a_seal_is_good_for_one_run():
    assert Seal.of_keys([]).open(Seal.of_keys([""]).close(1)) is None
