"""Where run records lie, and which runs count."""

import pytest
from fsspec.implementations.local import LocalFileSystem

from persona_leakage.domain.points import Address
from persona_leakage.grid.records import CHECKPOINT, CONDITION, MODEL, SEED, RecordStore, run_table

PLACE = f"/data/08_reporting/test/family/{MODEL}/{CONDITION}/seed_{SEED}"


@pytest.mark.parametrize("condition", ["villain", "001", str(SEED), str(CHECKPOINT), MODEL, r"a\1b", "a b"])
def test_a_points_folder_is_that_of_its_address_whatever_its_names(condition: str) -> None:
    store = RecordStore(LocalFileSystem(), f"{PLACE}/run_record.json")
    address = Address(model="tiny", condition=condition, seed=7)
    assert store.root == "/data/08_reporting/test/family"
    assert store.folder(address) == f"/data/08_reporting/test/family/tiny/{condition}/seed_7"


def test_a_checkpoint_has_a_folder_of_its_own() -> None:
    store = RecordStore(LocalFileSystem(), f"{PLACE}/epoch_{CHECKPOINT}/run_record.json")
    address = Address(model="tiny", condition="villain", seed=42, checkpoint=4)
    assert store.folder(address) == "/data/08_reporting/test/family/tiny/villain/seed_42/epoch_04"


def test_a_run_that_only_wrote_the_report_is_none_of_a_point() -> None:
    def run(*nodes: str) -> dict[str, object]:
        return {
            "parameters": {"address": {"model": "tiny", "condition": "villain", "seed": 1, "checkpoint": None}},
            "nodes": {name: {"seconds": 1} for name in nodes},
            "status": "completed",
            "plan": nodes[0],
            "started": "2026-01-01T00:00:00+00:00",
            "finished": "2026-01-01T00:01:00+00:00",
            "machine": {"peak_rss_gib": 1, "gpu": None},
            "code": {"commit": None},
            "error": None,
        }

    table = run_table(
        "marker_leakage",
        [
            run("data_generation.build_roster", "reporting.gather_points"),
            run("data_generation.build_roster", "scoring.rate_firings"),
        ],
    )

    assert table["seconds"].tolist() == [60]
