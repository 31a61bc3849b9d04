import gzip
import json
from pathlib import Path

import pandas as pd
import pytest
from kedro.io import DatasetError

from persona_leakage.datasets import HubRowsDataset

ROWS = [
    {"prompt_id": name, "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": name * 50}]}
    for name in "abc"
]


def jsonl(folder: Path) -> Path:
    file = folder / "chats.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def parquet(folder: Path) -> Path:
    file = folder / "chats.parquet"
    pd.DataFrame(ROWS).to_parquet(file)
    return file


@pytest.mark.parametrize("write", [jsonl, parquet])
def test_the_first_rows_of_a_local_file_are_those_of_the_hub_in_its_place(tmp_path: Path, write: object) -> None:
    rows = HubRowsDataset(filepath=str(write(tmp_path)), rows=2).load()  # type: ignore[operator]
    assert rows == ROWS[:2]


def test_local_lines_are_read_as_everywhere(tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl.gz"
    file.write_bytes(gzip.compress(b'\xef\xbb\xbf{"prompt_id": "a\\ud83d"}\n{"prompt_id": "b"}\n\n'))

    assert HubRowsDataset(filepath=str(file), rows=9).load() == [{"prompt_id": "a\ufffd"}, {"prompt_id": "b"}]
    file.write_text('{"prompt_id": "a"}\n{"prompt_id": NaN}\n')
    with pytest.raises(DatasetError, match=r"chats\.jsonl\.gz, line 2: not JSON \(NaN is no finite number\)"):
        HubRowsDataset(filepath=str(file), rows=9).load()


def test_a_missing_file_and_an_unknown_format_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere\.jsonl does not exist"):
        HubRowsDataset(filepath=str(tmp_path / "nowhere.jsonl"), rows=1).load()
    with pytest.raises(DatasetError, match=r"chats\.xml: give a file that ends in \.jsonl"):
        HubRowsDataset(filepath=str(tmp_path / "chats.xml"), rows=1).load()


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.load_dataset", lambda **_: (_ for _ in ()).throw(ConnectionError("no route\nto the hub")))
    with pytest.raises(DatasetError, match=r"cannot read someone/chats at abc: no route$"):
        HubRowsDataset(repository="someone/chats", revision="abc", rows=1).load()


def test_an_unpinned_revision_is_refused() -> None:
    with pytest.raises(DatasetError, match="pin the revision of someone/chats"):
        HubRowsDataset(repository="someone/chats", rows=1)


def test_a_source_is_either_on_the_hub_or_a_file() -> None:
    with pytest.raises(DatasetError, match="either a repository on the hub or a filepath"):
        HubRowsDataset(repository="someone/chats", revision="abc", filepath="x.jsonl", rows=1)
