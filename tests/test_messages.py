"""OpenAI messages to Gemini turns."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.chat.errors import ChatError
from gemproxy.chat.jsontext import loads
from gemproxy.gemini.translate.families import family_of
from gemproxy.gemini.translate.messages import Conversation
from gemproxy.gemini.translate.messages import translate_messages as make_conversation
from gemproxy.gemini.translate.signatures import Signatures
from tests.strategies import json_values
from tests.tables import each

# It takes every order of turns, and needs no signatures.
FLASH = family_of("gemini-2.5-flash")


def translate_messages(messages: Any) -> Conversation:
    return make_conversation(messages, FLASH, Signatures())


def text_part(text: Any) -> dict[str, Any]:
    return {"type": "text", "text": text}


def message(role: Any, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def seen(*messages: Any) -> tuple[str | None, list[tuple[str, list[str]]]]:
    """The system instruction, and each turn's role and texts."""
    talk = translate_messages(list(messages))
    return talk.system, [(turn.role, [part["text"] for part in turn.parts]) for turn in talk.turns]


def refusal(messages: Any) -> ChatError:
    with pytest.raises(ChatError) as caught:
        translate_messages(messages)
    assert caught.value.status == 400
    assert caught.value.type == "invalid_request_error"
    return caught.value


SYSTEM, DEVELOPER = message("system", "s"), message("developer", "d")
USER, ASSISTANT = message("user", "u"), message("assistant", "a")


@each(
    ("messages", "system", "turns"),
    [
        ([USER], None, [("user", ["u"])]),
        ([SYSTEM, USER], "s", [("user", ["u"])]),
        ([DEVELOPER, USER], "d", [("user", ["u"])]),
        ([SYSTEM, DEVELOPER, USER], "s\n\nd", [("user", ["u"])]),
        (
            [USER, ASSISTANT, message("user", "v")],
            None,
            [("user", ["u"]), ("model", ["a"]), ("user", ["v"])],
        ),
        # Later system messages keep their places.
        ([SYSTEM, USER, SYSTEM], "s", [("user", ["u"]), ("user", ["s"])]),
        (
            [USER, DEVELOPER, ASSISTANT, SYSTEM],
            None,
            [("user", ["u"]), ("user", ["d"]), ("model", ["a"]), ("user", ["s"])],
        ),
        # A greeting comes first, an answer to be continued last.
        ([ASSISTANT, USER], None, [("model", ["a"]), ("user", ["u"])]),
        ([SYSTEM, USER, ASSISTANT], "s", [("user", ["u"]), ("model", ["a"])]),
        # Turns of one role are not merged here.
        ([USER, USER], None, [("user", ["u"]), ("user", ["u"])]),
        # System messages only: the last is what the model answers.
        ([SYSTEM], None, [("user", ["s"])]),
        ([SYSTEM, DEVELOPER], "s", [("user", ["d"])]),
        ([SYSTEM, message("user", "")], None, [("user", ["s"])]),
        (
            [SYSTEM, message("system", [text_part("a"), text_part("b")])],
            "s",
            [("user", ["a\n\nb"])],
        ),
    ],
)
def test_roles_and_order(messages: list[Any], system: str | None, turns: list[Any]):
    assert seen(*messages) == (system, turns)


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("text", ["text"]),
        (" ", [" "]),
        ([text_part("a"), text_part("b")], ["a", "b"]),
        ([text_part(""), text_part("b"), text_part("")], ["b"]),
        ([{"type": "refusal", "refusal": "no"}], ["no"]),
        ([text_part("a") | {"cache_control": {"type": "ephemeral"}}], ["a"]),
        ("/memory show", ["/memory show"]),
        ("a\0\ufffd\u2028😀", ["a\0\ufffd\u2028😀"]),
    ],
)
def test_content_may_be_text_or_parts(content: Any, texts: list[str]):
    assert seen(message("user", content)) == (None, [("user", texts)])
    assert seen(USER, message("assistant", content))[1][1] == ("model", texts)


@pytest.mark.parametrize("content", [None, "", [], [text_part("")]])
def test_empty_messages_are_left_out(content: Any):
    assert seen(message("user", content), USER, message("assistant", content)) == (
        None,
        [("user", ["u"])],
    )
    assert seen(message("system", content), SYSTEM, USER)[0] == "s"
    assert refusal([message("user", content)]).param == "messages"
    assert refusal([message("system", content)]).param == "messages"


def test_a_missing_content_is_an_empty_one():
    assert seen({"role": "assistant"}, USER) == (None, [("user", ["u"])])


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("Ann", "u", ["Ann: u"]),
        ("Ann", "Ann: u", ["Ann: u"]),
        ("Ann", [text_part("a"), text_part("b")], ["Ann: a", "b"]),
        *((name, "u", ["u"]) for name in ("", None, 1, ["Ann"])),
    ],
)
def test_a_name_is_said_in_front_of_the_text(name: Any, content: Any, texts: list[str]):
    for role, known in (("user", "user"), ("assistant", "model")):
        assert seen(message(role, content) | {"name": name}) == (None, [(known, texts)])


def test_unknown_fields_of_a_message_do_no_harm():
    assert seen(USER | {"refusal": None, "x": [1]}) == (None, [("user", ["u"])])


@pytest.mark.parametrize("messages", [None, [], {}, "", "hello", 0, 1, True, {"role": "user"}])
def test_messages_must_be_a_list_that_is_not_empty(messages: Any):
    error = refusal(messages)
    assert error.param == "messages"
    assert "'messages'" in error.message


@each(
    ("wrong", "param"),
    [
        *((value, "messages[1]") for value in (None, 1, "text", [], [USER])),
        ({}, "messages[1].role"),
        *(
            (message(role, "x"), "messages[1].role")
            for role in (None, 1, "", "User", "robot", [], ["user"], {}, True)
        ),
        *(
            (message(role, content), "messages[1].content")
            for role in ("user", "assistant", "system")
            for content in (1, 0, False, 1.5, {}, {"type": "text", "text": "x"})
        ),
        *(
            (message("user", [text_part("a"), part]), "messages[1].content[1]")
            for part in (None, "text", 1, [])
        ),
        *(
            (message("user", [part]), "messages[1].content[0].type")
            for part in ({}, {"text": "x"}, {"type": None}, {"type": ["text"]}, {"type": 1})
        ),
        *(
            (message("user", [part]), "messages[1].content[0].text")
            for part in (text_part(None), text_part(1), text_part(["x"]), {"type": "text"})
        ),
    ],
)
@each("first", [USER, SYSTEM])
def test_a_wrong_type_is_refused_by_name(first: Any, wrong: Any, param: str):
    error = refusal([first, wrong])
    assert error.param == param
    assert f"'{param}'" in error.message


def test_an_unknown_type_of_content_is_refused_by_name():
    error = refusal([message("user", [{"type": "smell\n" * 100}])])
    assert error.param == "messages[0].content[0].type"
    assert "smell" in error.message
    assert len(error.message) < 200


def test_a_message_far_down_is_named():
    assert refusal([USER] * 1000 + [5]).param == "messages[1000]"


def called(*ids: str, content: Any = None, **more: Any) -> dict[str, Any]:
    calls = [
        {"id": id, "type": "function", "function": {"name": f"f_{id}", "arguments": "{}"}}
        for id in ids
    ]
    return message("assistant", content) | {"tool_calls": calls} | more


def result(id: Any, content: Any = "x", **more: Any) -> dict[str, Any]:
    return message("tool", content) | {"tool_call_id": id} | more


def function_call(id: str, **more: Any) -> dict[str, Any]:
    return {"functionCall": {"name": f"f_{id}", "args": {}, "id": id}} | more


def function_response(id: str, response: Any) -> dict[str, Any]:
    return {"functionResponse": {"name": f"f_{id}", "response": response, "id": id}}


def test_calls_and_results_are_parts_of_turns():
    talk = translate_messages(
        [
            USER,
            called("1", "2", content="I look.", name="Ann"),
            result("2", '{"a": 1}'),
            result("1", [text_part("b"), text_part("c")]),
            called("3", content=""),
            result("3", None),
            USER,
        ]
    )
    assert [(turn.role, list(turn.parts)) for turn in talk.turns] == [
        ("user", [{"text": "u"}]),
        ("model", [{"text": "Ann: I look."}, function_call("1"), function_call("2")]),
        ("user", [function_response("1", {"output": "b\n\nc"}), function_response("2", {"a": 1})]),
        ("model", [function_call("3")]),
        ("user", [function_response("3", {"output": ""})]),
        ("user", [{"text": "u"}]),
    ]


def test_the_first_call_of_each_turn_is_signed_where_that_is_needed():
    signatures = Signatures()
    signatures.remember("3", "known", "KEY")
    history = [called("1", "2", content="a"), result("1"), result("2"), called("3"), result("3")]
    for model, made_up in (
        ("gemini-2.5-flash", None),
        ("gemini-3.8-flash", "skip_thought_signature_validator"),
    ):
        talk = make_conversation([USER, *history], family_of(model), signatures)
        parts = [part for turn in talk.turns for part in turn.parts if "functionCall" in part]
        assert [part.get("thoughtSignature") for part in parts] == [made_up, None, "known"]
        assert (talk.key, talk.is_signed) == ("KEY", True)
        assert "KEY" not in repr(talk)
        plain = talk.without_signatures()
        assert (plain.key, plain.is_signed) == (None, False)


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
INLINE = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}


def test_a_picture_is_a_part_of_its_turn():
    talk = translate_messages(
        [
            message("user", [PICTURE]),
            message("assistant", [text_part("a"), PICTURE]),
            message("user", [text_part(""), PICTURE, text_part("b")]) | {"name": "Ann"},
        ]
    )
    assert [turn.parts for turn in talk.turns] == [
        (INLINE,),
        ({"text": "a"}, INLINE),
        ({"text": "Ann: "}, INLINE, {"text": "b"}),
    ]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        (called(content=None) | {"tool_calls": {}}, "messages[2].tool_calls"),
        (called() | {"tool_calls": [{}]}, "messages[2].tool_calls[0].function.name"),
        (
            message("user", [text_part("a"), PICTURE | {"image_url": {"url": "x"}}]),
            "messages[2].content[1].image_url.url",
        ),
        (message("user", [PICTURE | {"image_url": None}]), "messages[2].content[0].image_url"),
    ],
)
def test_a_wrong_call_result_or_picture_is_refused_by_name(wrong: Any, param: str):
    error = refusal([USER, called("1"), wrong])
    assert error.param == param
    assert f"'{param}'" in error.message


def test_a_picture_is_no_instruction():
    assert refusal([message("system", [PICTURE]), USER]).param == "messages[0].content"


MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "developer", "user", "assistant"]),
            "content": st.text() | st.lists(st.text().map(text_part), max_size=3),
        }
    ),
    max_size=6,
)


def texts_of(content: Any) -> list[str]:
    texts = [content] if isinstance(content, str) else [part["text"] for part in content]
    return [text for text in texts if text]


@given(st.lists(st.text(min_size=1), min_size=1))
def test_each_byte_of_the_text_arrives(texts: list[str]):
    messages = [message(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)]
    talk = translate_messages(loads(json.dumps(messages).encode()))
    assert talk.system is None
    assert [turn.parts for turn in talk.turns] == [({"text": text},) for text in texts]


@given(MESSAGES)
def test_all_text_arrives_in_its_order(messages: list[Any]):
    wanted = [text for m in messages for text in texts_of(m["content"])]
    try:
        talk = translate_messages(messages)
    except ChatError as error:
        assert (error.status, error.param) == (400, "messages")
        assert not wanted
        return
    assert all(turn.parts for turn in talk.turns)
    sent = [part["text"] for turn in talk.turns for part in turn.parts]
    assert "".join(wanted).replace("\n", "") == ((talk.system or "") + "".join(sent)).replace(
        "\n", ""
    )


def outcome(messages: Any) -> None:
    try:
        talk = translate_messages(messages)
    except ChatError as error:
        assert error.status == 400
        assert error.param
        assert error.param.startswith("messages")
    else:
        assert isinstance(talk, Conversation)
        assert talk.turns


@given(json_values("role", "content", "type", "text"))
def test_any_json_gives_a_conversation_or_a_refusal(messages: Any):
    outcome(messages)


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "role": st.sampled_from(["system", "user", "assistant", "tool", "function"]),
                "content": json_values("type", "text")
                | st.lists(
                    st.fixed_dictionaries(
                        {
                            "type": st.sampled_from(
                                ["text", "image_url", "input_audio", "file", "refusal"]
                            )
                        },
                        optional={
                            "text": json_values(),
                            "image_url": json_values("url"),
                            "input_audio": json_values("data", "format"),
                            "file": json_values("file_data"),
                        },
                    )
                ),
                "tool_calls": json_values("id", "function", "name", "arguments"),
                "name": json_values(),
                "tool_call_id": json_values(),
            },
        ),
        max_size=4,
    )
)
def test_anything_like_messages_gives_a_conversation_or_a_refusal(messages: Any):
    outcome(messages)


def signed(holder: dict[str, Any], signature: str) -> dict[str, Any]:
    return holder | {"extra_content": {"google": {"thought_signature": signature}}}


def parts_of(answer: dict[str, Any], model: str = "gemini-3.8-flash") -> list[dict[str, Any]]:
    talk = make_conversation([USER, answer, USER], family_of(model), Signatures())
    return list(talk.turns[1].parts)


def test_the_signature_of_an_answer_is_that_of_its_last_text():
    parts = [text_part("a"), text_part("b")]
    assert parts_of(signed(message("assistant", "a"), "s")) == [
        {"text": "a", "thoughtSignature": "s"}
    ]
    assert parts_of(signed(message("assistant", parts), "s")) == [
        {"text": "a"},
        {"text": "b", "thoughtSignature": "s"},
    ]
    own = [signed(parts[0], "s1"), signed(parts[1], "s2")]
    assert parts_of(signed(message("assistant", own), "s3")) == [
        {"text": "a", "thoughtSignature": "s1"},
        {"text": "b", "thoughtSignature": "s2"},
    ]


def test_the_signature_of_an_answer_of_calls_alone_is_the_calls_affair():
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    answer = {"role": "assistant", "tool_calls": [signed(call, "s1")]}
    parts = [{"functionCall": {"name": "f", "args": {}, "id": "x"}, "thoughtSignature": "s1"}]
    assert parts_of(signed(answer, "s2")) == parts


def test_thoughts_go_back_to_models_that_think_if_they_are_signed():
    thinking = {"type": "thinking", "thinking": "Hm."}
    content = [text_part("a"), thinking, signed(thinking, "s"), signed({"type": "reasoning"}, "s")]
    answer = message("assistant", content)
    back = {"text": "Hm.", "thought": True, "thoughtSignature": "s"}
    assert parts_of(answer) == [back, {"text": "a"}]
    assert parts_of(answer | {"name": "Ann"}) == [back, {"text": "Ann: a"}]
    assert parts_of(answer, "gemini-2.0-flash") == [{"text": "a"}]


@pytest.mark.parametrize("extra", [None, 1, "s", {"google": 1}, {"google": {}}, {"x": {}}])
def test_what_is_no_signature_does_no_harm(extra: Any):
    answer = message("assistant", "a") | {"extra_content": extra}
    assert parts_of(answer) == [{"text": "a"}]
