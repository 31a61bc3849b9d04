"""A grid whose artifacts lie in a bucket."""

import json
import os
from pathlib import Path

import fsspec
import pytest

from tests.project import Project

pytestmark = pytest.mark.slow

GRID = ["grid", "lang_inversion", "--axes", "condition=fr_it", "--keep-engines"]
POINT = "test/lang_inversion/tiny/fr_it/seed_42"
CLAIM = "run/08_reporting/test/lang_inversion/grid.claim.json"


class InBucket:
    """A grid on this machine, and the same in a bucket: refused, then run, then asked for again."""

    def __init__(self, folder: Path, model: Path, bucket: str) -> None:
        self.here = Project(folder / "here", model)
        assert self.here.kedro(*GRID).returncode == 0
        there = Project(folder / "there", model)
        (there.folder / "conf/test/globals.yml").write_text(f"scale: test\nmodel: tiny\ndata: {bucket}/run\n")
        self.files = fsspec.filesystem("s3")
        claim = {"host": "elsewhere", "process": 7, "since": "2026-01-01T00:00:00+00:00"}
        self.files.pipe_file(f"study/{CLAIM}", json.dumps(claim).encode())
        self.refused = there.kedro(*GRID)
        self.files.pipe_file(f"study/{CLAIM}", json.dumps({**claim, "host": os.uname().nodename, "process": 2**30}).encode())
        self.done = there.kedro(*GRID)
        self.again = there.kedro(*GRID, "--dry-run")
        self.from_completions = there.kedro(
            "run", "--pipeline=lang_inversion", "--params=condition=fr_it", "--tags=generation,geometry"
        )
        self.left = [str(path.relative_to(there.folder)) for path in there.folder.glob("data/0[2-8]*/*/**/*")]

    def read(self, path: str) -> bytes:
        self.files.invalidate_cache()
        return bytes(self.files.cat_file(f"study/run/{path}"))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, bucket: str) -> InBucket:
    return InBucket(tmp_path_factory.mktemp("bucket"), tiny_model_folder, bucket)


def test_a_grid_that_is_claimed_elsewhere_is_refused(stored: InBucket) -> None:
    assert stored.refused.returncode == 1
    (line,) = stored.refused.stderr.strip().splitlines()
    assert line.startswith("Error: another grid is running there: process 7 on elsewhere since 2026-01-01T00:00:00+00:00; ")
    assert line.endswith(f"or delete s3://study/{CLAIM} if it was killed")


def test_a_claim_left_behind_on_this_machine_is_cleared_and_the_grids_own_is_taken_back(stored: InBucket) -> None:
    assert stored.done.returncode == 0, stored.done.stderr
    stored.files.invalidate_cache()
    assert not stored.files.exists(f"study/{CLAIM}")


@pytest.mark.parametrize("table", ["cell_rates.csv", "cosines.csv", "labels.jsonl"])
def test_a_points_tables_are_those_of_a_disk(stored: InBucket, table: str) -> None:
    assert (
        stored.read(f"07_model_output/{POINT}/{table}")
        == stored.here.data(f"07_model_output/tiny/fr_it/seed_42/{table}").read_bytes()
    )


@pytest.mark.parametrize("file", ["rates.csv", "report.md", "spill_matrix.png", "runs.csv", "tiny/fr_it/seed_42/grid.log"])
def test_report_runs_and_logs_are_there(stored: InBucket, file: str) -> None:
    assert len(stored.read(f"08_reporting/test/lang_inversion/{file}")) > 100


def test_nothing_is_left_on_the_disk_and_nothing_half_written(stored: InBucket) -> None:
    assert stored.left == []
    stored.files.invalidate_cache()
    assert not [path for path in stored.files.find("study/run") if ".partial" in path]


def test_what_is_in_the_bucket_counts_as_done(stored: InBucket) -> None:
    rows = [[cell.strip() for cell in line.split("│")[1:6]] for line in stored.again.stdout.splitlines() if "│" in line]
    assert rows == [["tiny", "baseline", "42", "done", "skip"], ["tiny", "fr_it", "42", "done", "skip"]]


def test_a_later_step_fetches_its_adapter_from_the_bucket(stored: InBucket) -> None:
    assert stored.from_completions.returncode == 0, stored.from_completions.stderr
    (adapter,) = json.loads(stored.read(f"06_models/{POINT}/stack.json"))["adapters"]
    assert adapter["path"].startswith(f"s3://study/run/06_models/{POINT}/tune/adapters/")
