import csv
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kedro.io import DataCatalog

from persona_leakage.datasets import CSVDataset
from persona_leakage.datasets.csv import NAMES
from tests.datasets.kinds import catalog
from tests.project import PROJECT

NASTY = (
    "None", "NA", "N/A", "<NA>", "null", "NULL", "nan", "NaN", "-nan", "001", "1", "1.0", "1e5", "-0", "inf", "True", "FALSE",
    "0x1F", "1_000", "2026-01-01", "a,b", 'say "no"', '"', "two\nlines", "two\r\nlines", "re\rturn", " around ", "#", "'", "\\",
    "é", "\ufeff", "\u2028",
)  # fmt: skip
ANY = st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def partitioned(folder: Path) -> Any:
    entry = {"type": "persona_leakage.datasets.CSVDataset"}
    return DataCatalog.from_config(
        {
            "it": {
                "type": "partitions.PartitionedDataset",
                "path": str(folder),
                "filename_suffix": "/rates.csv",
                "dataset": entry,
            }
        }
    )


@pytest.mark.parametrize("name", NASTY)
def test_a_name_is_text_and_stays_as_it_is_written(tmp_path: Path, name: str) -> None:
    table = pd.DataFrame({"persona": [name, name], "condition": ["a", name], "n": [1, 2]})
    catalog("CSVDataset", tmp_path / "001/rates.csv").save("it", table)

    for loaded in (
        catalog("CSVDataset", tmp_path / "001/rates.csv").load("it"),
        partitioned(tmp_path).load("it")["001"](),
    ):
        assert loaded.to_dict("list") == {"persona": [name, name], "condition": ["a", name], "n": [1, 2]}
        assert {key: len(rows) for key, rows in loaded.groupby("persona")} == {name: 2}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(ANY, ANY | st.none(), st.integers(-9, 9) | st.none()), min_size=1, max_size=5))
def test_any_names_come_back(tmp_path: Path, rows: list[tuple[str, str | None, int | None]]) -> None:
    dataset = CSVDataset(filepath=str(tmp_path / "rates.csv"))
    dataset.save(pd.DataFrame(rows, columns=["source", "related_to", "n"]))

    loaded = dataset.load()

    assert [tuple(None if pd.isna(value) else value for value in row) for row in loaded.itertuples(index=False)] == rows


def test_only_an_empty_cell_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text("persona,source,n,rate,cosine,stale\n1,,2,,0.5,True\nNA,nan,3,0.25,null,False\n")

    loaded = catalog("CSVDataset", path).load("it")

    assert loaded["persona"].tolist() == ["1", "NA"]
    assert loaded["source"].isna().tolist() == [True, False]
    assert loaded["source"][1] == "nan"
    assert loaded["rate"].isna().tolist() == [True, False]
    assert [loaded[name].dtype.kind for name in ("n", "rate", "stale")] == ["i", "f", "b"]
    assert loaded["cosine"].tolist() == ["0.5", "null"]


def test_a_table_without_carriage_returns_has_lines_as_ever(tmp_path: Path) -> None:
    catalog("CSVDataset", tmp_path / "rates.csv").save("it", pd.DataFrame({"persona": ["é", None], "rate": [0.5, 1.0]}))

    assert (tmp_path / "rates.csv").read_bytes() == "persona,rate\né,0.5\n,1.0\n".encode()


@pytest.mark.parametrize(
    "file", sorted(PROJECT.glob("docs/results/*/*.csv")), ids=lambda file: f"{file.parent.name}/{file.stem}"
)
def test_every_column_of_words_in_the_published_tables_is_a_column_of_names(file: Path) -> None:
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    ours = ("", "True", "False", "all", "-")
    words = {name for row in rows for name in row if row[name] not in ours and not is_number(row[name])}

    assert {name for name in words if not name.endswith("_direction")} <= set(NAMES)  # directions are two words of ours


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
