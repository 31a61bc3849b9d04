"""What holds for every dataset class."""

import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileOpener, LocalFileSystem
from kedro.io import DatasetError

from tests.datasets.kinds import KINDS, VERSIONED, catalog, user_message

OLD, NEW = "2026-01-01T00.00.00.000Z", "2026-02-01T00.00.00.000Z"
UNVERSIONED = [name for name in KINDS if name != "AdaptersDataset"]


def partials(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".partial")]


@pytest.mark.parametrize("name", KINDS)
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    value = kind.first(tmp_path / "scratch")
    entries = catalog(name, tmp_path / "deep" / "folder" / kind.file)
    assert not entries.exists("it")

    entries.save("it", value)

    assert entries.exists("it")
    assert kind.plain(entries.load("it")) == kind.plain(value)
    assert partials(tmp_path) == []


@pytest.mark.parametrize("name", KINDS)
def test_saving_again_replaces_the_value(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    value = kind.second(tmp_path / "scratch")
    entries = catalog(name, tmp_path / kind.file)
    entries.save("it", kind.first(tmp_path / "scratch"))

    entries.save("it", value)

    assert kind.plain(entries.load("it")) == kind.plain(value)


@pytest.mark.parametrize("name", VERSIONED)
def test_a_versioned_save_makes_a_new_version_and_the_latest_is_loaded(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    first, second = kind.first(tmp_path / "scratch"), kind.second(tmp_path / "scratch")
    path = tmp_path / "data" / kind.file

    catalog(name, path, save_version=OLD).save("it", first)
    catalog(name, path, save_version=NEW).save("it", second)

    assert sorted(version.name for version in path.iterdir()) == [OLD, NEW]
    later = catalog(name, path, save_version="2026-03-01T00.00.00.000Z")
    assert kind.plain(later.load("it")) == kind.plain(second)
    assert kind.plain(catalog(name, path, load_version=OLD).load("it")) == kind.plain(first)


@pytest.mark.parametrize("name", VERSIONED)
def test_a_version_is_never_overwritten(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    first = kind.first(tmp_path / "scratch")
    catalog(name, tmp_path / kind.file, save_version=OLD).save("it", first)

    with pytest.raises(DatasetError, match="must not exist if versioning is enabled"):
        catalog(name, tmp_path / kind.file, save_version=OLD).save("it", kind.second(tmp_path / "scratch"))

    assert kind.plain(catalog(name, tmp_path / kind.file, load_version=OLD).load("it")) == kind.plain(first)


@pytest.mark.parametrize("name", UNVERSIONED)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "nowhere" / KINDS[name].file

    with pytest.raises(DatasetError, match=str(path)):
        catalog(name, path).load("it")


@pytest.mark.parametrize("name", VERSIONED)
def test_a_missing_version_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "nowhere" / KINDS[name].file

    with pytest.raises(DatasetError, match=f"Did not find any versions for .*{path}"):
        catalog(name, path, save_version=NEW).load("it")
    assert not catalog(name, path, save_version=NEW).exists("it")


# interrupted saves


@pytest.fixture(params=["disk full", "interrupted"])
def interruption(request: pytest.FixtureRequest) -> BaseException:
    return OSError(errno.ENOSPC, "No space left on device") if request.param == "disk full" else KeyboardInterrupt()


@pytest.fixture
def breaking(interruption: BaseException) -> Iterator[Any]:
    """Let every write to a file stop half-way, until the test is through with it."""

    def half(file: Any, content: bytes) -> int:
        file.f.write(bytes(content)[: len(content) // 2])
        raise interruption

    def half_copied(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise interruption

    def no_links(*_: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalFileOpener, "write", half)
        patch.setattr(os, "link", no_links)
        patch.setattr(Path, "write_bytes", half_copied)
        yield patch


def save_interrupted(entries: Any, value: Any, interruption: BaseException) -> None:
    if isinstance(interruption, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            entries.save("it", value)
    else:
        with pytest.raises(DatasetError) as caught:
            entries.save("it", value)
        assert re.fullmatch("cannot write .*: No space left on device; .*", user_message(caught.value) or "")


@pytest.mark.parametrize("name", UNVERSIONED)
def test_an_interrupted_save_leaves_the_old_content(
    tmp_path: Path, name: str, interruption: BaseException, request: pytest.FixtureRequest
) -> None:
    kind = KINDS[name]
    first, second = kind.first(tmp_path / "scratch"), kind.second(tmp_path / "scratch")
    entries = catalog(name, tmp_path / kind.file)
    entries.save("it", first)
    patch = request.getfixturevalue("breaking")

    save_interrupted(entries, second, interruption)

    assert partials(tmp_path) == []
    assert kind.plain(entries.load("it")) == kind.plain(first)
    patch.undo()
    entries.save("it", second)
    assert kind.plain(entries.load("it")) == kind.plain(second)


@pytest.mark.parametrize("name", VERSIONED)
def test_an_interrupted_version_does_not_exist(
    tmp_path: Path, name: str, interruption: BaseException, request: pytest.FixtureRequest
) -> None:
    kind = KINDS[name]
    first, second = kind.first(tmp_path / "scratch"), kind.second(tmp_path / "scratch")
    path = tmp_path / kind.file
    catalog(name, path, save_version=OLD).save("it", first)
    patch = request.getfixturevalue("breaking")
    entries = catalog(name, path, save_version=NEW)

    save_interrupted(entries, second, interruption)

    assert partials(tmp_path) == []
    assert entries.get("it").list_versions(full_path=False) == [OLD]
    assert kind.plain(entries.load("it")) == kind.plain(first)
    patch.undo()
    entries.save("it", second)
    assert kind.plain(entries.load("it")) == kind.plain(second)


@pytest.mark.parametrize("name", VERSIONED)
def test_a_first_version_that_cannot_take_its_place_does_not_exist(
    tmp_path: Path, name: str, interruption: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def move(*_: Any, **__: Any) -> None:
        raise interruption

    monkeypatch.setattr(LocalFileSystem, "mv", move)
    entries = catalog(name, tmp_path / KINDS[name].file, save_version=NEW)

    save_interrupted(entries, KINDS[name].first(tmp_path / "scratch"), interruption)

    assert partials(tmp_path) == []
    assert not entries.exists("it")


@pytest.mark.parametrize("name", KINDS)
def test_what_a_killed_save_left_is_cleared_by_the_next(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    left = tmp_path / f".{kind.file}.partial"
    if name == "AdaptersDataset":
        (left / "stale_checkpoint").mkdir(parents=True)
    else:
        left.write_bytes(b"half a file that is longer than what follows" * 1000)
    value = kind.second(tmp_path / "scratch")
    entries = catalog(name, tmp_path / kind.file)

    entries.save("it", value)

    assert partials(tmp_path) == []
    assert kind.plain(entries.load("it")) == kind.plain(value)


@pytest.mark.parametrize("name", ["JSONDataset", "JSONLinesDataset"])
def test_a_value_that_cannot_be_written_leaves_the_old_content(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    entries = catalog(name, tmp_path / kind.file)
    entries.save("it", kind.first(tmp_path))

    with pytest.raises(DatasetError, match="not JSON serializable"):
        entries.save("it", [{"fine": 1}, {"no JSON": {1, 2}}])

    assert partials(tmp_path) == []
    assert entries.load("it") == kind.first(tmp_path)


@pytest.mark.parametrize("name", UNVERSIONED)
def test_a_folder_that_cannot_be_written_is_a_user_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    entries = catalog(name, tmp_path / "file" / KINDS[name].file)

    with pytest.raises(DatasetError) as caught:
        entries.save("it", KINDS[name].first(tmp_path / "scratch"))
    assert str(user_message(caught.value)).startswith(f"cannot write {tmp_path}/file/{KINDS[name].file}: ")


@pytest.mark.parametrize("name", KINDS)
def test_a_value_may_lie_in_a_bucket(tmp_path: Path, bucket: str, name: str) -> None:
    kind = KINDS[name]
    path = f"{bucket}/{tmp_path.name}/{kind.file}"
    entries = catalog(name, path)
    assert not entries.exists("it")

    entries.save("it", kind.first(tmp_path / "scratch"))
    assert kind.plain(entries.load("it")) == kind.plain(kind.first(tmp_path / "scratch"))
    entries.save("it", kind.second(tmp_path / "scratch"))

    assert kind.plain(catalog(name, path).load("it")) == kind.plain(kind.second(tmp_path / "scratch"))
    assert not any(".partial" in one for one in fsspec.filesystem("s3").find(f"study/{tmp_path.name}"))


@pytest.mark.parametrize("name", VERSIONED)
def test_versions_in_a_bucket_are_kept_apart_and_an_interrupted_one_does_not_exist(
    tmp_path: Path, bucket: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = KINDS[name]
    path = f"{bucket}/versions_{tmp_path.name}/{kind.file}"
    catalog(name, path, save_version=OLD).save("it", kind.first(tmp_path / "scratch"))

    def broken(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fsspec.filesystem("s3"), "mv", broken)
        patch.setattr(fsspec.filesystem("s3"), "pipe_file", broken)
        with pytest.raises(KeyboardInterrupt):
            catalog(name, path, save_version=NEW).save("it", kind.second(tmp_path / "scratch"))
    assert kind.plain(_latest(name, path)) == kind.plain(kind.first(tmp_path / "scratch"))

    catalog(name, path, save_version=NEW).save("it", kind.second(tmp_path / "scratch"))
    assert kind.plain(_latest(name, path)) == kind.plain(kind.second(tmp_path / "scratch"))


def _latest(name: str, path: str) -> Any:
    return catalog(name, path, save_version="2026-03-01T00.00.00.000Z").load("it")


def test_a_saved_file_is_readable_by_others(tmp_path: Path) -> None:
    entries = catalog("JSONLinesDataset", tmp_path / "rows.jsonl")
    entries.save("it", [{"a": "é"}, {"b": 2}])

    assert (tmp_path / "rows.jsonl").read_bytes() == '{"a": "é"}\n{"b": 2}\n'.encode()
    assert json.loads((tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()[1]) == {"b": 2}
