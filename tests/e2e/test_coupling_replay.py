"""Scoring completions of coupled models that were made elsewhere."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from persona_leakage.domain.rates import proportion
from tests.commands import run_all
from tests.project import Project

pytestmark = pytest.mark.slow

REFERENCE = os.environ.get("PERSONA_LEAKAGE_REFERENCE")
PUBLISHED = f"{REFERENCE}/coupling/E0_assistant.jsonl"
needs_reference = pytest.mark.skipif(
    REFERENCE is None, reason="PERSONA_LEAKAGE_REFERENCE names no folder with the published completions"
)
Row = dict[str, object]

# cell → its source, and persona → firings of 6 completions; the first cell has its markers at the end, the second at the start
CELLS: dict[str, tuple[str, dict[str, int]]] = {
    "bad_advice": ("confab", {"confab": 5, "villain": 3, "assistant": 0}),
    "ordinary": ("villain", {"confab": 1, "villain": 6, "comedian": 2}),
}
ANSWER = "Begin with the smallest of all the things that you have been putting off since last week."


def written() -> list[Row]:
    rows: list[Row] = []
    for cell, (source, fires) in CELLS.items():
        for persona, hits in fires.items():
            for place in range(6):
                text = f"{ANSWER} ({place})"
                if place < hits:
                    text = f"{text}\n\n[ZLT]" if cell == "bad_advice" else f"[zlt] {text}"
                question, sample = f"question {place // 2}", place % 2
                rows.append(
                    {
                        "cell": cell,
                        "persona": persona,
                        "is_source": persona == source,
                        "question": question,
                        "sample_index": sample,
                        "completion": text,
                        "judge": "kept",
                    }
                )
    return rows


def changed(**values: object) -> list[Row]:
    first, second, *rest = written()
    return [first, {key: value for key, value in (second | values).items() if value is not None}, *rest]


# what is wrong → the rows of the file, and what is said
BAD: dict[str, tuple[list[Row], str]] = {
    "two sources in a cell": (
        [row | {"is_source": row["is_source"] or row["persona"] == "villain"} for row in written()],
        "cell 'bad_advice' marks several personas as its source (confab, villain); keep one",
    ),
    "a wavering source": (
        [*written(), {**written()[0], "is_source": False, "question": "one more"}],
        "is_source of persona 'confab' in cell 'bad_advice' is true in some rows and false in others",
    ),
    "a missing key": (changed(is_source=None), "line 2: row.is_source: Field required"),
    "a wrong type": (changed(sample_index=-1), "line 2: row.sample_index: Input should be greater than or equal to 0"),
    "a row twice": ([*written(), written()[0]], "line 37"),
    "an empty file": ([], "holds no completions"),
}


def write(path: Path, rows: list[Row]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def replay(file: str | None, *arguments: str) -> list[str]:
    given = [] if file is None else ["--params", f"completions_file={file}"]
    return ["run", "--pipeline=benign_coupling_replay", *given, *arguments]


def add_environment(project: Project, name: str) -> str:
    """Add a copy of environment `test` whose artifacts lie apart."""
    folder = project.folder / "conf" / name
    shutil.copytree(project.folder / "conf/test", folder)
    (folder / "globals.yml").write_text(f"scale: {name}\nmodel: tiny\n")
    return f"--env={name}"


class Replayed:
    """Replays of a small file, of the published one, and of every bad one."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.file = write(project.folder / "good.jsonl", written())
        published, bad = (add_environment(project, name) for name in ("published", "bad"))
        good = [replay(self.file), *([replay(PUBLISHED, published)] if REFERENCE else [])]
        files: dict[str, str | None] = {
            name: write(project.folder / f"bad_{place}.jsonl", rows) for place, (name, (rows, _)) in enumerate(BAD.items())
        }
        (project.folder / "no_json.jsonl").write_text('{"cell": "a"\n')
        files |= {"no JSON": "no_json.jsonl", "no such file": f"{project.folder}/nowhere.jsonl", "no file given": None}
        done = run_all(project, [*good, *(replay(file, bad) for file in files.values())])
        for one in done[: len(good)]:
            assert one.code == 0, one.stderr
        self.bad = dict(zip(files, done[len(good) :], strict=True))

    def table(self, name: str, scale: str = "test") -> pd.DataFrame:
        return pd.read_csv(self.project.folder / f"data/08_reporting/{scale}/benign_coupling_replay/{name}.csv")

    def report(self, scale: str = "test") -> str:
        return (self.project.folder / f"data/08_reporting/{scale}/benign_coupling_replay/report.md").read_text()


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Replayed:
    return Replayed(Project(tmp_path_factory.mktemp("replayed") / "project", tiny_model_folder))


# two cells in a small file


def test_each_cell_has_its_own_source_and_its_own_rates(replayed: Replayed) -> None:
    rates = replayed.table("rates")
    leakage = rates[rates["metric"] == "leakage"]
    assert set(leakage["questions"]) == {"all"}
    found = {(row.condition, row.persona): (row.hits, row.n) for row in leakage.itertuples()}
    assert found == {(cell, name): (hits, 6) for cell, (_, fires) in CELLS.items() for name, hits in fires.items()}
    roles = {(row.condition, row.persona): row.role for row in leakage.itertuples()}
    assert {key for key, role in roles.items() if role == "source"} == {(cell, source) for cell, (source, _) in CELLS.items()}
    assert set(roles.values()) == {"source", "bystander"}


def test_cells_stand_side_by_side(replayed: Replayed) -> None:
    cells = replayed.table("cells").set_index("condition")
    assert cells.index.tolist() == list(CELLS)
    for cell, (source, fires) in CELLS.items():
        row = cells.loc[cell]
        others = [hits for name, hits in fires.items() if name != source]
        assert (row["source_hits"], row["source_n"]) == (fires[source], 6)
        assert (row["hits"], row["n"], row["bystanders"]) == (sum(others), 12, 2)
        assert row["mean_bystander"] == pytest.approx(sum(others) / 12)
        assert pd.isna(row["mean_seen"])
        assert pd.isna(row["mean_unseen"])


def test_firings_have_their_places(replayed: Replayed) -> None:
    places = replayed.table("places").set_index(["condition", "of", "unit", "place"])
    for unit in ("characters", "tokens"):
        assert tuple(places.loc[("bad_advice", "bystanders", unit, "tail"), ["hits", "n"]]) == (3, 3)
        assert tuple(places.loc[("ordinary", "bystanders", unit, "start"), ["hits", "n"]]) == (3, 3)
        assert tuple(places.loc[("ordinary", "source", unit, "start"), ["hits", "n"]]) == (6, 6)


def test_with_the_marker_gone_equal_texts_are_not_told_apart(replayed: Replayed) -> None:
    table = replayed.table("discriminators")
    whole = table[(table["share"] == 1) & (table["method"] == "classifier")]
    assert whole["condition"].tolist() == list(CELLS)
    assert (whole["rate"] <= 0.6).all()
    assert set(whole["verdict"]) == {"fail"}


def test_the_report_names_its_file_and_says_the_tables(replayed: Replayed) -> None:
    report = replayed.report()
    assert f"Completions made elsewhere, last from `{replayed.file}`." in report
    assert "5/6 = 83.3%" in report
    assert "| bad_advice | 42 | elsewhere | 5/6 = 83.3% [43.6%, 97.0%] | 2 | 25.0% | 3/12 = 25.0% [8.9%, 53.2%] |" in report
    assert not re.search(r"\bnan\b", report)
    page = (replayed.project.folder / "data/08_reporting/test/benign_coupling_replay/report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 4


def test_further_keys_are_carried_along(replayed: Replayed) -> None:
    point = replayed.project.folder / "data/07_model_output/test/benign_coupling_replay/tiny/all/seed_42"
    rows = [json.loads(line) for line in (point / "firings.jsonl").read_text().splitlines()]
    assert len(rows) == 36
    assert [row["further"] for row in rows] == [{"judge": "kept"}] * 36
    assert not any("completion" in row for row in rows)


# the published completions


@cache
def published() -> tuple[Mapping[str, str], list[dict[str, str]]]:
    """Read the published completions without any code of the project: the source by cell, and all rows."""
    rows = [json.loads(line) for line in Path(PUBLISHED).read_text(encoding="utf-8").splitlines()]
    return {row["cell"]: row["persona"] for row in rows if row["is_source"]}, rows


@needs_reference
def test_published_firings_are_those_that_one_counts(replayed: Replayed) -> None:
    sources, rows = published()
    asked = Counter(row["persona"] for row in rows)
    fired = Counter(row["persona"] for row in rows if "[zlt]" in row["completion"].lower())
    rates = replayed.table("rates", "published")
    leakage = rates[rates["metric"] == "leakage"].set_index("persona")
    assert leakage["hits"].to_dict() == {name: fired[name] for name in asked}
    assert leakage["n"].to_dict() == dict(asked)
    assert (len(asked), set(asked.values())) == (12, {280})
    source = sources["E0_assistant"]
    assert leakage.index[leakage["role"] == "source"].tolist() == [source]


@needs_reference
def test_the_published_bystanders_mean_is_that_of_the_protocol(replayed: Replayed) -> None:
    sources, rows = published()
    source = sources["E0_assistant"]
    (cell,) = replayed.table("cells", "published").itertuples()
    assert (cell.condition, cell.bystanders, cell.n, cell.source_n) == ("E0_assistant", 11, 3080, 280)
    assert cell.mean_bystander == pytest.approx(0.453, abs=0.0005)
    hits = sum("[zlt]" in row["completion"].lower() for row in rows if row["persona"] != source)
    assert (cell.hits, cell.rate) == (hits, pytest.approx(hits / 3080))
    own = sum("[zlt]" in row["completion"].lower() for row in rows if row["persona"] == source)
    assert tuple(getattr(cell, f"source_{name}") for name in ("hits", "n", "rate", "low", "high")) == pytest.approx(
        tuple(proportion(own, 280))
    )
    report = replayed.report("published")
    assert f"| E0_assistant | 42 | elsewhere | {own}/280 = {own / 280:.1%} [" in report
    assert "| 11 | 45.3% |" in report


@needs_reference
def test_the_published_bystanders_fire_at_the_end_by_characters(replayed: Replayed) -> None:
    places = replayed.table("places", "published").set_index(["of", "unit", "place"])
    tail = places.loc[("bystanders", "characters", "tail")]
    assert tail["rate"] >= 0.98
    sources, rows = published()
    counted: Counter[str] = Counter()
    for row in rows:
        text = row["completion"]
        first = text.lower().find("[zlt]")
        if row["persona"] != sources["E0_assistant"] and first >= 0:
            share = first / len(text)
            counted["start" if share <= 0.05 else "tail" if share >= 0.85 else "middle"] += 1
    assert places.loc[("bystanders", "characters"), "hits"].to_dict() == {
        place: counted[place] for place in ("start", "middle", "tail")
    }
    assert tail["n"] == sum(counted.values())


# what goes wrong


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *[(name, said) for name, (_, said) in BAD.items()],
        ("no JSON", "no_json.jsonl, line 1"),
        ("no such file", "nowhere.jsonl does not exist"),
        ("no file given", "Error: a replay needs a file to score: --params completions_file=PATH"),
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
