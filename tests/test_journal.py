"""The last exchanges, as somebody finds them on disk who wants to know what was said."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.logger import Logger, formatEvent

from gemproxy.chat.chunks import Usage
from gemproxy.exchange import TEXT_LIMIT, Exchange, without_media
from gemproxy.journal import RETRY_DELAY, STOP_PATIENCE, WRITE_DELAY, DiskJournal
from gemproxy.journal_folder import JournalFolder
from gemproxy.offload.pool import Offload
from gemproxy.util.masking import NO_KEYS, Masking
from testing.fake_newapi import answer, chunk, document, event, events, hang, stream
from testing.google import scenarios
from tests.support import Product, chat, fresh_model, gpt, running_relay, until

pytestmark = pytest.mark.slow

DAY, BEGAN = 1_750_000_000.0, 100.0


def exchange(request: Any = None, **fields: Any) -> Exchange:
    return Exchange(
        **{
            "id": "x1",
            "time": DAY,
            "began": BEGAN,
            "route": "stream/upstream",
            "model": "gpt-x",
            "stream": True,
            "request": json.dumps(request or gpt()).encode(),
        }
        | fields
    )


# Pure:


def test_the_input_is_the_request_and_what_is_known_of_it() -> None:
    asked = gpt("Grüße", temperature=0.5, seed=2**70, x=[None])
    assert json.loads(exchange(asked).input()) == {
        "id": "x1",
        "time": "2025-06-15T15:06:40.000+00:00",
        "route": "stream/upstream",
        "model": "gpt-x",
        "stream": True,
        "request": asked,
    }


def parts_of(output: bytes) -> tuple[dict[str, str], str]:
    head, _, text = output.decode().partition("\n\n")
    return dict(line.split(": ", 1) for line in head.splitlines()), text


def test_the_output_is_the_text_and_what_is_known_of_it() -> None:
    kept = exchange(path="/v1/chat/completions")
    kept.add(chunk(delta={"role": "assistant", "content": ""}), BEGAN + 1)
    kept.add(chunk("One\n\n"), BEGAN + 1.5)
    kept.add(chunk("two"), BEGAN + 2)
    kept.add(chunk(finish="stop"), BEGAN + 2)
    kept.count(Usage(3, 4, 1))
    kept.duration, kept.retries = 2.25, 1
    head, text = parts_of(kept.output())
    assert head == {
        "id": "x1",
        "time": "2025-06-15T15:06:40.000+00:00",
        "path": "/v1/chat/completions",
        "route": "stream/upstream",
        "model": "gpt-x",
        "stream": "True",
        "upstream": "gemini",
        "status": "200",
        "finish_reason": "stop",
        "prompt_tokens": "3",
        "completion_tokens": "4",
        "duration": "2.250s",
        "first_token": "1.500s",
        "retries": "1",
        "parts": '[["content",0,8]]',
    }
    assert text == "One\n\ntwo\n"


def test_thoughts_calls_and_other_choices_are_separated() -> None:
    kept = exchange()
    kept.add(chunk(delta={"reasoning_content": "Hm"}), BEGAN)
    kept.add(chunk(delta={"tool_calls": [{"index": 0, "function": {"name": "f"}}]}), BEGAN)
    kept.add(chunk("B", index=1), BEGAN)
    kept.add(chunk("A"), BEGAN)
    _, text = parts_of(kept.output())
    assert text.startswith("A\n\n--- reasoning_content ---\nHm")
    assert '--- tool_calls ---\n[{"index":0,"function":{"name":"f"}}]' in text
    assert "--- choice 1: content ---\nB" in text


def test_an_error_is_in_one_line() -> None:
    head, text = parts_of(exchange(error="502: a\nb: c").output())
    assert head["error"] == "502: a b: c"
    assert text.strip() == ""


@pytest.mark.parametrize("pieces", [1, 100])
def test_a_long_answer_is_cut(pieces: int) -> None:
    kept = exchange()
    for _ in range(pieces):
        kept.add(chunk("ü" * (3 * TEXT_LIMIT // pieces)), BEGAN)
    assert len(kept.output().decode()) < TEXT_LIMIT + 1000 + TEXT_LIMIT // 10
    assert "the rest is not kept" in kept.output().decode()
    assert kept.text_length == 3 * TEXT_LIMIT // pieces * pieces


def test_strange_chunks_do_no_harm() -> None:
    kept = exchange()
    strange: list[Any] = [
        None,
        3,
        [],
        {},
        {"choices": 3},
        {"choices": [None, {"delta": []}, {"index": [1], "delta": {"content": {"a": 2**70}}}]},
        {"usage": "much"},
        {"choices": [{"delta": {"content": "\ud800"}, "finish_reason": ["x"]}]},
    ]
    for item in strange:
        kept.add(item, BEGAN)
    assert kept.output()
    assert kept.summary()


def test_media_are_kept_as_type_and_size() -> None:
    picture = "data:image/png;base64," + "A" * 4000
    parts = [
        {"type": "text", "text": "See data:image/png;base64,AAAA"},
        {"type": "image_url", "image_url": {"url": picture, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}},
        {"type": "input_audio", "input_audio": {"data": "B" * 800, "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64," + "C" * 400}},
        {"type": "file", "file": {"file_data": "D" * 40, "filename": "a"}},
        {"type": "input_audio", "input_audio": {"data": "E" * 80}},
        {"type": "input_audio", "input_audio": {"data": " DATA:audio/wav;base64," + "F" * 80}},
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": "G" * 80},
        },
        {"type": "tool_result", "id": 5, "data": "H"},
    ]
    kept = without_media({"messages": [{"role": "user", "content": parts}]})
    found = kept["messages"][0]["content"]
    assert found[0] == parts[0]
    assert found[1]["image_url"] == {"url": "[image/png, 3000 bytes]", "detail": "low"}
    assert found[2] == parts[2]
    assert found[3]["input_audio"] == {"data": "[audio/wav, 600 bytes]", "format": "wav"}
    assert found[4]["file"] == {"file_data": "[application/pdf, 300 bytes]"}
    assert found[5]["file"] == {"file_data": "[file, 30 bytes]", "filename": "a"}
    assert found[6]["input_audio"] == {"data": "[data, 60 bytes]"}
    assert found[7]["input_audio"] == {"data": "[audio/wav, 60 bytes]"}
    assert found[8]["source"]["data"] == "[image/png, 60 bytes]"
    assert found[9] == parts[9]


def test_media_in_an_answer_are_kept_as_type_and_size() -> None:
    def picture(data: str) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}

    kept = exchange()
    kept.add(chunk(delta={"images": [picture("A" * 4000)]}), BEGAN)
    sound = {"id": "a1", "data": "B" * 800, "transcript": "Hello"}
    kept.add(chunk(delta={"audio": sound}), BEGAN)
    kept.add(chunk(delta={"audio": {"expires_at": 3}}), BEGAN)
    kept.add(chunk(delta={"content": [picture("C" * 400)]}), BEGAN)
    output = kept.output().decode()
    for text in ("[image/png, 3000 bytes]", "[image/png, 300 bytes]", "[audio, 600 bytes]"):
        assert text in output
    assert '"transcript":"Hello"' in output
    assert '"expires_at":3' in output
    assert not any(letter * 9 in output for letter in "ABC")


def test_keys_are_nowhere() -> None:
    kept = exchange(gpt("My key is sk-0123456789"), masking=Masking(["sk-0123456789", "none"]))
    kept.add(chunk("sk-0123456789 and none"), BEGAN)
    assert "0123456789" not in repr(kept)
    kept.error = "401: Incorrect key: sk-0123456789"
    for text in (kept.input().decode(), kept.output().decode()):
        assert "0123456789" not in text
        assert "[secret]" in text
    assert "and none" in kept.output().decode()


def test_the_line_in_the_log_has_no_texts() -> None:
    kept = exchange(gpt("the question"), model='gpt"\n\x1b[31m')
    kept.add(chunk("the answer"), BEGAN)
    assert "the question" not in kept.summary()
    assert "the answer" not in kept.summary()
    assert "\n" not in kept.summary()
    assert "\x1b" not in kept.summary()


class Keeping(DiskJournal):
    """
    A journal in a folder, with a clock, and a disk that can be told to hang.

    @ivar disk: what the next batch waits for; None to be written at once.
    @ivar dropped: how many exchanges were lost.
    @ivar said: the warnings.
    """

    def __init__(self, folder: Path, keep: int = 3, **more: Any) -> None:
        self.clock = Clock()
        self.disk: Deferred[None] | None = None
        self.dropped = 0
        self.said: list[str] = []
        # Like all of the class's, but seen here alone.
        self.log = Logger(observer=lambda event: self.said.append(formatEvent(event)))
        super().__init__(
            self.clock,
            self._in_thread,
            Offload(self.clock),
            folder,
            keep,
            self._drop,
            **more,
        )
        self.startService()

    async def _in_thread(self, function: Any, *args: Any) -> Any:
        if self.disk is not None:
            await self.disk
        return function(*args)

    def _drop(self) -> None:
        self.dropped += 1

    def add(self, *names: str, size: int = 0) -> None:
        """Exchanges with these names end."""
        for name in names:
            body = json.dumps({"name": name, "text": "x" * size}).encode()
            self.end(self.begin("x1", "gemini", "m", False, body, NO_KEYS))

    def write(self, *names: str) -> None:
        """The same, and time passes until they are written."""
        self.add(*names)
        self.clock.advance(WRITE_DELAY)


def names_in(folder: Path) -> list[str]:
    """Of the requests that are kept, in their order."""
    paths = sorted(folder.glob("*_input.json"))
    assert [path.name.replace("input.json", "output.txt") for path in paths] == sorted(
        path.name for path in folder.glob("*_output.txt")
    )
    return [json.loads(path.read_bytes())["request"]["name"] for path in paths]


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    journal = Keeping(tmp_path)
    journal.write("a", "b")
    assert names_in(tmp_path) == ["a", "b"]
    journal.write("c", "d")
    assert names_in(tmp_path) == ["b", "c", "d"]
    journal.write(*"efghijk")
    assert names_in(tmp_path) == ["i", "j", "k"]
    assert len(os.listdir(tmp_path)) == 6


def test_those_of_the_last_run_count(tmp_path: Path) -> None:
    for names in ("ab", "cd"):
        journal = Keeping(tmp_path)
        journal.write(*names)
        journal.stopService()
    assert names_in(tmp_path) == ["b", "c", "d"]


def test_files_of_others_stay(tmp_path: Path) -> None:
    others = ["notes.txt", "1_input.json", "000001_input.json.bak", "x000001_output.txt"]
    for name in others:
        (tmp_path / name).write_text("mine")
    journal = Keeping(tmp_path, 1)
    journal.write("a", "b", "c")
    assert set(others) < set(os.listdir(tmp_path))
    assert len(os.listdir(tmp_path)) == len(others) + 2


def test_what_a_crash_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".gemproxy-part-abc").write_text("half")
    journal = Keeping(tmp_path)
    journal.write("a")
    assert len(os.listdir(tmp_path)) == 2


def test_nothing_is_lost_when_the_daemon_stops(tmp_path: Path) -> None:
    journal = Keeping(tmp_path)
    journal.add("a")
    journal.stopService()
    assert names_in(tmp_path) == ["a"]


# What goes wrong around it:


def full_disk(*args: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_daemons_that_share_a_folder_lose_nothing(tmp_path: Path) -> None:
    one, other = Keeping(tmp_path, 6), Keeping(tmp_path, 6)
    one.write("a")
    other.write("b", "c")
    one.write("d")
    other.write("e")
    one.write("f")
    assert names_in(tmp_path) == ["a", "b", "c", "d", "e", "f"]
    other.write("g", "h")
    assert names_in(tmp_path) == ["c", "d", "e", "f", "g", "h"]


def test_daemons_that_write_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    def write(who: int) -> None:
        folder = JournalFolder(tmp_path, 1000)
        for number in range(50):
            folder.write(b'{"request": {"name": "%d-%d"}}' % (who, number), b"")

    threads = [Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = names_in(tmp_path)
    assert len(names) == 200
    assert set(names) == {f"{who}-{number}" for who in range(4) for number in range(50)}
    assert len(os.listdir(tmp_path)) == 400


def test_a_daemon_that_stands_still_in_the_middle_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemproxy.journal_folder._LOCK_TIME", 0.05)
    journal = Keeping(tmp_path)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    journal.write("a")
    assert os.listdir(tmp_path) == []
    os.close(descriptor)
    journal.clock.advance(RETRY_DELAY)
    assert names_in(tmp_path) == ["a"]
    assert journal.said == [
        f"the journal cannot be written to {tmp_path}: "
        "[Errno 11] Another process has locked the folder"
    ]


def test_a_file_system_without_locks_serves_one_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*args: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("gemproxy.journal_folder.fcntl.flock", no_locks)
    journal = Keeping(tmp_path)
    journal.write("a", "b")
    assert names_in(tmp_path) == ["a", "b"]
    assert journal.said == []


def test_folders_named_like_files_of_the_journal_are_left_alone(tmp_path: Path) -> None:
    names = [".gemproxy-part-abc", "000001_input.json", "000007_output.txt"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    (tmp_path / "000003_input.json").symlink_to("nowhere")
    journal = Keeping(tmp_path, 2)
    journal.write("a", "b", "c")
    assert journal.said == []
    kept = sorted(os.listdir(tmp_path))
    assert kept == sorted(
        [*names, "000003_input.json"]
        + [f"{number:06d}_{kind}" for number in (8, 9) for kind in ("input.json", "output.txt")]
    )


def test_a_file_that_cannot_be_removed_costs_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = os.unlink

    def refuse(path: str) -> None:
        if path.endswith("/000001_input.json"):
            raise PermissionError(errno.EPERM, "Operation not permitted", path)
        unlink(path)

    monkeypatch.setattr("gemproxy.journal_folder.os.unlink", refuse)
    journal = Keeping(tmp_path, 2)
    for name in "abcdef":
        journal.write(name)
    left = {path.name for path in tmp_path.iterdir()}
    assert {name for name in left if "input" in name} == {
        f"00000{number}_input.json" for number in (1, 5, 6)
    }
    assert len(left) == 5
    (warning,) = journal.said
    assert "old files of the journal stay" in warning
    assert "Operation not permitted" in warning


def test_a_folder_that_turns_into_something_else_costs_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    journal = Keeping(folder)
    journal.write("a")
    shutil.rmtree(folder)
    folder.write_text("not a folder")
    for name in "bc":
        journal.write(name)
        journal.clock.advance(RETRY_DELAY)
    assert len(journal.said) == 1
    folder.unlink()
    journal.clock.advance(RETRY_DELAY)
    assert names_in(folder) == ["b", "c"]
    shutil.rmtree(folder)
    folder.write_text("not a folder")
    journal.write("d")
    assert len(journal.said) == 2
    assert journal.dropped == 0


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_full_disk_leaves_no_half_a_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    journal = Keeping(tmp_path)
    replace, calls = os.replace, itertools.count(1)

    def sometimes(*args: Any) -> None:
        (full_disk if next(calls) == attempt else replace)(*args)

    monkeypatch.setattr("gemproxy.journal_folder.os.replace", sometimes)
    journal.write("a", "b")
    assert os.listdir(tmp_path) == []
    journal.clock.advance(RETRY_DELAY)
    assert names_in(tmp_path) == ["a", "b"]
    assert sorted(os.listdir(tmp_path))[0] == "000001_input.json"


def test_numbers_go_on_behind_those_of_another_daemon(tmp_path: Path) -> None:
    one, other = Keeping(tmp_path), Keeping(tmp_path)
    one.write("a")
    for name in "bcdefg":
        other.write(name)
    one.write("h")
    assert names_in(tmp_path) == ["f", "g", "h"]


def test_a_clock_that_stands_still_costs_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a file system does for some milliseconds, or a wall clock that is set back."""
    one, other = Keeping(tmp_path, 5), Keeping(tmp_path, 5)
    with monkeypatch.context() as patch:
        patch.setattr(
            "gemproxy.journal_folder.os.fstat", lambda descriptor: SimpleNamespace(st_mtime_ns=1)
        )
        for number, name in enumerate("abcdef"):
            (one if number % 2 else other).write(name)
    assert names_in(tmp_path) == ["b", "c", "d", "e", "f"]


def test_thousands_of_files_are_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By each of the daemons that share them, if their listing takes long."""
    monkeypatch.setattr("gemproxy.journal_folder._PAUSE_OF_LISTING", 1e9)
    for number in range(1, 301):
        (tmp_path / f"{number:06d}_input.json").write_text("{}")
        (tmp_path / f"{number:06d}_output.txt").write_text("")
    lists = []
    scandir = os.scandir
    monkeypatch.setattr(
        "gemproxy.journal_folder.os.scandir", lambda path: lists.append(path) or scandir(path)
    )
    one, other = Keeping(tmp_path, 200), Keeping(tmp_path, 200)
    for name in "abcdef":
        one.write(name)
        other.write(name)
    assert len(lists) == 2
    assert len(os.listdir(tmp_path)) == 400
    # What is not there any more is not relied on.
    for path in tmp_path.iterdir():
        path.unlink()
    one.write("g")
    assert (len(lists), names_in(tmp_path)) == (3, ["g"])


def test_a_disk_that_hangs_does_not_fill_the_memory(tmp_path: Path) -> None:
    journal = Keeping(tmp_path, 100, most_bytes=10_000)
    journal.disk = Deferred()
    journal.add("a", size=4000)
    journal.clock.advance(WRITE_DELAY)
    journal.add(*"bcdef", size=2500)
    assert journal.dropped == 3
    journal.add("g", size=9000)
    assert journal.dropped == 6
    assert len(journal.said) == 1
    journal.add("h", size=2500)
    journal.disk.callback(None)
    journal.clock.advance(WRITE_DELAY)
    assert names_in(tmp_path) == ["a", "h"]


def test_one_that_is_larger_than_all_may_be_is_kept(tmp_path: Path) -> None:
    journal = Keeping(tmp_path, most_bytes=100)
    journal.add("a", size=50)
    journal.add("b", size=5000)
    journal.clock.advance(WRITE_DELAY)
    assert names_in(tmp_path) == ["b"]
    assert journal.dropped == 1


def test_what_would_be_removed_at_once_is_not_lost_but_not_written(tmp_path: Path) -> None:
    journal = Keeping(tmp_path, 2)
    journal.disk = Deferred()
    journal.write("a")
    journal.add(*"bcdef")
    journal.disk.callback(None)
    journal.clock.advance(WRITE_DELAY)
    assert names_in(tmp_path) == ["e", "f"]
    assert journal.dropped == 0
    assert "000003_input.json" in os.listdir(tmp_path)


def test_a_failure_of_ours_costs_one_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    input_of = Exchange.input

    def broken(self: Exchange) -> bytes:
        return 1 / 0 if b'"b"' in self.request else input_of(self)

    monkeypatch.setattr(Exchange, "input", broken)
    journal = Keeping(tmp_path)
    journal.write("a", "b", "c")
    assert names_in(tmp_path) == ["a", "c"]
    assert journal.dropped == 1
    assert journal.said == ["an exchange cannot be written down"]


def test_a_disk_that_hangs_does_not_keep_the_daemon_from_stopping(tmp_path: Path) -> None:
    journal = Keeping(tmp_path)
    journal.disk = Deferred()
    journal.write("a")
    stopped: list[Any] = []
    journal.stopService().addBoth(stopped.append)
    journal.clock.advance(STOP_PATIENCE - 1)
    assert stopped == []
    journal.clock.advance(1)
    assert stopped == [None]
    assert journal.said == ["the journal's disk does not answer: the last exchanges are lost"]


def test_nor_does_one_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemproxy.journal_folder.os.replace", full_disk)
    journal = Keeping(tmp_path)
    journal.write("a")
    journal.add("b")
    stopped: list[Any] = []
    journal.stopService().addBoth(stopped.append)
    assert stopped == [None]
    assert journal.dropped == 2
    assert not journal.clock.getDelayedCalls()


# On disk:


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


async def written(folder: Path, count: int) -> list[tuple[dict[str, Any], dict[str, str], str]]:
    """The pairs, the oldest first, once there are so many of them."""
    await until(lambda: len(list(folder.glob("*_output.txt"))) == count, "they are written", 5)
    return [
        (
            json.loads(path.read_bytes()),
            *parts_of(path.with_name(path.name.replace("input.json", "output.txt")).read_bytes()),
        )
        for path in sorted(folder.glob("*_input.json"))
    ]


@ensureDeferred
async def test_exchanges_are_kept_for_their_owner_only(tmp_path: Path, umask: None) -> None:
    folder = tmp_path / "deep" / "logs"
    async with running_relay(LOG_DIR=folder) as relay:
        await relay.ask(gpt(stream=True))
        await written(folder, 1)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


@ensureDeferred
async def test_the_files_hold_request_and_answer(tmp_path: Path) -> None:
    async with running_relay(LOG_DIR=tmp_path) as relay:
        relay.upstream.always(stream("One", " two", usage=True))
        for wanted in (True, False):
            body = gpt("Hi", stream=wanted, temperature=0.3, tools=[], x_unknown={"a": [1]})
            await relay.ask(body)
            (asked, head, text) = (await written(tmp_path, 1 if wanted else 2))[-1]
            assert asked["request"] == body
            assert (asked["route"], asked["model"]) == ("stream/upstream", "gpt-x")
            assert asked["stream"] is wanted
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", asked["time"])
            assert head["finish_reason"] == "stop"
            assert (head["prompt_tokens"], head["completion_tokens"]) == ("9", "2")
            for name in ("duration", "first_token"):
                assert re.fullmatch(r"\d+\.\d{3}s", head[name])
            assert "error" not in head
            assert text == "One two\n"


@ensureDeferred
async def test_failed_and_aborted_ones_are_kept(tmp_path: Path) -> None:
    async with running_relay(LOG_DIR=tmp_path) as relay:
        relay.upstream.play(
            document({"error": {"message": "Too many."}}, 429),
            events(event("Half"), then="cut"),
            events(event("Part"), then="hang"),
            hang(),
            stream("One <disclaimer> never"),
        )
        await relay.ask(gpt())
        await relay.ask(gpt(stream=True))
        for number in (2, 3):
            client = await relay.begin(gpt(stream=True))
            call = await relay.upstream.when_asked(number)
            if number == 2:
                await client.until_received(b"Part")
            client.drop()
            await call.when_closed()
        await relay.ask(gpt(stream=True))
        heads = [(head, text.strip()) for _, head, text in await written(tmp_path, 5)]
        assert heads[0][0]["error"].startswith("429")
        assert "Too many." in heads[0][0]["error"]
        assert heads[1][0]["error"].startswith("502")
        assert heads[1][1] == "Half"
        assert heads[2][0]["error"] == heads[3][0]["error"] == "the client disconnected"
        assert heads[2][1] == "Part"
        assert (heads[4][0]["finish_reason"], heads[4][1]) == ("stop", "One")
        assert all("duration" in head for head, _ in heads)


@ensureDeferred
async def test_only_so_many_are_kept(tmp_path: Path) -> None:
    async with running_relay(LOG_DIR=tmp_path, LOG_KEEP=3) as relay:
        for number in range(7):
            await relay.ask(gpt(f"question {number}"))
        await deferLater(reactor, WRITE_DELAY * 1.5)
        kept = await written(tmp_path, 3)
        assert [asked["request"]["messages"][0]["content"] for asked, _, _ in kept] == [
            f"question {number}" for number in (4, 5, 6)
        ]


@ensureDeferred
async def test_no_key_gets_to_disk(tmp_path: Path) -> None:
    keys = ["sk-client-0001", "sk-fixed-0001", "sk-other-0001", "sk-lower-0001"]
    keys += ["sk-azure-0001", "sk-goog-0001"]
    async with running_relay(LOG_DIR=tmp_path, FIXED_API_KEY=keys[1]) as relay:
        said = "Wrong: " + " ".join(keys)
        relay.upstream.play(document({"error": {"message": said}}, 401), stream(said), stream(said))
        headers = {"X_Api_Key": keys[2], "Cookie": "session=cookie-0001"}
        headers |= {"api_key": keys[4], "X_Goog_Api_Key": keys[5]}
        await relay.ask(gpt(said), Authorization=f"Bearer {keys[0]}", **headers)
        await relay.ask(gpt(), Authorization=f"bearer  {keys[3]}")
        await relay.ask(gpt(), Authorization=keys[3])
        await written(tmp_path, 3)
        whole = b"".join(path.read_bytes() for path in sorted(tmp_path.iterdir()))
        assert b"cookie" not in whole
        assert b"uthorization" not in whole
        assert keys[1].encode() not in whole
        first = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("*1_*")))
        for number in (0, 2, 4, 5):
            assert keys[number].encode() not in first
        for number in (b"2", b"3"):
            path = tmp_path / f"00000{number.decode()}_output.txt"
            assert keys[3].encode() not in path.read_bytes()


@ensureDeferred
async def test_pictures_do_not_get_to_disk(tmp_path: Path) -> None:
    async with running_relay(LOG_DIR=tmp_path) as relay:
        picture = {"url": "data:image/jpeg;base64," + "QUJD" * 200_000}
        content = [{"type": "image_url", "image_url": picture}]
        await relay.ask(gpt({"role": "user", "content": content}))
        assert picture["url"].encode() in relay.upstream.calls[0].body
        ((asked, _, _),) = await written(tmp_path, 1)
        kept = asked["request"]["messages"][0]["content"][0]["image_url"]["url"]
        assert kept == "[image/jpeg, 600000 bytes]"


@ensureDeferred
async def test_a_file_is_never_visible_half_written(tmp_path: Path) -> None:
    async with running_relay(LOG_DIR=tmp_path, LOG_KEEP=5) as relay:
        relay.upstream.always(stream("x" * 200_000))
        over: list[bool] = []

        async def ask() -> None:
            for _ in range(3):
                await relay.ask_all([gpt("y" * 200_000)] * 3)
                await deferLater(reactor, WRITE_DELAY)
            over.append(True)

        asking = Deferred.fromCoroutine(ask())
        looked = 0
        while not over:
            for path in tmp_path.iterdir():
                try:
                    data = path.read_bytes()
                except FileNotFoundError:
                    continue
                if path.suffix == ".json":
                    assert len(json.loads(data)["request"]["messages"][0]["content"]) == 200_000
                    looked += 1
                elif path.suffix == ".txt":
                    assert data.endswith(b"x\n")
            await deferLater(reactor, 0)
        await asking
        assert looked


@pytest.mark.parametrize("below", ["", "logs"])
@ensureDeferred
async def test_a_folder_that_cannot_be_made_anew_costs_a_warning(
    tmp_path: Path, below: str
) -> None:
    folder = tmp_path / "file" / below
    async with running_relay(LOG_DIR=folder) as relay:
        shutil.rmtree(tmp_path / "file")
        (tmp_path / "file").write_text("not a folder")
        for wanted in (True, False):
            assert (await relay.ask(gpt(stream=wanted))).content == "Hello"
            await deferLater(reactor, WRITE_DELAY * 1.5)
        assert len([text for text in relay.warnings if "journal" in text]) == 1


@ensureDeferred
async def test_a_full_disk_costs_a_warning_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemproxy.journal.RETRY_DELAY", 0.05)
    async with running_relay(LOG_DIR=tmp_path) as relay:

        def complaints() -> int:
            return len([text for text in relay.warnings if "No space left" in text])

        with monkeypatch.context() as patch:
            patch.setattr("gemproxy.journal_folder.os.replace", full_disk)
            for _ in range(2):
                assert (await relay.ask(gpt())).content == "Hello"
                await until(complaints, "there is a warning", 5)
            await deferLater(reactor, WRITE_DELAY * 1.5)
            assert complaints() == 1
            assert list(tmp_path.iterdir()) == []
        assert (await relay.ask(gpt())).content == "Hello"
        await written(tmp_path, 3)
        assert "gemproxy_journal_dropped_total 0.0" in (await relay.get("/metrics")).body.decode()


@ensureDeferred
async def test_a_folder_that_is_removed_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    async with running_relay(LOG_DIR=folder) as relay:
        await relay.ask(gpt())
        await written(folder, 1)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        await relay.ask(gpt())
        await written(folder, 1)
        assert not relay.warnings


@ensureDeferred
async def test_no_journal_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with running_relay(LOG_DIR="") as relay:
        await relay.ask(gpt())
        await deferLater(reactor, WRITE_DELAY * 1.5)
    assert list(tmp_path.iterdir()) == []


@ensureDeferred
async def test_what_is_written_at_the_end_is_not_lost(tmp_path: Path) -> None:
    async with running_relay(LOG_DIR=tmp_path) as relay:
        relay.upstream.play(events(*answer("One")[:2], then="hang"))
        client = await relay.begin(gpt(stream=True))
        await client.until_received(b"One")
    ((_, head, text),) = await written(tmp_path, 1)
    assert text == "One\n"
    assert "error" in head


@ensureDeferred
async def test_both_ports_keep_the_exchanges_of_gemini(product: Product) -> None:
    folder = product.run_root.parent / "logs"
    for port, route in ((product.port, "gemini"), (product.stream_port, "stream/gemini")):
        product.api.play(scenarios.error(503), scenarios.thinking("Hm.", "One", " two"))
        model = fresh_model()
        await product.ask(chat("Hi", model=model), port)

        def kept(model: str = model) -> list[Path]:
            found = []
            for path in folder.glob("*_input.json"):
                # The oldest are removed meanwhile.
                with suppress(FileNotFoundError):
                    found += [path] if model.encode() in path.read_bytes() else []
            return found

        await until(kept, "it is written", 5)
        asked = json.loads(kept()[0].read_bytes())
        assert (asked["route"], asked["model"]) == (route, model)
        output = kept()[0].with_name(kept()[0].name.replace("input.json", "output.txt"))
        await until(output.exists, "the answer is written", 5)
        head, text = parts_of(output.read_bytes())
        assert head["retries"] == "1"
        assert text.startswith("One two\n")
