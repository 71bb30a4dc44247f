"""Functions and calls, from OpenAI's words to Gemini's and back."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.chat.errors import ChatError
from gemproxy.chat.jsontext import dumps, loads
from gemproxy.gemini.translate.calls import call_parts, result_response
from gemproxy.gemini.translate.leniency import Leniency
from gemproxy.gemini.translate.names import gemini_name
from gemproxy.gemini.translate.signatures import Signatures, is_corrupted, sign_unsigned
from gemproxy.gemini.translate.tools import Call, calling_config, read_tools
from tests.strategies import json_values
from tests.tables import each

SCHEMA = {
    "type": "object",
    "properties": {
        "wait_for_previous": {"type": "boolean"},
        "city": {"type": "string", "enum": ["a", "b"], "description": "\u00e9"},
        "deep": {"type": "array", "items": {"$ref": "#/$defs/x"}},
    },
    "$defs": {"x": {"anyOf": [{"type": "null"}, {"type": "number"}]}},
    "required": ["city"],
    "additionalProperties": False,
}


def tool(name: Any = "f", **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name} | function}


def declarations(tools: Any) -> Any:
    return read_tools(tools, Leniency(lenient=False)).functions


def choose(choice: Any, *names: str) -> Any:
    tools = read_tools([tool(name) for name in names], Leniency(lenient=False))
    return calling_config(choice, tools)


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


EMPTY: dict[str, Any] = {"type": "object", "properties": {}}


def declared(name: str = "f", schema: Any = EMPTY, **more: Any) -> dict[str, Any]:
    return {"name": name, "parametersJsonSchema": schema} | more


def refused(function: Any, *args: Any) -> ChatError:
    with pytest.raises(ChatError) as caught:
        function(*args)
    assert (caught.value.status, caught.value.type) == (400, "invalid_request_error")
    assert f"'{caught.value.param}'" in caught.value.message
    return caught.value


# Declarations


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, []),
        ([], []),
        ([tool()], [declared()]),
        ([tool(description="d")], [declared(description="d")]),
        ([tool(description="")], [declared(description="")]),
        ([tool(description=None, parameters=None)], [declared()]),
        ([tool(parameters={})], [declared()]),
        (
            [tool(parameters=SCHEMA, strict=True), tool("g")],
            [declared(schema=SCHEMA), declared("g")],
        ),
    ],
)
def test_functions_are_declared_unchanged(given: Any, wanted: Any):
    assert declarations(given) == wanted


@pytest.mark.parametrize(
    "name", ["a", "_", "A-b_C.d:e9", "x" * 128, "mcp_oai_f", "run_shell_command", "__proto__"]
)
def test_a_function_keeps_its_name(name: str):
    assert declarations([tool(name)]) == [declared(name)]


@each(
    ("wrong", "param"),
    [
        *((wrong, "tools[1].type") for wrong in (None, 1, "f", [], {}, {"type": "retrieval"})),
        *(
            ({"type": "function"} | wrong, "tools[1].function")
            for wrong in ({}, {"function": None}, {"function": "f"}, {"function": []})
        ),
        *((tool(name), "tools[1].function.name") for name in (None, 1, "", ["f"])),
        *((tool(description=wrong), "tools[1].function.description") for wrong in (1, [], {})),
        *((tool(parameters=wrong), "tools[1].function.parameters") for wrong in (1, [], "x", True)),
    ],
)
def test_a_malformed_tool_is_refused_by_name(wrong: Any, param: str):
    assert refused(declarations, [tool(), wrong]).param == param


@pytest.mark.parametrize("wrong", [{}, "f", 1, True])
def test_tools_must_be_a_list(wrong: Any):
    assert refused(declarations, wrong).param == "tools"


STRANGE = [" f", "f g", "1f", "-f", "f\n", "\u00e9", "x" * 129, "1" * 300, "f/g", "f.g h", ""]


@each("name", STRANGE)
def test_a_name_that_google_does_not_take_is_changed(name: str):
    assert NAME.fullmatch(gemini_name(name))
    assert gemini_name(name) == gemini_name(name)


NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")


@given(st.sets(st.text(min_size=1) | st.from_regex(r"[0-9 _a-b-]{1,3}"), min_size=2, max_size=50))
def test_no_two_names_become_one(names: set[str]):
    changed = {gemini_name(name) for name in names}
    assert len(changed) == len(names)
    assert all(map(NAME.fullmatch, changed))


def test_a_changed_name_can_be_changed_back():
    tools = read_tools([tool("1 f"), tool("g")], Leniency(lenient=False))
    names = [function["name"] for function in tools.functions]
    assert [tools.client_names[name] for name in names] == ["1 f", "g"]


# The choice among them


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        (None, None),
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (
            {"type": "function", "function": {"name": "g"}},
            {"mode": "ANY", "allowedFunctionNames": ["g"]},
        ),
        ({"function": {"name": "f"}}, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        ({"type": "function", "name": "f"}, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        (allowed("required", "g", "f"), {"mode": "ANY", "allowedFunctionNames": ["g", "f"]}),
        (allowed("auto", "g"), {"mode": "VALIDATED", "allowedFunctionNames": ["g"]}),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]},
            {"mode": "VALIDATED", "allowedFunctionNames": ["g"]},
        ),
    ],
)
def test_a_choice_is_a_mode(choice: Any, config: Any):
    assert choose(choice, "f", "g") == config


@each(
    "choice",
    [
        *("", "any", "AUTO", "f", 1, True, [], {}, {"type": "function"}, {"function": "f"}),
        *({"function": {"name": name}} for name in (None, 1, "", "h" * 1000)),
        *({"type": "allowed_tools"} | more for more in ({}, {"tools": []}, {"tools": [1]})),
        allowed("any", "f"),
        allowed("auto", "h"),
    ],
)
def test_a_malformed_tool_choice_is_refused_by_name(choice: Any):
    error = refused(choose, choice, "f")
    assert error.param == "tool_choice"
    assert len(error.message) < 300


@pytest.mark.parametrize("choice", ["required", {"function": {"name": "f"}}])
def test_a_call_cannot_be_wanted_where_there_is_nothing_to_call(choice: Any):
    assert refused(choose, choice).param == "tool_choice"


# Calls in the history


def call(arguments: Any = "{}", id: Any = "call_1", name: Any = "f", **more: Any) -> Any:
    return {
        "id": id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    } | more


def parts_of(*calls: Any, signatures: Signatures | None = None) -> list[Any]:
    parts, _ = call_parts({"tool_calls": list(calls)}, "m", signatures or Signatures())
    return parts


@each(
    ("arguments", "args"),
    [
        ("{}", {}),
        ("", {}),
        (None, {}),
        ({"a": 1}, {"a": 1}),
        (
            ' {"a": [1, {"b": null}], "c": "\u00e9\\u0000"} ',
            {"a": [1, {"b": None}], "c": "\u00e9\0"},
        ),
        ('{"wait_for_previous": true}', {"wait_for_previous": True}),
        # As other models leave them.
        ("null", {}),
        ("{", {"arguments": "{"}),
        ('{"a": [1, 2', {"arguments": '{"a": [1, 2'}),
        ("[]", {"arguments": []}),
        ("1", {"arguments": 1}),
        ('"x"', {"arguments": "x"}),
        ([], {"arguments": []}),
    ],
)
def test_a_call_is_a_part(arguments: Any, args: Any):
    part = {"functionCall": {"name": "f", "args": args, "id": "call_1"}}
    assert parts_of(call(arguments)) == [part]
    old = {"function_call": {"name": "f", "arguments": arguments}}
    assert call_parts(old, "m", Signatures())[0] == [{"functionCall": {"name": "f", "args": args}}]


def test_a_strange_name_is_changed_in_the_history():
    [part] = parts_of(call(name="1 f"))
    assert part["functionCall"]["name"] == gemini_name("1 f")


@pytest.mark.parametrize("id", [None, "", 1, []])
def test_a_call_may_have_no_id(id: Any):
    assert parts_of(call(id=id)) == [{"functionCall": {"name": "f", "args": {}}}]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        *(
            (wrong, "m.tool_calls[1].function.name")
            for wrong in (None, 1, "f", [], {}, {"function": None}, {"function": "f"})
        ),
        *((call(name=name), "m.tool_calls[1].function.name") for name in (None, "", 1, ["f"])),
    ],
)
def test_a_malformed_call_is_refused_by_name(wrong: Any, param: str):
    assert refused(parts_of, call(), wrong).param == param


@pytest.mark.parametrize("wrong", [1, "f", {}, {"arguments": "{}"}])
def test_a_malformed_old_call_is_refused_by_name(wrong: Any):
    error = refused(call_parts, {"function_call": wrong}, "m", Signatures())
    assert error.param == "m.function_call.name"


@pytest.mark.parametrize("wrong", [{}, "f", 1, True])
def test_calls_must_be_a_list(wrong: Any):
    assert refused(call_parts, {"tool_calls": wrong}, "m", Signatures()).param == "m.tool_calls"


def test_no_calls_are_no_parts():
    assert call_parts({"tool_calls": None}, "m", Signatures()) == ([], [])
    assert parts_of() == []


# Results in the history


@each(
    ("content", "response"),
    [
        ("22 degrees", {"output": "22 degrees"}),
        ("", {"output": ""}),
        ('{"celsius": 22, "x": [null]}', {"celsius": 22, "x": [None]}),
        ("{}", {}),
        ("[1]", {"output": "[1]"}),
        ("1", {"output": "1"}),
        ("null", {"output": "null"}),
        ('"x"', {"output": '"x"'}),
        ("{broken", {"output": "{broken"}),
        ("a\ud800b", {"output": "a\ud800b"}),
        # The API would look for a part of that name, and would round.
        *(
            (text, {"output": text})
            for text in (
                '{"$ref": "#/x"}',
                '{"a": [{"b": {"$ref": 1}}]}',
                '{"id": 9007199254740993}',
                '{"id": [-9007199254740993]}',
                '{"id": 123456789012345678901234567890}',
            )
        ),
        ('{"id": 9007199254740992, "b": true}', {"id": 2**53, "b": True}),
    ],
)
def test_a_result_is_an_object(content: str, response: Any):
    assert result_response(content) == response


# Calls in a reply


def reply_part(**more: Any) -> dict[str, Any]:
    return {"functionCall": {"name": "f", "args": {"a": "\u00e9"}} | more}


def test_a_part_of_a_reply_is_a_call():
    call = Call.of_part(reply_part(id="x") | {"thoughtSignature": "s"})
    assert call == Call("x", "f", '{"a":"\u00e9"}', "s")


@pytest.mark.parametrize(
    "part", [{}, {"text": "x"}, {"functionCall": None}, {"functionCall": {"name": 1}}]
)
def test_parts_without_a_call_are_not_calls(part: Any):
    assert Call.of_part(part) is None


@pytest.mark.parametrize("args", [None, {}])
def test_a_call_without_arguments_has_an_empty_object(args: Any):
    call = Call.of_part({"functionCall": {"name": "f", "args": args}})
    assert call is not None
    assert call.arguments == "{}"


@pytest.mark.parametrize("signature", [None, "", 5])
def test_a_call_without_a_signature_has_none(signature: Any):
    call = Call.of_part(reply_part() | {"thoughtSignature": signature})
    assert call is not None
    assert call.signature is None


@pytest.mark.parametrize("id", [None, "", 5])
def test_a_call_without_an_id_gets_one_of_its_own(id: Any):
    calls = [Call.of_part(reply_part(id=id)) for _ in range(100)]
    ids = {call.id for call in calls if call is not None}
    assert len(ids) == 100
    assert all(id.startswith("call_") for id in ids)


@pytest.mark.parametrize("signature", [None, "s"])
def test_a_stream_tells_what_is_called_and_then_with_what(signature: str | None):
    opening, arguments = Call("x", "f", '{"a":1}', signature).deltas(3)
    assert opening.pop("extra_content", None) == (
        signature and {"google": {"thought_signature": signature}}
    )
    assert opening == {
        "index": 3,
        "id": "x",
        "type": "function",
        "function": {"name": "f", "arguments": ""},
    }
    assert arguments == {"index": 3, "function": {"arguments": '{"a":1}'}}


@given(
    st.dictionaries(st.text(max_size=5), json_values(), max_size=3),
    st.text(min_size=1, max_size=5),
    st.none() | st.text(min_size=1),
)
def test_a_call_comes_back_as_it_went_out(args: Any, id: str, signature: str | None):
    part = {"functionCall": {"name": "f", "args": args, "id": id}}
    if signature is not None:
        part["thoughtSignature"] = signature
    part = loads(json.dumps(part).encode())
    call = Call.of_part(part)
    assert call is not None
    opening, rest = call.deltas(0)
    opening["function"] |= rest["function"]
    sent_back = loads(dumps(opening))
    assert parts_of(sent_back) == [part]
    # A client that keeps only what it knows.
    kept = Signatures()
    kept.remember(call.id, call.signature, "KEY")
    sent_back.pop("extra_content", None)
    assert parts_of(sent_back, signatures=kept) == [part]


# Signatures


def test_a_signature_that_the_client_kept_wins():
    kept = Signatures()
    kept.remember("call_1", "ours", "KEY")
    theirs = call(extra_content={"google": {"thought_signature": "theirs"}})
    assert parts_of(theirs, signatures=kept)[0]["thoughtSignature"] == "theirs"
    assert parts_of(call(), signatures=kept)[0]["thoughtSignature"] == "ours"


@pytest.mark.parametrize(
    "extra",
    [None, 1, {}, {"google": None}, {"google": {}}, {"google": {"thought_signature": 1}}],
)
def test_a_malformed_signature_is_dropped(extra: Any):
    assert "thoughtSignature" not in parts_of(call(extra_content=extra))[0]


def test_only_the_last_signatures_are_kept():
    kept = Signatures(keep=2)
    for id in ("a", "b", "c"):
        kept.remember(id, f"of {id}", "KEY")
    kept.remember("d", None, "KEY")
    known = [kept.of(id) for id in ("a", "b", "c", "d")]
    assert [signature and signature.text for signature in known] == [None, "of b", "of c", None]
    assert "KEY" not in repr(known)


@pytest.mark.parametrize("id", [None, 1, [], {}])
def test_what_is_no_id_has_no_signature(id: Any):
    assert Signatures().of(id) is None


def test_the_first_call_of_a_turn_is_signed():
    text, first, second = {"text": "x"}, reply_part(), reply_part()
    signed = sign_unsigned([text, first, second])
    assert signed == [
        text,
        first | {"thoughtSignature": "skip_thought_signature_validator"},
        second,
    ]
    assert first == second == reply_part()


def test_a_turn_that_is_signed_or_calls_nothing_stays_as_it_is():
    signed = reply_part() | {"thoughtSignature": "s"}
    for parts in ([signed, reply_part()], [{"text": "x"}], []):
        assert sign_unsigned(parts) == parts


def test_google_s_words_about_signatures_are_known():
    assert is_corrupted("Corrupted thought signature.")
    assert is_corrupted("Invalid thought_signature in part 3")
    assert not is_corrupted("Request contains an invalid argument.")
