"""What more than one test has hypothesis make up."""

from __future__ import annotations

from hypothesis import strategies as st

_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)


def json_values(*keys: str) -> st.SearchStrategy:
    """Any JSON value; its objects have these keys more often than chance would give them."""
    names = st.sampled_from(keys) | st.text(max_size=5) if keys else st.text(max_size=5)
    return st.recursive(
        _LEAVES,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
        max_leaves=12,
    )
