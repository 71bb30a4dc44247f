"""Marks on the parts of a conversation, against a CLI that leaves nothing alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.gemini.marks import ConversationAltered, Marks
from gemproxy.gemini.sessionfile import render
from gemproxy.gemini.turns import Turn
from tests.strategies import json_values

NONCE = "0f3c9a"
NOTE = "<session_context>Today is Monday.</session_context>"

Contents = list[dict[str, Any]]

TALK = (
    Turn("user", ({"text": "one"}, {"text": "two"})),
    Turn("model", ({"text": "three"},)),
    Turn("user", ({"text": "four"},)),
)

# Texts among them that look like marks, the right ones even.
TEXTS = st.text() | st.builds(
    "{}:{}:{}".format, st.sampled_from([NONCE, "x"]), st.integers(-1, 4) | st.just("go"), st.text()
)
PARTS = st.builds(lambda text: {"text": text}, TEXTS) | st.just({"inlineData": {"data": "AAAA"}})
TURNS = st.lists(
    st.builds(
        Turn,
        st.sampled_from(["user", "model"]),
        st.lists(PARTS, min_size=1, max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=4,
).map(tuple)


def content(role: str, *texts: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"text": text} for text in texts]}


def merged(contents: Contents) -> Contents:
    """What the CLI makes of consecutive turns of one role."""
    result: Contents = []
    for one in contents:
        if result and result[-1]["role"] == one["role"]:
            result[-1]["parts"].extend(one["parts"])
        else:
            result.append({"role": one["role"], "parts": list(one["parts"])})
    return result


def meant(turns: tuple[Turn, ...]) -> Contents:
    return [{"role": turn.role, "parts": list(turn.parts)} for turn in turns]


def sent(marks: Marks) -> Contents:
    """What the CLI would send if it left everything alone."""
    return [*meant(tuple(marks.marked())), content("user", marks.prompt)]


def flat(contents: Contents) -> list[tuple[str, Any]]:
    return [(one["role"], part) for one in contents for part in one["parts"]]


@given(TURNS)
def test_what_was_marked_is_restored(turns: tuple[Turn, ...]):
    marks = Marks(NONCE, turns)
    assert marks.restored(sent(marks)) == meant(turns)


@given(TURNS)
def test_merged_turns_of_one_role_are_restored(turns: tuple[Turn, ...]):
    marks = Marks(NONCE, turns)
    assert marks.restored(merged(sent(marks))) == merged(meant(turns))


@given(TURNS)
def test_the_marked_turns_are_plain_texts_of_the_same_shape(turns: tuple[Turn, ...]):
    marked = Marks(NONCE, turns).marked()
    assert [turn.role for turn in marked] == [turn.role for turn in turns]
    assert [len(turn.parts) for turn in marked] == [len(turn.parts) for turn in turns]
    for part in (part for turn in marked for part in turn.parts):
        assert list(part) == ["text"]
        assert part["text"].startswith(f"{NONCE}:")


def test_other_parts_than_text_stay_here():
    image = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    marks = Marks(NONCE, (Turn("user", ({"text": "look"}, image)),))
    assert "AAAA" not in str(marks.marked())
    assert marks.restored(sent(marks)) == [{"role": "user", "parts": [{"text": "look"}, image]}]


def test_the_prompt_is_not_sent():
    marks = Marks(NONCE, TALK)
    assert marks.prompt not in str(marks.restored(sent(marks)))
    assert not marks.prompt.startswith(("/", "?", "$", "<"))


@given(st.data())
def test_the_notes_of_the_cli_are_dropped_wherever_they_are(data: st.DataObject):
    turns = data.draw(TURNS)
    marks = Marks(NONCE, turns)
    contents = sent(marks)
    notes = st.sampled_from([NOTE, "", f"{NONCE}:go:", f"{NONCE}:", "x"]) | st.text()
    for _ in range(data.draw(st.integers(1, 4))):
        note = data.draw(notes)
        parts = contents[data.draw(st.integers(0, len(contents) - 1))]["parts"]
        parts.insert(data.draw(st.integers(0, len(parts))), {"text": note})
        whole = content(data.draw(st.sampled_from(["user", "model"])), note)
        contents.insert(data.draw(st.integers(0, len(contents))), whole)
    assert marks.restored(contents) == meant(turns)


def test_what_the_cli_adds_to_a_part_is_dropped():
    marks = Marks(NONCE, TALK)
    contents = sent(marks)
    contents[0]["parts"][0]["thoughtSignature"] = "x"
    contents[0]["parts"].insert(1, {"functionCall": {"name": "f"}})
    assert marks.restored(contents) == meant(TALK)


@given(st.data())
def test_whatever_becomes_of_the_parts_only_the_conversation_itself_is_sent(data: st.DataObject):
    turns = data.draw(TURNS)
    marks = Marks(NONCE, turns)
    given_parts = flat(sent(marks))
    order = data.draw(st.lists(st.sampled_from(range(len(given_parts))), max_size=12))
    mangled = [
        {"role": role, "parts": [part]} for role, part in (given_parts[index] for index in order)
    ]
    try:
        restored = marks.restored(mangled)
    except ConversationAltered:
        # Were all parts there in their order, it would have been for nothing.
        position = iter(order)
        assert not all(index in position for index in range(len(given_parts) - 1))
    else:
        assert flat(restored) == flat(meant(turns))


def altered(change: Any) -> Contents:
    contents = sent(Marks(NONCE, TALK))
    change(contents)
    return contents


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (lambda c: c.clear(), 0),
        (lambda c: c.pop(0), 0),
        (lambda c: c.pop(1), 2),
        (lambda c: c.pop(2), 3),
        (lambda c: c[0]["parts"].pop(1), 1),
        (lambda c: c.reverse(), 2),
        (lambda c: c[0]["parts"].reverse(), 1),
        (lambda c: c[0]["parts"][1].update(text=f"{NONCE}:1:two "), 1),
        (lambda c: c[0]["parts"][1].update(text=f" {NONCE}:1:two"), 1),
        (lambda c: c[0]["parts"][1].update(text=f"{NONCE}:1:"), 1),
        (lambda c: c[0]["parts"][1].update(text="two"), 1),
        (lambda c: c[0]["parts"][1].update(text=None), 1),
        (lambda c: c[0]["parts"].__setitem__(1, "two"), 1),
        (lambda c: c[0].update(parts=None), 0),
        (lambda c: c[0].update(role="model"), 0),
        (lambda c: c[1].pop("role"), 2),
        (lambda c: c[0].update(parts=[{"text": f"{NONCE}:0:one{NONCE}:1:two"}]), 0),
    ],
)
def test_an_altered_conversation_is_not_sent(change: Any, missing: int):
    with pytest.raises(ConversationAltered, match=f"^part {missing} of 4 is missing$"):
        Marks(NONCE, TALK).restored(altered(change))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.insert(1, c[0]),
        lambda c: c.extend(c[:]),
        lambda c: c[0]["parts"].insert(1, c[0]["parts"][0]),
        lambda c: c.append(c[2]),
    ],
)
def test_a_part_that_came_twice_is_sent_once(change: Any):
    assert Marks(NONCE, TALK).restored(altered(change)) == meant(TALK)


def test_marks_of_another_conversation_are_none():
    with pytest.raises(ConversationAltered):
        Marks("another", TALK).restored(sent(Marks(NONCE, TALK)))


@given(json_values("role", "parts", "text"))
def test_nonsense_is_not_sent(contents: Any):
    with pytest.raises(ConversationAltered):
        Marks(NONCE, TALK).restored(contents)


@given(TURNS)
def test_a_session_file_holds_the_turns_a_line_each(turns: tuple[Turn, ...]):
    first, *lines = render("id", turns).removesuffix(b"\n").split(b"\n")
    assert json.loads(first)["sessionId"] == "id"
    messages = [json.loads(line) for line in lines]
    assert [m["content"] for m in messages] == [list(turn.parts) for turn in turns]
    assert [m["type"] for m in messages] == [
        {"model": "gemini", "user": "user"}[turn.role] for turn in turns
    ]
    assert len({m["id"] for m in messages}) == len(messages)
