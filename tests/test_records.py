"""What the CLI writes by itself does not come to lie on a disk, or not for long."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from gemproxy.gemini.cli.records import clear, delete_reports, keep_off_disk

SESSION = "0123abcd-4567-89ab-cdef-000000000000"
RECORD = "session-2026-01-01T00-00-0123abcd.jsonl"
OTHER = "session-2026-01-01T00-00-ffffffff.jsonl"


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    for name in (RECORD, OTHER, "notes.txt"):
        (tmp_path / name).write_text("{}\n")
    return tmp_path


def test_the_record_of_a_session_takes_no_more(chats: Path):
    keep_off_disk(chats, SESSION)
    assert not (chats / RECORD).is_file()
    with pytest.raises(OSError) as raised, (chats / RECORD).open("a") as record:
        record.write("What was said.")
    assert raised.value.errno == errno.ENOSPC
    assert sorted(path.name for path in chats.iterdir()) == ["notes.txt", RECORD, OTHER]


def test_where_there_is_no_such_device_what_is_written_is_lost(
    chats: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gemproxy.gemini.cli.records._NOWHERE", Path("/dev/null"))
    keep_off_disk(chats, SESSION)
    with (chats / RECORD).open("a") as record:
        record.write("What was said.")
    assert (chats / RECORD).read_text() == ""


def test_other_records_are_left_alone(chats: Path):
    keep_off_disk(chats, SESSION)
    assert (chats / OTHER).read_text() == "{}\n"


def test_all_records_are_cleared(chats: Path):
    keep_off_disk(chats, SESSION)
    clear(chats)
    assert [path.name for path in chats.iterdir()] == ["notes.txt"]


def test_reports_are_deleted(tmp_path: Path):
    (tmp_path / "gemini-client-error-x.json").write_text("{}")
    (tmp_path / "other.json").write_text("{}")
    delete_reports(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]


def test_a_home_that_is_gone_is_no_error(tmp_path: Path):
    keep_off_disk(tmp_path / "gone", SESSION)
    clear(tmp_path / "gone")
    delete_reports(tmp_path / "gone")
