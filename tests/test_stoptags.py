"""Tags that end an answer, found in text that comes in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.chat.jsontext import loads
from gemproxy.chat.stoptags import StopTagScanner, TagPatterns
from tests.tables import each


def scan(tags: Sequence[str], pieces: Iterable[str]) -> tuple[str, bool]:
    """All the text that is let through, and whether it was stopped."""
    scanner = StopTagScanner(tags)
    text = "".join([scanner.feed(piece) for piece in pieces])
    text += scanner.flush()
    assert not scanner.held
    return text, scanner.stopped


def naive(tags: Sequence[str], text: str) -> tuple[str, bool]:
    starts = [text.find(tag) for tag in tags if tag and tag in text]
    return (text[: min(starts)], True) if starts else (text, False)


def naive_so_far(tags: Sequence[str], text: str) -> tuple[str, bool]:
    """What is certain after this much text: it ends where a tag begins, or may have begun."""
    for start in range(len(text)):
        rest = text[start:]
        for tag in filter(None, tags):
            if rest.startswith(tag):
                return text[:start], True
        if any(tag.startswith(rest) for tag in tags):
            return text[:start], False
    return text, False


EXAMPLES: list[tuple[list[str], str, str, bool]] = [
    (["</stop>"], "all of this", "all of this", False),
    (["</stop>"], "before</stop>after", "before", True),
    (["</stop>"], "</stop>", "", True),
    (["</stop>"], "a</stop>b</stop>c", "a", True),
    (["</stop>"], "a </stop without an end", "a </stop without an end", False),
    (["</stop>"], "a<</stop>b", "a<", True),
    (["</stop>"], "a</s</st</stop>b", "a</s</st", True),
    (["</stop>"], "cut off in a </sto", "cut off in a </sto", False),
    (["</stop>"], "</STOP>", "</STOP>", False),
    (["x"], "one characterx", "one character", True),
    (["x"], "xx", "", True),
    (["aab", "ab"], "aaab", "a", True),
    (["ab", "aab"], "aaab", "a", True),
    (["aab"], "aaaaab!", "aaa", True),
    (["abab"], "abaabab", "aba", True),
    (["ab", "abc"], "xabc", "x", True),
    (["END", "STOP"], "a STOP b END", "a ", True),
    (["abcde", "bc"], "abcde", "", True),
    (["abcde", "bc"], "abcdx", "a", True),
    (["abcde", "bc"], "abc", "a", True),
    (["abcde", "bc", "cdx"], "abcdx", "a", True),
    ([".*", "[x"], "a.b[y.*", "a.b[y", True),
    (["🛑"], "a🛐🛑b", "a🛐", True),
    (["\n\n"], "a\nb\n\nc", "a\nb", True),
    ([""], "everything", "everything", False),
    (["", "b"], "abc", "a", True),
    ([], "everything", "everything", False),
]


@each(("tags", "text", "passed", "stopped"), EXAMPLES)
def test_the_first_tag_ends_the_text_however_it_is_cut(
    tags: list[str], text: str, passed: str, stopped: bool
) -> None:
    assert naive(tags, text) == (passed, stopped)
    assert scan(tags, [text]) == (passed, stopped)
    assert scan(tags, text) == (passed, stopped)
    for place in range(len(text) + 1):
        assert scan(tags, [text[:place], "", text[place:]]) == (passed, stopped)


TAGS = st.lists(st.text("ab<", max_size=5), max_size=4)


@given(TAGS, st.text("ab<", max_size=12))
def test_every_cut_in_two_agrees_with_a_search_in_the_whole(tags: list[str], text: str) -> None:
    expected = naive(tags, text)
    for place in range(len(text) + 1):
        assert scan(tags, [text[:place], text[place:]]) == expected


@given(TAGS, st.lists(st.text("ab<", max_size=5), max_size=8))
def test_text_is_let_through_as_soon_as_it_is_certain_and_no_sooner(
    tags: list[str], pieces: list[str]
) -> None:
    scanner = StopTagScanner(tags)
    fed = passed = ""
    for piece in pieces:
        fed += piece
        passed += scanner.feed(piece)
        assert (passed, scanner.stopped) == naive_so_far(tags, fed)
        assert scanner.held == (passed != fed and not scanner.stopped)
        if scanner.held:
            assert len(fed) - len(passed) < max(map(len, tags))
    assert (passed + scanner.flush(), scanner.stopped) == naive(tags, fed)


def test_what_looks_like_a_tag_is_held_only_while_it_does() -> None:
    scanner = StopTagScanner(["</stop>"])
    assert scanner.feed("a <") == "a "
    assert scanner.held
    assert scanner.feed("/st") == ""
    assert scanner.feed("rong> b") == "</strong> b"
    assert not scanner.held
    assert not scanner.stopped


def test_nothing_comes_after_a_tag() -> None:
    scanner = StopTagScanner(["</stop>"])
    assert scanner.feed("a</stop>b") == "a"
    assert scanner.stopped
    assert not scanner.held
    assert scanner.feed("c") == ""
    assert scanner.flush() == ""
    assert scanner.stopped


def test_a_flush_releases_once() -> None:
    scanner = StopTagScanner(["</stop>"])
    scanner.feed("</sto")
    assert scanner.flush() == "</sto"
    assert scanner.flush() == ""
    assert not scanner.stopped


def test_scanners_of_two_choices_do_not_mix() -> None:
    tags = ["</stop>"]
    one, other = StopTagScanner(tags), StopTagScanner(tags)
    assert one.feed("</st") == ""
    assert other.feed("op>") == "op>"
    assert one.feed("op>") == ""
    assert (one.stopped, other.stopped) == (True, False)


def escaped(text: str, upper: bool) -> str:
    """The text in UTF-16 escapes, as some JSON writers spell all that is not ASCII."""
    encoded = text.encode("utf-16-be", "surrogatepass").hex()
    units = [encoded[at : at + 4] for at in range(0, len(encoded), 4)]
    return "".join("\\u" + (unit.upper() if upper else unit) for unit in units)


def halves(char: str) -> list[str]:
    encoded = char.encode("utf-16-be", "surrogatepass")
    return [chr(int.from_bytes(encoded[at : at + 2], "big")) for at in range(0, len(encoded), 2)]


def spellings(char: str) -> list[bytes]:
    """Every way in which a JSON string can hold the character."""
    found = [json.dumps(char)[1:-1].encode(), json.dumps(char, ensure_ascii=False)[1:-1].encode()]
    found += [escaped(char, upper).encode() for upper in (False, True)]
    if char == "/":
        found.append(b"\\/")
    if char == "\ufffd":
        lone = "\udead"
        found += [lone.encode("utf-8", "surrogatepass"), escaped(lone, False).encode()]
    if char > "\uffff":
        high, low = halves(char)
        found += [
            first + second
            for first in (high.encode("utf-8", "surrogatepass"), escaped(high, True).encode())
            for second in (low.encode("utf-8", "surrogatepass"), escaped(low, False).encode())
        ]
    return found


FIRST_CHARACTERS = '<>[/"\\\b\f\n\r\t\x00\x1f\x7f xJkéЖ中\ud7ff\ue000\ufffd\uffff🛑𐀀\U0010ffff'


@each("char", FIRST_CHARACTERS)
def test_a_tag_can_begin_however_its_first_character_is_spelled(char: str) -> None:
    tags = TagPatterns([char + "stop"])
    for spelling in spellings(char):
        raw = b'{"c":"- %b -"}' % spelling
        assert loads(raw) == {"c": f"- {char} -"}
        assert tags.could_begin(raw), raw


@given(st.characters(exclude_categories=["Cs"]), st.text())
def test_a_tag_is_never_overlooked(char: str, around: str) -> None:
    tags = TagPatterns(["never", char + "stop"])
    for spelling in spellings(char):
        assert tags.could_begin(json.dumps(around).encode()[:-1] + spelling + b'"')


@pytest.mark.parametrize(
    ("tag", "raw"),
    [
        ("</stop>", b'{"choices":[{"delta":{"content":"hello"}}]}'),
        ("</stop>", b'{"content":"a \\"quoted\\"\\n\\u003d\\u013c"}'),
        ('"stop"', b'{"content":"hello\\n"}'),
        ("\\stop", b'{"content":"hello\\n\\u0041"}'),
        ("\nstop", b'{"content":"hello\\t\\u000b"}'),
        ("🛑", '{"content":"中"}'.encode()),
        ("🛑", b'{"content":"\\u26d4"}'),
    ],
)
def test_no_tag_can_begin_where_its_first_character_is_not(tag: str, raw: bytes) -> None:
    loads(raw)
    assert not TagPatterns([tag]).could_begin(raw)


def test_any_of_the_tags_could_begin() -> None:
    tags = TagPatterns(["<a>", "", "[b]"])
    assert tags.could_begin(b'"<"')
    assert tags.could_begin(b'"\\u005B"')
    assert not tags.could_begin(b'"a"')


@pytest.mark.parametrize("tags", [[], [""]])
def test_no_tag_never_begins(tags: list[str]) -> None:
    assert not TagPatterns(tags).could_begin(b'{"content":"<\\u003c\\"\\\\"}')
