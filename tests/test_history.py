"""Histories that Gemini would refuse are repaired: calls, results, and who speaks last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gemproxy.chat.errors import ChatError
from gemproxy.demo import rules
from gemproxy.gemini.translate.families import family_of
from gemproxy.gemini.translate.messages import CONTINUE, Conversation, translate_messages
from gemproxy.gemini.translate.signatures import Signatures
from tests.strategies import json_values
from tests.tables import each

NEW, OLD = "gemini-3.8-flash", "gemini-2.5-flash"
USER: dict[str, Any] = {"role": "user", "content": "u"}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
INLINE = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}


def translated(messages: Any, model: str = NEW) -> Conversation:
    return translate_messages(messages, family_of(model), Signatures())


def contents(messages: Any, model: str = NEW) -> list[dict[str, Any]]:
    """What the API gets, where it does not refuse it."""
    sent: list[dict[str, Any]] = translated(messages, model).api_request({})["contents"]
    assert rules.fault(model, {"contents": sent}) is None
    return sent


def shown(messages: Any, model: str = NEW) -> list[str]:
    """Each turn in short."""
    return [
        f"{content['role']}: " + " ".join(map(in_short, content["parts"]))
        for content in contents(messages, model)
    ]


def in_short(part: dict[str, Any]) -> str:
    if "functionCall" in part:
        return f"{part['functionCall']['name']}()"
    if "functionResponse" in part:
        response = part["functionResponse"]
        return f"{response['name']}={response['response'].get('output')}"
    return str(part.get("text", "[media]"))


def calls(*ids: str, content: str | None = None) -> dict[str, Any]:
    made = [
        {"id": id, "type": "function", "function": {"name": f"f{id}", "arguments": "{}"}}
        for id in ids
    ]
    return {"role": "assistant", "content": content, "tool_calls": made}


def result(id: str | None, content: Any = "r", **more: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content} | more


NONE_GIVEN = "no result was given"


@each(
    ("messages", "turns"),
    [
        (
            [USER, calls("1", "2"), result("2", "b"), result("1", "a"), USER],
            ["user: u", "model: f1() f2()", "user: f1=a f2=b u"],
        ),
        # A result is missing.
        (
            [USER, calls("1", "2"), result("2", "b")],
            ["user: u", "model: f1() f2()", f"user: f1={NONE_GIVEN} f2=b"],
        ),
        ([USER, calls("1")], ["user: u", "model: f1()", f"user: f1={NONE_GIVEN}"]),
        # There are two of one.
        (
            [USER, calls("1"), result("1", "a"), result("1", "b"), USER],
            ["user: u", "model: f1()", "user: f1=b u"],
        ),
        # There is one without a call.
        ([USER, result("9", "a")], ["user: u Result of 9: a"]),
        ([USER, result(None, "a")], ["user: u Result of a function: a"]),
        ([USER, result("9", "a", name="g")], ["user: u Result of g: a"]),
        # The conversation was cut in front of a call.
        ([calls("1"), result("1", "a")], ["user: Begin.", "model: f1()", "user: f1=a"]),
        (
            [{"role": "assistant", "content": "Hi."}, calls("1"), result("1", "a")],
            ["user: Begin.", "model: Hi. f1()", "user: f1=a"],
        ),
        # The user speaks before the result is there.
        (
            [USER, calls("1"), USER, result("1", "a")],
            ["user: u", "model: f1()", "user: f1=a u"],
        ),
        # Parallel calls in messages of their own.
        (
            [USER, calls("1"), calls("2"), result("1", "a"), result("2", "b")],
            ["user: u", "model: f1() f2()", "user: f1=a f2=b"],
        ),
        # Calls one after the other.
        (
            [USER, calls("1"), result("1", "a"), calls("2", content="x"), result("2", "b")],
            ["user: u", "model: f1()", "user: f1=a", "model: x f2()", "user: f2=b"],
        ),
        # The same id again.
        (
            [USER, calls("1"), result("1", "a"), calls("1"), result("1", "b")],
            ["user: u", "model: f1()", "user: f1=a", "model: f1()", "user: f1=b"],
        ),
        # Without ids, the name tells to which call a result belongs.
        (
            [
                USER,
                {"role": "assistant", "function_call": {"name": "g", "arguments": "null"}},
                {"role": "function", "name": "g", "content": "a"},
            ],
            ["user: u", "model: g()", "user: g=a"],
        ),
        # What models thought is not said again.
        (
            [
                USER,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": "x"},
                        {"type": "redacted_thinking", "data": "x"},
                        {"type": "output_text", "text": "a"},
                    ],
                },
                USER,
            ],
            ["user: u", "model: a", "user: u"],
        ),
    ],
)
@each("model", [NEW, OLD])
def test_a_history_is_repaired(messages: Any, turns: Any, model: str):
    assert shown(messages, model) == turns


def test_the_answer_goes_on_where_the_model_takes_no_turn_of_its_own_at_the_end():
    begun = [USER, {"role": "assistant", "content": "Once"}]
    assert shown(begun) == ["user: u", "model: Once", f"user: {CONTINUE}"]
    for model in (OLD, "gemini-3.5-flash", "gemini-3.1-pro-preview"):
        assert shown(begun, model) == ["user: u", "model: Once"]


def test_a_picture_in_a_result_goes_where_the_model_takes_it():
    messages = [USER, calls("1", "2"), result("1", [PICTURE, {"type": "text", "text": "a"}])]
    new = contents(messages)[-1]["parts"]
    assert new[0]["functionResponse"]["parts"] == [INLINE]
    assert new[0]["functionResponse"]["response"] == {"output": "a"}
    assert list(map(in_short, new)) == ["f1=a", f"f2={NONE_GIVEN}"]
    old = contents(messages, OLD)[-1]["parts"]
    assert "parts" not in old[0]["functionResponse"]
    assert list(map(in_short, old)) == ["f1=a", f"f2={NONE_GIVEN}", "[media]"]
    assert old[2] == INLINE


def test_pictures_that_the_model_drew_are_its_own():
    drawn = {"role": "assistant", "content": "Here.", "images": [PICTURE]}
    model = "gemini-3.1-flash-image"
    [_, turn, _] = contents([USER, drawn, USER], model)
    signature = {"thoughtSignature": "skip_thought_signature_validator"}
    assert turn["parts"] == [{"text": "Here."}, INLINE | signature]
    [_, turn, _] = contents([USER, drawn, USER], OLD)
    assert turn["parts"] == [{"text": "Here."}, INLINE]


def test_a_name_that_is_the_role_is_not_said():
    for role in ("user", "assistant"):
        turn = translated([{"role": role, "content": "x", "name": role}]).turns[0]
        assert turn.parts == ({"text": "x"},)


def test_models_without_an_instruction_are_told_by_the_user():
    messages = [{"role": "system", "content": "s"}, USER]
    talk = translate_messages(messages, family_of("gemma-3-27b-it"), Signatures(), "As JSON.")
    assert talk.system is None
    assert [turn.parts for turn in talk.turns] == [({"text": "s\n\nAs JSON."},), ({"text": "u"},)]
    talk = translate_messages(messages, family_of(NEW), Signatures(), "As JSON.")
    assert talk.system == "s\n\nAs JSON."
    assert translate_messages([USER], family_of(NEW), Signatures(), "x").system == "x"


IDS = st.sampled_from(["1", "2", "3"])
MESSAGES = st.lists(
    st.sampled_from([USER, {"role": "assistant", "content": "a"}])
    | st.lists(IDS, max_size=3).map(lambda ids: calls(*ids))
    | st.builds(result, IDS | st.none(), st.sampled_from(["r", '{"$ref": 1}', [PICTURE]]))
    | st.builds(result, st.none(), name=IDS.map("f{}".format)),
    min_size=1,
    max_size=10,
)


@given(MESSAGES, st.sampled_from([NEW, OLD, "gemini-3.6-flash", "gemini-pro-latest"]))
def test_google_takes_every_history(messages: Sequence[Any], model: str):
    try:
        talk = translated(messages, model)
    except ChatError as error:
        assert error.param
        return
    said = [part for turn in talk.turns for part in turn.parts if part.get("text") == "u"]
    assert len(said) == list(messages).count(USER)
    contents(messages, model)


@given(st.lists(json_values("role", "content", "tool_calls", "images", "function_call")))
def test_any_json_is_translated_or_refused_by_name(messages: Any):
    try:
        translated(messages)
    except ChatError as error:
        assert error.status == 400
        assert error.param
