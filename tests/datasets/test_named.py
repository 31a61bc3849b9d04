import json

import pytest
from kedro.io import DataCatalog, DatasetError


def entry(path):
    return {"type": "persona_leakage.datasets.JSONLinesDataset", "filepath": str(path)}


@pytest.fixture
def catalog(tmp_path):
    (tmp_path / "one.jsonl").write_text(json.dumps({"id": "x"}) + "\n")
    datasets = {"one": entry(tmp_path / "one.jsonl"), "absent": entry(tmp_path / "absent.jsonl")}
    return DataCatalog.from_config({"named": {"type": "persona_leakage.datasets.NamedDatasets", "datasets": datasets}})


def test_a_dataset_is_read_when_it_is_asked_for(catalog):
    loaders = catalog.load("named")

    assert list(loaders) == ["one", "absent"]  # and that one does not exist is no matter
    assert loaders["one"]() == [{"id": "x"}]
    with pytest.raises(DatasetError, match="absent"):
        loaders["absent"]()


def test_they_are_read_only(catalog):
    with pytest.raises(DatasetError, match="named datasets are read only"):
        catalog.save("named", {})


def test_the_description_names_them(catalog):
    assert "one, absent" in str(catalog["named"])
