"""The journal as those who run the daemon read it: found, paged, and told part by part."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred

from gemproxy.exchange import TEXT_LIMIT, Exchange
from gemproxy.journal_entry import NOTHING_KNOWN, answer_in, facts_in_output
from gemproxy.journal_folder import JournalFolder
from gemproxy.journal_reader import MOST_SHOWN, JournalReader, Wanted, status_filter
from gemproxy.util.masking import Masking
from testing.fake_newapi import chunk, document, stream
from tests.support import Client, gpt, running_relay, until
from tests.test_journal import exchange

HOSTILE = '</script><script>alert("1")</script>\u2028'
FORGED = "Yes.\n\n--- tool_calls ---\n[]\n\n--- truncated: the rest is not kept ---"
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def answered(*deltas: dict[str, Any], **fields: Any) -> Exchange:
    kept = exchange(**fields)
    for delta in deltas:
        kept.add(chunk(delta=delta), 0.0)
    return kept


# Pure:

TEXT = st.one_of(st.sampled_from([FORGED, HOSTILE, "", "\n\n", "[1]", "{}"]), st.text(max_size=20))


@given(TEXT, TEXT, TEXT, st.booleans())
def test_what_was_said_is_told_part_by_part_whatever_it_is(
    content: str, thought: str, other: str, is_long: bool
) -> None:
    kept = answered({"reasoning_content": thought}, {"content": content})
    kept.add(chunk(other, index=1), 0.0)
    if is_long:
        kept._size = TEXT_LIMIT + 1
    messages, is_cut = answer_in(kept.output())
    assert is_cut == is_long
    by_index = {message["index"]: message for message in messages}
    first, second = by_index.get(0, {}), by_index.get(1, {})
    assert (first.get("content") or "", first.get("reasoning_content", "")) == (content, thought)
    assert (second.get("content") or "") == other


def test_calls_are_put_together() -> None:
    first = CALL | {"index": 0, "function": {"name": "f", "arguments": '{"a"'}}
    rest = {"index": 0, "function": {"arguments": ": 1}"}}
    kept = answered({"tool_calls": [first]}, {"tool_calls": [rest]}, {"content": "So"})
    (message,), _ = answer_in(kept.output())
    assert message == {"index": 0, "role": "assistant", "content": "So", "tool_calls": [CALL]}


def test_a_fact_is_one_line_whatever_others_call_theirs() -> None:
    kept = exchange(
        model="m\nstatus: 200\n\nfree text", status=503, error="a\r\n\nb: c", finish_reason="x\n\ny"
    )
    kept.duration = 1.25
    facts = facts_in_output(kept.output())
    assert (facts["status"], facts["model"]) == (503, "m status: 200 free text")
    assert (facts["error"], facts["finish_reason"]) == ("a b: c", "x y")
    assert (facts["duration"], facts["time"], facts["stream"]) == (1.25, 1_750_000_000.0, True)


def test_keys_are_in_no_part_and_the_parts_are_found_all_the_same() -> None:
    kept = answered(
        {"content": "It is secret-key-1."}, {"reasoning": "secret-key-1, yes"}, {"content": " Ok"}
    )
    kept.masking = Masking(["secret-key-1"])
    (message,), _ = answer_in(kept.output())
    assert message["content"] == "It is [secret]. Ok"
    assert message["reasoning"] == "[secret], yes"


OLD_INPUT = json.dumps(
    {
        "id": "0f",
        "time": "2025-06-15T15:06:40.000+00:00",
        "route": "gemini",
        "model": "gemini-x",
        "stream": False,
        "request": gpt(),
    },
    indent=2,
)
OLD_OUTPUT = (
    "id: 0f\nprompt_tokens: 3\nduration: 2.250s\nretries: 0\n\nWell\n\n--- reasoning_content ---\n"
    "Hm\n\n--- truncated: the rest is not kept ---\n"
)


# Files:


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def write(folder: Path, *exchanges: Exchange) -> None:
    files = JournalFolder(folder, 1000)
    files.try_out()
    for one in exchanges:
        files.write(one.input(), one.output())


def pages(reader: JournalReader, wanted: Wanted, limit: int = 3) -> Iterator[list[int]]:
    before = None
    while True:
        page = reader.search(wanted, before, limit)
        yield [facts["number"] for facts in page["data"]]
        before = page["next"]
        if before is None:
            return


def found(folder: Path, text: str = "", status: str = "", **words: str) -> list[int]:
    wanted = Wanted(words, status_filter(status), text)
    reader = JournalReader(folder)
    together = [number for page in pages(reader, wanted) for number in page]
    hurried = list(pages(JournalReader(folder, patience=0), wanted))
    assert [number for page in hurried for number in page] == together
    assert all(len(page) <= 1 for page in hurried)
    return together


def test_they_are_found_by_what_is_known_of_them(folder: Path) -> None:
    (folder / "000001_input.json").write_text(OLD_INPUT)
    (folder / "000001_output.txt").write_text(OLD_OUTPUT)
    write(
        folder,
        exchange(id="a" * 16, model="GPT-Big", account="ann", status=200),
        answered({"content": "Grüße\nan\talle"}, id="b" * 16, model="gpt-x", status=200),
        exchange(gpt('He said "Straße"\n'), id="c" * 16, account="Bob", status=503, error="away"),
        exchange(id="d" * 16, status=404),
        answered({"tool_calls": [CALL]}, id="1" * 16),
    )
    assert list(pages(JournalReader(folder), Wanted())) == [[6, 5, 4], [3, 2, 1]]
    assert found(folder, model="gpt-b") == [2]
    assert found(folder, id="DDDD") == [5]
    assert found(folder, account="bo", model="x") == [4]
    assert found(folder, status="error") == [5, 4]
    assert found(folder, status="5xx") == [4]
    assert found(folder, status="404") == [5]
    assert found(folder, text="grüSSe") == []
    assert found(folder, text="GRÜßE\nAN\t") == [3]
    assert found(folder, text='said "STRA') == [4]
    assert found(folder, text="arguments") == [6]
    assert found(folder, text="nowhere") == []

    old = JournalReader(folder).entry("1")
    assert old is not None
    assert old | NOTHING_KNOWN == old | dict.fromkeys(NOTHING_KNOWN)
    assert (old["id"], old["time"], old["route"]) == ("0f", 1_750_000_000.0, "gemini")
    assert (old["status"], old["duration"], old["request"]) == (None, 2.25, gpt())
    assert old["answer"] == [
        {"index": 0, "role": "assistant", "content": "Well", "reasoning_content": "Hm"},
    ]
    assert old["is_cut"]
    by_id = JournalReader(folder).entry("1" * 16)
    assert by_id is not None
    assert by_id["number"] == 6
    assert JournalReader(folder).entry("f" * 16) is None
    assert JournalReader(folder).entry("99") is None


def test_what_is_no_file_of_the_journal_is_not_opened(folder: Path) -> None:
    write(folder, exchange(id="a"), exchange(id="b"), exchange(id="c"))
    os.mkfifo(folder / "000007_output.txt")
    (folder / "000008_output.txt").symlink_to("/etc/passwd")
    (folder / "000009_output.txt").mkdir()
    (folder / "000010_output.txt").write_bytes(b"\xff\0: \n\n\n")
    (folder / "000003_input.json").unlink()
    (folder / "000002_input.json").write_text("[")
    assert found(folder) == [10, 3, 2, 1]
    reader = JournalReader(folder)
    assert reader.entry("3") is reader.entry("7") is reader.entry("8") is None
    damaged = reader.entry("2")
    assert damaged is not None
    assert damaged["request"] is None
    assert found(folder / "gone") == []


def test_a_request_that_is_too_large_to_be_shown_is_told_by_its_size(folder: Path) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    seen = {"role": "user", "content": [picture]}
    write(folder, exchange(gpt("x" * MOST_SHOWN)), exchange(gpt(seen)))
    large, pictured = JournalReader(folder).entry("1"), JournalReader(folder).entry("2")
    assert large is not None
    assert pictured is not None
    assert large["request"] is None
    assert large["request_bytes"] > MOST_SHOWN
    assert not large["has_left_out"]
    assert pictured["has_left_out"]


# The daemon:


async def journal(client: Client, path: str = "", **headers: str) -> Any:
    return await (await client.send("GET", f"/admin/journal{path}", **headers)).reply()


@ensureDeferred
async def test_it_is_read_at_admin_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    search = JournalReader.search

    def noted(*args: Any) -> Any:
        threads.append(threading.current_thread())
        return search(*args)

    monkeypatch.setattr(JournalReader, "search", noted)
    async with running_relay(LOG_DIR=tmp_path, PROXY_API_KEYS="key-of-ann-123") as relay:
        assert (await journal(relay)).status == 403
    async with running_relay(LOG_DIR=tmp_path, ADMIN_KEY="key-of-admin-1") as relay:
        relay.upstream.play(stream(HOSTILE), document({"error": {"message": "No."}}, 400))
        asked = gpt(HOSTILE, stream=True, model=HOSTILE)
        assert (await relay.ask(asked)).content == HOSTILE
        await relay.ask(gpt("The key is key-of-admin-1"))
        await until(lambda: len(list(tmp_path.glob("*_output.txt"))) == 2, "both are written")
        shown = {"Authorization": "Bearer key-of-admin-1"}
        assert (await journal(relay)).status == 401
        reply = await journal(relay, "?limit=1", **shown)
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["x-content-type-options"] == "nosniff"
        (newest,) = reply.json["data"]
        assert (newest["number"], newest["status"], newest["path"]) == (
            2,
            400,
            "/v1/chat/completions",
        )
        page = (await journal(relay, f"?before={reply.json['next']}&text=ALERT", **shown)).json
        assert page["next"] is None
        (oldest,) = page["data"]
        assert oldest["model"] == " ".join(HOSTILE.split())
        entry = (await journal(relay, f"/{oldest['id']}", **shown)).json
        assert entry["request"] == asked
        (message,) = entry["answer"]
        assert message == {"index": 0, "role": "assistant", "content": HOSTILE}
        second = await journal(relay, "/2", **shown)
        assert "[secret]" in second.body.decode()
        assert b"key-of-admin-1" not in second.body
        for path, status in (
            ("/77", 404),
            ("?limit=0", 400),
            ("?status=x", 400),
            ("?before=-1", 400),
        ):
            assert (await journal(relay, path, **shown)).status == status
    assert threads
    assert threading.main_thread() not in threads
    async with running_relay() as relay:
        assert (await journal(relay)).error["code"] == "journal_off"
