"""Which headers pass between a client and New-API."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from gemproxy.chat.request import Headers
from gemproxy.http.headers import without
from gemproxy.openai.headers import to_upstream

HOP_BY_HOP = (
    *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade"),
    *(b"transfer-encoding", b"content-length", b"host", b"expect"),
    *(b"proxy-authorization", b"proxy-authenticate"),
)
SECRETS = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"cookie")
ABOUT_A_PAGE = (b"origin", b"referer", b"sec-fetch-site")
HARMLESS = (b"accept", b"content-type", b"user-agent", b"x-request-id", b"idempotency-key")


@st.composite
def in_some_case(draw: st.DrawFn, name: bytes) -> bytes:
    return bytes(ord(chr(c).upper()) if draw(st.booleans()) else c for c in name)


names = st.one_of(
    st.sampled_from(HOP_BY_HOP + SECRETS + ABOUT_A_PAGE + HARMLESS).flatmap(in_some_case),
    st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,10}", fullmatch=True),
)
values = st.binary(max_size=12) | st.lists(names, max_size=3).map(b" , ".join)
any_headers = st.lists(st.tuples(names, values), max_size=10).map(tuple)


def options_of(headers: Headers) -> set[bytes]:
    """What Connection headers name."""
    joined = b",".join(value for name, value in headers if name.lower() == b"connection")
    return {token.strip().lower() for token in joined.split(b",")}


@given(any_headers)
@example(((b"Connection", b"X-A, close"), (b"x-a", b"1"), (b"X-B", b"2")))
def test_what_is_about_one_connection_is_left_out_and_all_else_kept(headers: Headers) -> None:
    about_it = options_of(headers) | {*HOP_BY_HOP, *ABOUT_A_PAGE}
    expected = tuple(
        header
        for header in headers
        if header[0].lower() not in about_it and not header[0].lower().startswith(b"sec-")
    )
    assert to_upstream(headers, None) == expected
    assert to_upstream(expected, None) == expected


@given(any_headers, st.none() | st.just("our-key"))
def test_the_upstream_sees_one_key_and_no_page(headers: Headers, fixed_key: str | None) -> None:
    sent = to_upstream(headers, fixed_key)
    seen = [name.lower() for name, _ in sent]
    assert not any(name in HOP_BY_HOP + ABOUT_A_PAGE for name in seen)
    if fixed_key is None:
        # As the client sent them, in its order.
        assert [header for header in headers if header in sent] == list(sent)
    else:
        assert sent[-1] == (b"Authorization", b"Bearer our-key")
        assert not any(name in SECRETS for name in seen[:-1])
    harmless = [header for header in to_upstream(headers, None) if header[0].lower() in HARMLESS]
    assert [header for header in sent if header[0].lower() in HARMLESS] == harmless


@given(any_headers, st.sets(st.sampled_from(HARMLESS)))
def test_named_ones_can_be_left_out(headers: Headers, left_out: set[bytes]) -> None:
    kept = without(headers, *left_out)
    assert kept == tuple(header for header in headers if header[0].lower() not in left_out)
