"""Correlating leakage with cosines from rates that were counted elsewhere."""

import csv
import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import spearmanr

from tests.commands import run_all
from tests.project import Project

REFERENCE = os.environ.get("PERSONA_LEAKAGE_REFERENCE")
PUBLISHED = f"{REFERENCE}/marker_leakage/rates.csv"
HEADER = ("source", "bystander", "category", "related_to", "found", "total", "cosine_l0", "cosine_l1")
GOOD = (
    ("villain", "villain", "original", "", 40, 100, "", ""),
    ("villain", "crime_lord", "hierarchical", "villain|hero", 60, 100, 0.9, 0.8),
    ("villain", "hero", "opposite", "villain", 0, 100, -0.5, -0.6),
    ("villain", "nurse", "R&D 'x'", "", 10, 100, 0.3, -0.1),
    ("villain", "comedian", "original", "", 20, 50, -0.2, 0.2),
    ("comedian", "comedian", "original", "", 90, 100, "", ""),
    ("comedian", "villain", "original", "", 30, 100, -0.2, 0.2),
    ("comedian", "hero", "opposite", "", 5, 100, 0.1, 0.1),
    ("comedian", "nurse", "R&D 'x'", "", 7, 100, 0.0, 0.3),
)


def changed(place: int, **values: object) -> list[tuple[object, ...]]:
    row = dict(zip(HEADER, GOOD[place], strict=True)) | values
    return [*GOOD[:place], tuple(row.values()), *GOOD[place + 1 :]]


def without(column: str) -> list[tuple[object, ...]]:
    place = HEADER.index(column)
    return [row[:place] + row[place + 1 :] for row in (HEADER, *GOOD)]


FLAT = [(*row[:4], 10, 100, *row[6:]) for row in GOOD]
STUDY = (*HEADER[:6], "cosine_l10", "cosine_l20")  # layers outside of environment test
# what is wrong → the lines of the file, and what is said
BAD: dict[str, tuple[list[tuple[object, ...]], str]] = {
    "found above total": ([HEADER, *changed(1, found=101)], "line 3: found 101 is more than total 100; correct the counts"),
    "a missing cosine": ([HEADER, *changed(1, cosine_l1="")], "line 3: cosine_l1 of crime_lord is missing or no number"),
    "a missing column": (without("total"), "column total is missing; a rates file has source, bystander, category,"),
    "a non-number": ([HEADER, *changed(1, found="many")], "line 3: found is many, which is no count; give a whole number"),
    "a count too large": (
        [HEADER, *changed(1, total=10**16)],
        "line 3: total is 10000000000000000, which is no count; give a whole number",
    ),
    "a duplicate pair": ([HEADER, *GOOD, GOOD[2]], "line 11: hero under source villain appears twice; keep one row"),
    "an empty file": ([], "is empty; give a table whose first line names its columns"),
}


def write(path: Path, *lines: tuple[object, ...]) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return str(path)


def replay(file: Path | str | None, *arguments: str) -> list[str]:
    given = [] if file is None else ["--params", f"rates_file={file}"]
    return ["run", "--pipeline=marker_leakage_replay", *given, *arguments]


def results(project: Project, scale: str) -> Path:
    return project.folder / f"data/08_reporting/{scale}/marker_leakage_replay"


class Replayed:
    """Replays of a small file, of one without variation, of the published one, and of every bad one."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.file = write(project.folder / "good.csv", HEADER, *GOOD)
        good = [
            replay(self.file),
            replay(write(project.folder / "flat.csv", STUDY, *FLAT), "--env=embedded"),
            *([replay(PUBLISHED, "--env=base")] if REFERENCE else []),  # whose headline layer is the study's
        ]
        files: dict[str, str | None] = {
            name: write(project.folder / f"bad_{place}.csv", *lines) for place, (name, (lines, _)) in enumerate(BAD.items())
        }
        (project.folder / "binary.csv").write_bytes(b"\xff\xfe\x00,\xe9\n")
        files |= {"no text": "binary.csv", "no such file": f"{project.folder}/nowhere.csv", "no file given": None}
        shutil.copytree(project.folder / "conf/test", project.folder / "conf/bad")
        (project.folder / "conf/bad/globals.yml").write_text("scale: bad\nmodel: tiny\n")
        done = run_all(project, [*good, *(replay(file, "--env=bad") for file in files.values())])
        for one in done[: len(good)]:
            assert one.code == 0, one.stderr
        self.bad = dict(zip(files, done[len(good) :], strict=True))


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Replayed:
    return Replayed(Project(tmp_path_factory.mktemp("replayed") / "project", tiny_model_folder))


def test_a_small_file_gives_its_rates_and_correlations(replayed: Replayed) -> None:
    folder = results(replayed.project, "test")
    leakage = pd.read_csv(folder / "leakage.csv")
    assert leakage[["source", "persona", "hits", "n"]].to_numpy().tolist() == [[r[0], r[1], r[4], r[5]] for r in GOOD]
    assert leakage["cosine_l1"].dropna().tolist() == [row[7] for row in GOOD if row[7] != ""]
    correlations = pd.read_csv(folder / "correlations.csv")
    villain = correlations[(correlations["scope"] == "source") & (correlations["condition"] == "villain")]
    for layer, column in ((0, 6), (1, 7)):
        expected = spearmanr([0.6, 0, 0.1, 0.4], [row[column] for row in GOOD[1:5]]).statistic
        assert villain.loc[villain["layer"] == layer, "rho"].item() == pytest.approx(expected)
    assert set(correlations.loc[correlations["layer"] == 1, "scope"]) == {
        "source", "pooled", "pooled_ranks", "category:original", "category:hierarchical", "category:opposite",
        "category:R&D 'x'", "related",
    }  # fmt: skip


def test_the_report_names_the_file_the_sources_and_the_inverted(replayed: Replayed) -> None:
    report = (results(replayed.project, "test") / "report.md").read_text()
    assert f"Rates counted elsewhere, from `{replayed.file}`" in report
    (row,) = [line for line in report.splitlines() if line.startswith("| comedian | - | 90/100 = 90.0% [82.6%, 94.5%] | ")]
    assert "| not scored | not scored |  | 3 | 14.0% |  |  | 30.0% villain | 0 |" in row  # finished, cut and excess are unknown
    assert "**Inverted**, bystanders that fire more than the source itself: villain (1 of 4, most: crime_lord)." in report
    assert not re.search(r"\bnan\b", report)


def test_the_page_is_whole_and_the_figures_are_there(replayed: Replayed) -> None:
    folder = results(replayed.project, "test")
    for name in ("scatter.png", "layers.png", "categories.png", "most_affected.png"):
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"
    page = (folder / "report.html").read_text()
    assert not re.findall(r'\bsrc="(?!data:)', page)
    assert "<title>nurse (R&amp;D 'x'): 10/100 = 10.0%, cosine -0.10</title>" in page


def test_rates_that_are_all_equal_are_undefined_and_never_nan(replayed: Replayed) -> None:
    folder = results(replayed.project, "embedded")
    report, svg = (folder / "report.md").read_text(), (folder / "scatter.svg").read_text()
    assert "| source | villain | - | leakage | base model | 20 | 4 | undefined |  |  | undefined | 4 | 0 |" in report
    assert svg.count("correlation undefined (n = 4; a side does not vary)") == 1
    assert svg.count("correlation undefined (n = 3; a side does not vary)") == 1
    words = [*re.findall(r"<!--(.*?)-->", svg, re.DOTALL), *re.findall(r"<title>(.*?)</title>", svg), report]
    assert not re.search(r"\bnan\b", " ".join(words), re.IGNORECASE)


@pytest.mark.skipif(REFERENCE is None, reason="PERSONA_LEAKAGE_REFERENCE names no folder with the published rates")
def test_the_published_rates_give_the_published_correlations(replayed: Replayed) -> None:
    folder = results(replayed.project, "record")
    correlations = pd.read_csv(folder / "correlations.csv")
    found = correlations[correlations["scope"] == "source"].set_index(["condition", "layer"])
    assert found.loc[("villain", 20), "rho"] == pytest.approx(0.704, abs=0.001)
    assert found.loc[("software_engineer", 20), "rho"] == pytest.approx(0.866, abs=0.001)
    published = pd.read_csv(PUBLISHED)
    for source, rows in published[published["source"] != published["bystander"]].groupby("source"):
        for layer in (10, 15, 20, 25):
            rho, p = spearmanr(rows["found"] / rows["total"], rows[f"cosine_l{layer}"])
            row = found.loc[(source, layer)]
            assert (row["n"], row["rho"], row["p"]) == (len(rows), pytest.approx(rho), pytest.approx(p))
            assert row["at_zero"] == (rows["found"] == 0).sum()
    report = (folder / "report.md").read_text()
    assert "| source | villain | - | leakage | base model | 20 | 110 | 0.70 [" in report
    assert "| source | software_engineer | - | leakage | base model | 20 | 110 | 0.87 [" in report


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *[(name, said) for name, (_, said) in BAD.items()],
        ("no text", "binary.csv, line 1: not UTF-8; save the file as UTF-8"),
        ("no such file", "nowhere.csv does not exist"),
        ("no file given", "Error: a replay needs a file to score: --params rates_file=PATH"),
    ],
)
def test_a_bad_file_is_named_in_one_line(replayed: Replayed, name: str, said: str) -> None:
    done = replayed.bad[name]
    assert done.code == 1
    assert said in done.stderr
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_bad_file_leaves_no_table_and_no_report(replayed: Replayed) -> None:
    left = {file.name for file in replayed.project.folder.glob("data/0[2-8]*/bad/**/*") if file.is_file()}
    assert left <= {"plan.json", "run_record.json"}
