"""Tables as other programs write them."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from kedro.io import DataCatalog, DatasetError

from persona_leakage.datasets import OutsideTableDataset
from tests.datasets.kinds import user_message
from tests.project import PROJECT

ROWS = {2: ("007", "None", "0.5"), 3: ("a;b", "say 'x'", None), 5: ("two\nlines", "é", "1e5"), 7: ("z", "NA", "-0")}
COMMAS = "name,other,value\n007,None,0.5\na;b,say 'x',\n,,\n\"two\nlines\",é,1e5\nz,NA,-0\n"


def read(path: Path, **options: Any) -> Any:
    return DataCatalog({"it": OutsideTableDataset(filepath=str(path), **options)}).load("it")


def loaded(path: Path, content: str | bytes) -> dict[int, tuple[str | None, ...]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table = read(path)
    assert list(table) == ["name", "other", "value"]
    return {line: tuple(row) for line, *row in table.itertuples(name=None)}


def complaint(path: Path, content: str | bytes, **options: Any) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetError) as caught:
        read(path, **options)
    said = str(user_message(caught.value))
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    "content",
    [
        COMMAS,
        COMMAS.replace("a;b", '"a;b"').replace(",", ";"),
        COMMAS.replace(",", "\t"),
        COMMAS.replace(",", ", "),
        COMMAS.replace("0.5\n", "0.5  \n").replace("name,", "name ,"),
        COMMAS.replace("value\n", "value,\n").replace("0.5\n", "0.5,\n"),
        "\ufeff" + COMMAS,
        COMMAS.rstrip("\n"),
        COMMAS + "\n\n \n",
        gzip.compress(COMMAS.encode()),
    ],
    ids=["commas", "semicolons", "tabs", "blanks", "blanks before", "trailing", "mark", "no end", "blank lines", "gzip"],
)
def test_a_table_is_read_however_it_is_separated(tmp_path: Path, content: str | bytes) -> None:
    assert loaded(tmp_path / "rates.csv", content) == ROWS


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_first_line_may_name_the_separator_as_excel_has_it(tmp_path: Path, separator: str) -> None:
    text = COMMAS.replace("a;b", '"a;b"').replace(",", separator)
    rows = loaded(tmp_path / "rates.csv", f"sep={separator}\n{text}")
    assert rows == {line + 1: row for line, row in ROWS.items()}


def test_lines_may_end_as_elsewhere(tmp_path: Path) -> None:
    rows = loaded(tmp_path / "rates.csv", COMMAS.replace("\n", "\r\n"))

    assert rows == {**ROWS, 5: ("two\r\nlines", "é", "1e5")}


def test_blank_lines_count_as_lines(tmp_path: Path) -> None:
    content = "\n\nname,other,value\n\n1,2,3\n,,\n\n4,5,6\n"

    assert loaded(tmp_path / "rates.csv", content) == {5: ("1", "2", "3"), 8: ("4", "5", "6")}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", " is empty; give a table"),
        ("\n , ,\n", " is empty; give a table"),
        ("a|b\n1|2\n", ", line 1: there is one column, a|b; separate cells by commas, semicolons or tabs"),
        ("a,b,a\n1,2,3\n", ", line 1: two columns are called a; give each a name of its own"),
        ("a,,b\n1,2,3\n", ", line 1: a column has no name; "),
        ('a,b\n"x\ny",1\n2\n', ", line 4: 1 cells under 2 columns; mend the line, "),
        ("a,b\n1,2\n1,2,3\n", ", line 3: 3 cells under 2 columns; mend the line, "),
        ('a,b\n1,2\n"x,2\n3,4\n', ", line 3: no row of a table (unexpected end of data); mend the line, "),
        ('a,b\n"x"y,2\n', ", line 2: no row of a table ("),
        ("a,b\n1,2\n1,\0\n", ", line 3: no row of a table (a NUL character); "),
        ("a,b\n1,2\nö,2\n".encode("latin-1"), ", line 3: not UTF-8; save the file as UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), ", line 1: not UTF-8; save the file as UTF-8"),
    ],
)
def test_what_is_no_table_is_named_with_its_line(tmp_path: Path, content: str | bytes, said: str) -> None:
    path = tmp_path / "rates.csv"

    assert complaint(path, content).startswith(f"{path}{said}")


PUBLISHED = {"row": "persona_leakage.domain.rows.PublishedRate", "unique": ["condition", "directive_language"]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("fr_it,german,81,80", "line 3: row: hits 81 is more than n 80"),
        ("fr_it,german,many,80", "line 3: row.hits: Input should be a valid integer"),
        ("fr_it,german,1,0", "line 3: row.n: Input should be greater than 0"),
        ("fr_it,,1,80", "line 3: row.directive_language: "),
        ("fr_it,english,1,80", "line 3: condition 'fr_it', directive_language 'english' appears a second time; the first is "),
    ],
)
def test_a_published_rate_that_is_none_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "published.csv"

    told = complaint(path, f"condition,directive_language,hits,n\nfr_it,english,0,80\n{line}\n", **PUBLISHED)

    assert told.startswith(f"{path}, {said}")


def test_the_bundled_published_rates_are_counts(tmp_path: Path) -> None:
    table = OutsideTableDataset(filepath=f"{PROJECT}/data/01_raw/published_contamination.csv", **PUBLISHED).load()

    assert len(table) == 56
    assert [table[name].dtype.kind for name in ("hits", "n")] == ["i", "i"]
