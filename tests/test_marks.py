"""Marks on the parts of a conversation, against a CLI that leaves nothing alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.gemini.cli import marks as marks_module
from gemproxy.gemini.cli.marks import ConversationAltered, prompted, texts_to_mark
from gemproxy.gemini.translate.messages import Conversation, Turn
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


class Marks(marks_module.Marks):
    """The marks of a conversation, and the conversation."""

    def __init__(self, nonce: str, turns: tuple[Turn, ...]) -> None:
        super().__init__(
            nonce, texts_to_mark(p.get("text", "") for turn in turns for p in turn.parts)
        )
        self.__dict__["turns"] = turns

    def restored(self, contents: Any) -> Contents:
        """What is sent to the API."""
        self.check(contents)
        sent: Contents = Conversation(None, self.__dict__["turns"]).api_request({})["contents"]
        return sent


def content(role: str, *texts: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"text": text} for text in texts]}


def merged(contents: Contents) -> Contents:
    """Consecutive turns of one role in one."""
    result: Contents = []
    for one in contents:
        if result and result[-1]["role"] == one["role"]:
            result[-1]["parts"].extend(one["parts"])
        else:
            result.append({"role": one["role"], "parts": list(one["parts"])})
    return result


def meant(turns: tuple[Turn, ...]) -> Contents:
    return [{"role": turn.role, "parts": list(turn.parts)} for turn in turns]


def sent(*conversations: Marks) -> Contents:
    """What the CLI would send in the last of a session's conversations."""
    contents = [content("user", NOTE)]
    for marks in conversations:
        contents += [content("user", *marks.prompt), content("model", "The answer.")]
    return contents[:-1]


@given(TURNS)
def test_what_was_marked_is_restored(turns: tuple[Turn, ...]):
    marks = Marks(NONCE, turns)
    assert marks.restored(sent(marks)) == merged(meant(turns))


@given(TURNS, TURNS)
def test_what_was_said_before_in_a_session_is_not_sent(
    before: tuple[Turn, ...], turns: tuple[Turn, ...]
):
    marks = Marks(NONCE, turns)
    contents = sent(Marks("another", before), marks)
    assert prompted(contents) == NONCE
    assert marks.restored(contents) == merged(meant(turns))


@given(TURNS)
def test_each_part_and_the_end_of_a_prompt_is_a_text_behind_a_mark(turns: tuple[Turn, ...]):
    marks = Marks(NONCE, turns)
    assert len(marks.prompt) == sum(len(turn.parts) for turn in turns) + 1
    assert len(set(marks.prompt)) == len(marks.prompt)
    assert all(text.startswith(f"{NONCE}:") for text in marks.prompt)


def test_other_parts_than_text_stay_here():
    image = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    marks = Marks(NONCE, (Turn("user", ({"text": "look"}, image)),))
    assert "AAAA" not in str(marks.prompt)
    assert marks.restored(sent(marks)) == [{"role": "user", "parts": [{"text": "look"}, image]}]


def test_no_mark_is_sent():
    assert NONCE not in str(Marks(NONCE, TALK).restored(sent(Marks(NONCE, TALK))))


@pytest.mark.parametrize(
    "contents",
    [
        [],
        [content("user", "Hello")],
        [content("user", f"{NONCE}:go: "), content("user", f" {NONCE}:go:")],
        [content("user", f"{NONCE}:0:x:go:"), content("user", ":go:")],
        [content("user", f"{NONCE}:go:\n"), {"role": "user", "parts": [None, {"text": 1}]}],
    ],
)
def test_without_a_prompt_no_conversation_is_meant(contents: Contents):
    assert prompted(contents) is None


@given(json_values("role", "parts", "text"))
def test_no_conversation_is_meant_by_nonsense(contents: Any):
    assert prompted(contents) is None


@given(st.data())
def test_the_notes_of_the_cli_are_dropped_wherever_they_are(data: st.DataObject):
    turns = data.draw(TURNS)
    marks = Marks(NONCE, turns)
    contents = sent(marks)
    notes = st.sampled_from([NOTE, "", f"{NONCE}:", "x"]) | st.text()
    for _ in range(data.draw(st.integers(1, 4))):
        note = data.draw(notes)
        parts = contents[data.draw(st.integers(0, len(contents) - 1))]["parts"]
        parts.insert(data.draw(st.integers(0, len(parts))), {"text": note})
        whole = content(data.draw(st.sampled_from(["user", "model"])), note)
        contents.insert(data.draw(st.integers(0, len(contents))), whole)
    assert prompted(contents) == NONCE
    assert marks.restored(contents) == merged(meant(turns))


def test_what_the_cli_adds_to_a_part_is_dropped():
    marks = Marks(NONCE, TALK)
    contents = sent(marks)
    contents[1]["parts"][0]["thoughtSignature"] = "x"
    contents[1]["parts"].insert(1, {"functionCall": {"name": "f"}})
    assert marks.restored(contents) == meant(TALK)


@given(st.data())
def test_whatever_becomes_of_the_parts_only_the_conversation_itself_is_sent(data: st.DataObject):
    turns = data.draw(TURNS)
    marks = Marks(NONCE, turns)
    texts = marks.prompt
    order = data.draw(st.lists(st.sampled_from(range(len(texts))), max_size=12))
    roles = st.sampled_from(["user", "user", "user", "model"])
    mangled = [content(data.draw(roles), texts[index]) for index in order]
    try:
        restored = marks.restored(mangled)
    except ConversationAltered:
        # Were all parts there in their order, it would have been for nothing.
        user_s = [n for n, one in zip(order, mangled, strict=True) if one["role"] == "user"]
        position = iter(user_s)
        assert not all(index in position for index in range(len(texts) - 1))
    else:
        assert restored == merged(meant(turns))


def altered(change: Any) -> Contents:
    """A request of the CLI, with its last content changed."""
    contents = sent(Marks(NONCE, TALK))
    change(contents[-1])
    return contents


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (lambda c: c.clear(), 0),
        (lambda c: c["parts"].pop(0), 0),
        (lambda c: c["parts"].pop(2), 2),
        (lambda c: c["parts"].pop(3), 3),
        (lambda c: c["parts"].reverse(), 1),
        (lambda c: c["parts"][1].update(text=f"{NONCE}:1:two "), 1),
        (lambda c: c["parts"][1].update(text=f" {NONCE}:1:two"), 1),
        (lambda c: c["parts"][1].update(text=f"{NONCE}:1:"), 1),
        (lambda c: c["parts"][1].update(text="two"), 1),
        (lambda c: c["parts"][1].update(text=None), 1),
        (lambda c: c["parts"].__setitem__(1, "two"), 1),
        (lambda c: c.update(parts=None), 0),
        (lambda c: c.update(role="model"), 0),
        (lambda c: c.pop("role"), 0),
        (lambda c: c.update(parts=[{"text": f"{NONCE}:0:one{NONCE}:1:two"}]), 0),
    ],
)
def test_an_altered_conversation_is_not_sent(change: Any, missing: int):
    with pytest.raises(ConversationAltered, match=f"^part {missing} of 4 is missing$"):
        Marks(NONCE, TALK).restored(altered(change))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["parts"].insert(1, c["parts"][0]),
        lambda c: c["parts"].extend(c["parts"][:]),
        lambda c: c["parts"].append(c["parts"][2]),
    ],
)
def test_a_part_that_came_twice_is_sent_once(change: Any):
    assert Marks(NONCE, TALK).restored(altered(change)) == meant(TALK)


def test_marks_of_another_conversation_do_not_count():
    with pytest.raises(ConversationAltered):
        Marks("another", TALK).restored(sent(Marks(NONCE, TALK)))


@given(json_values("role", "parts", "text"))
def test_nonsense_is_not_sent(contents: Any):
    with pytest.raises(ConversationAltered):
        Marks(NONCE, TALK).restored(contents)


@pytest.mark.parametrize(("parts", "given"), [(1000, 1000), (1001, 0)])
def test_a_conversation_of_very_many_parts_has_one_mark(parts: int, given: int):
    turns = (Turn("user", tuple({"text": "x"} for _ in range(parts))),)
    marks = Marks(NONCE, turns)
    assert len(marks.prompt) == given + 1
    assert prompted(sent(marks)) == NONCE
    assert marks.restored(sent(marks)) == meant(turns)
