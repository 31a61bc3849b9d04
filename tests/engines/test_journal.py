import errno
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.engines.journal import open_journal


def entries(path: Path) -> dict[str, object]:
    with open_journal(path) as journal:
        return dict(journal.entries)


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_entries_come_back_when_the_journal_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "work.jsonl"
    with open_journal(path) as journal:
        journal.append({"0.0": {"completion": "žluť\n\u2028", "tokens": 3}, "0.1": None})
        journal.append({"1.0": [1, 2]})
        assert list(journal.entries) == ["0.0", "0.1", "1.0"]

    assert entries(path) == {"0.0": {"completion": "žluť\n\u2028", "tokens": 3}, "0.1": None, "1.0": [1, 2]}


def test_half_a_character_of_an_answer_is_replaced_and_not_lost_with_the_rest(tmp_path: Path) -> None:
    with open_journal(tmp_path / "journal.jsonl") as journal:
        journal.append({"a": {"text": "cut \ud83d"}, "b": "whole 🙂"})

    with open_journal(tmp_path / "journal.jsonl") as journal:
        assert journal.entries == {"a": {"text": "cut \ufffd"}, "b": "whole 🙂"}


def test_a_journal_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    assert entries(tmp_path / "none.jsonl") == {}


def test_a_file_cut_anywhere_keeps_exactly_its_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    first, second = '["a", "é"]\n'.encode(), b'["b", {"t": 1}]\n'
    whole = first + second
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        sound = whole if cut == len(whole) else first if cut >= len(first) else b""

        found = entries(path)

        assert list(found) == ["a", "b"][: sound.count(b"\n")], cut
        assert path.read_bytes() == sound, cut


def test_appending_after_a_dropped_line_leaves_a_sound_journal(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    path.write_bytes(b'["a", 1]\n["b", 2')
    with open_journal(path) as journal:
        journal.append({"b": 3})

    assert entries(path) == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    "damaged", [b'["b", 2', b"", b"\xff\xfe", b"\x00\x00", b'["b"]', b"7", b"null", b'{"b": 1, "c": 2}', b'"bc"']
)
def test_damage_in_the_middle_names_file_and_line(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "work.jsonl"
    path.write_bytes(b'["a", 1]\n' + damaged + b'\n["c", 3]\n')

    with pytest.raises(UserError, match=r"work\.jsonl, line 2 is damaged; delete the file"):
        entries(path)


def test_a_damaged_journal_is_unlocked_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    path.write_bytes(b'damaged\n["c", 3]\n')
    with pytest.raises(UserError):
        entries(path)
    assert path.read_bytes() == b'damaged\n["c", 3]\n'

    child = python(
        "import sys; from filelock import FileLock; FileLock(sys.argv[1]).acquire(timeout=0)", path.with_suffix(".lock")
    )
    assert child.wait(60) == 0


def test_a_disk_that_is_full_when_syncing_is_a_user_error_and_keeps_what_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "work.jsonl"

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with open_journal(path) as journal:
        journal.append({"a": 1})
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"work\.jsonl: No space left on device"):
            journal.append({"b": 2})
        assert journal.entries == {"a": 1}

    assert entries(path)["a"] == 1


FILLS_ITS_QUOTA = """
import resource, sys
from pathlib import Path
from persona_leakage.domain.errors import UserError
from persona_leakage.engines.journal import open_journal
with open_journal(Path(sys.argv[1])) as journal:
    journal.append({"a": "sound"})
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    try:
        journal.append({"b": "x" * 2000, "c": "y" * 8000})
    except UserError as error:
        print(error)
"""


def test_a_write_that_the_disk_took_only_half_of_is_a_user_error_and_leaves_a_readable_file(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    said, _ = python(FILLS_ITS_QUOTA, path).communicate(timeout=60)
    assert "cannot write" in said
    assert path.stat().st_size == 5000  # the half line really is there

    assert entries(path) == {"a": "sound", "b": "x" * 2000}


WAITS_ITS_TURN = """
import sys
from pathlib import Path
from persona_leakage.engines.journal import open_journal
print("waiting")
with open_journal(Path(sys.argv[1])) as journal:
    print(sorted(journal.entries))
"""


def test_a_second_process_waits_and_then_sees_the_entries_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    with open_journal(path) as journal:
        child = python(WAITS_ITS_TURN, path)
        assert child.stdout is not None
        assert child.stdout.readline() == "waiting\n"
        went_on, _, _ = select.select([child.stdout], [], [], 0.5)
        journal.append({"a": 1, "b": 2})
    said, _ = child.communicate(timeout=60)

    assert not went_on
    assert said == "['a', 'b']\n"


APPENDS_FOR_EVER = """
import itertools, sys
from pathlib import Path
from persona_leakage.engines.journal import open_journal
with open_journal(Path(sys.argv[1])) as journal:
    for number in itertools.count():
        journal.append({str(number): "x" * 3_000_000})
        print(number)
"""


def test_a_process_that_is_killed_while_appending_leaves_a_readable_journal(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    child = python(APPENDS_FOR_EVER, path)
    assert child.stdout is not None
    child.stdout.readline()
    child.kill()
    confirmed = 1 + child.communicate(timeout=60)[0].count("\n")
    assert child.returncode == -signal.SIGKILL

    with open_journal(path) as journal:
        kept = len(journal.entries)
        assert kept >= confirmed
        journal.append({str(kept): "more"})

    found = entries(path)
    assert list(found) == [str(number) for number in range(kept + 1)]
    assert {found[str(number)] == "x" * 3_000_000 for number in range(kept)} == {True}
