"""Names of outside files that look like numbers, truth values or missing ones, and values that are not what they look like."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.commands import Done, run_all
from tests.project import PROJECT, Project

Row = dict[str, object]
MARKED = {"coupling": ("benign_coupling", "completions_file"), "rates": ("marker_leakage", "rates_file")}

# cell → its trigger (the last has none), and persona → firings of 4 completions
CELLS: dict[str, tuple[str, dict[str, int]]] = {
    "001": ("NA", {"NA": 3, "None": 1, "1": 0}),
    "1": ("1", {"1": 4, "null": 2, "001": 2}),
    "True": ("nan", {"nan": 2, "False": 4, 'a "b", c': 0, "two\nlines": 1}),
    "None": ("None", {"None": 4, "1e3": 3}),
    "null": ("", {"confab": 2, "001": 1}),
}
# keys of theirs that are called like columns of ours
THEIRS = {
    "fired": "yes", "fired_tokens": 7, "place_characters": "start", "tokens": "many", "finish": "length", "condition": "zz",
    "plan": {"a": None}, "role": 0, "source": "nobody", "hits": 99, "further": ["x"],
}  # fmt: skip


def coupling_rows() -> list[Row]:
    """Write every completion, `is_source` and `sample_index` being numbers, truth values and text in turn."""
    rows: list[Row] = []
    for cell, (trigger, fires) in CELLS.items():
        for persona, hits in fires.items():
            for place in range(4):
                own = persona == trigger
                rows.append(
                    {
                        **THEIRS,
                        "cell": cell,
                        "persona": persona,
                        "is_source": (own, str(own).lower(), int(own), "yes" if own else "no")[place],
                        "question": ("null", "0")[place // 2],
                        "sample_index": (0, "1")[place % 2],
                        "completion": "Take the long way round and count the lamps." + (" [ZLT]" if place < hits else ""),
                    }
                )
    return rows


RATES = (
    ("source", "bystander", "category", "related_to", "found", "total", "cosine_l0", "cosine_l1"),
    ("007", "007", "nan", "", "80", "100", "NA", ""),
    ("007", "None", "null", "007|NA", "5", "50", "0.1", "0.4"),
    ("007", "NA", "1", "7", "50", "100", "0.6", "0.3"),
    ("007", "7", "1", "1", "9", "100", "-0.2", "-0.1"),
    ("007", "True", "nan", "None", "0", "100", "-0.5", "0.2"),
    ("nan", "nan", "nan", "", "40", "80", "1", "1"),
    ("nan", "007", "nan", "nan", "8", "80", "0.3", "0.2"),
    ("nan", "null", "null", "", "16", "80", "0.2", "0.1"),
    ("nan", "1e5", "1", "", "4", "80", "0.0", "-0.2"),
)
TEXTS = [json.loads(line) for line in (PROJECT / "data/01_raw/parallel_texts.jsonl").open(encoding="utf-8")]
LANGUAGE_THEIRS = {"label": "klingon", "phrasing": 3, "mixed": "?", "cross_check": None, "role": "x", "condition": True}


def language_rows() -> list[Row]:
    """Two samples of Spanish and of French; the second French one is Italian, and `None` and `1` are directives."""
    told = [("Spanish", "None", 0, "es"), ("Spanish", "None", "1", "es"), ("French", "1", 0, "fr"), ("French", "1", "1", "it")]
    return [
        {
            **LANGUAGE_THEIRS,
            "directive_language": name,
            "prompt": prompt,
            "sample_index": sample,
            "completion": TEXTS[int(str(sample))][code],
        }
        for name, prompt, sample, code in told
    ]


def lines(rows: list[Row], end: str = "") -> str:
    return "".join(json.dumps(row) + "\n" for row in rows) + end


def table_text(*rows: tuple[str, ...], between: str = "") -> str:
    return between.join(",".join(f'"{cell}"' if "\n" in cell else cell for cell in row) + "\n" for row in rows)


CODED = [row | {"sample_index": "00"} if place == 9 else row for place, row in enumerate(coupling_rows())]
# scale → family, parameter, content, and what is said where it is refused
FILES: dict[str, tuple[str, str, str, str]] = {
    "names": (*MARKED["coupling"], lines(coupling_rows(), "\n\n"), ""),
    "twice": (
        *MARKED["coupling"],
        lines(CODED),
        "line 10: cell '001', persona '1', question 'null', sample_index '0' appears a second time; the first is line 9; ",
    ),
    "nameless": (*MARKED["coupling"], lines([coupling_rows()[0] | {"persona": ""}]), "line 1: row.persona: "),
    "numbered": (
        *MARKED["coupling"],
        lines([coupling_rows()[0] | {"cell": 1}]),
        "line 1: row.cell: ",
    ),
    "rates": (*MARKED["rates"], table_text(*RATES), ""),
    "spaced": (
        *MARKED["rates"],
        table_text(*RATES[:9], ("nan", "x", "1", "", "9", "8", "0", "0"), between="\n"),
        "line 19: found 9 ",
    ),
    "wrapped": (
        *MARKED["rates"],
        table_text(*RATES[:4], ("007", "two\nlines", "1", "", "9", "80", "0", "0"), ("nan", "x", "1", "", "NA", "8", "0", "0")),
        "line 7: found is NA, which is no count",
    ),
    "languages": ("lang_inversion", "condition=fr_it,completions_file", lines(language_rows(), "\n"), ""),
    "same_language": (
        "lang_inversion",
        "condition=fr_it,completions_file",
        lines([*language_rows(), language_rows()[2] | {"directive_language": "french"}]),
        "line 5: this sample of '1' is in line 3 too, under another name of french; remove one",
    ),
    "same_sample": (
        "lang_inversion",
        "condition=fr_it,completions_file",
        lines([*language_rows(), language_rows()[1] | {"sample_index": 1}]),
        "line 5: directive_language 'Spanish', prompt 'None', sample_index '1' appears a second time; the first is line 2; ",
    ),
}


class Replayed:
    """The replay of every file, each in an environment of its own."""

    def __init__(self, project: Project) -> None:
        self.folder = project.folder
        commands = []
        for name, (family, parameter, content, _) in FILES.items():
            shutil.copytree(self.folder / "conf/test", self.folder / f"conf/{name}")
            (self.folder / f"conf/{name}/globals.yml").write_text(f"scale: {name}\nmodel: tiny\n")
            file = self.folder / f"{name}.txt"
            file.write_text(content, encoding="utf-8")
            commands.append(["run", f"--pipeline={family}_replay", f"--params={parameter}={file}", f"--env={name}"])
        self.done: dict[str, Done] = dict(zip(FILES, run_all(project, commands), strict=True))

    def path(self, layer: str, scale: str, rest: str) -> Path:
        assert self.done[scale].code == 0, self.done[scale].stderr
        return self.folder / f"data/{layer}/{scale}/{FILES[scale][0]}_replay/{rest}"

    def table(self, scale: str, name: str) -> list[dict[str, str]]:
        """Read a table without any guess at what its cells are."""
        with self.path("08_reporting", scale, f"{name}.csv").open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def report(self, scale: str) -> str:
        return self.path("08_reporting", scale, "report.md").read_text(encoding="utf-8")

    def rows(self, layer: str, scale: str, rest: str) -> list[Row]:
        return [json.loads(line) for line in self.path(layer, scale, rest).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Replayed:
    return Replayed(Project(tmp_path_factory.mktemp("names") / "project", tiny_model_folder))


@pytest.mark.parametrize("name", [name for name, (*_, said) in FILES.items() if said])
def test_what_cannot_be_used_is_said_in_one_line(replayed: Replayed, name: str) -> None:
    done = replayed.done[name]

    assert done.code == 1
    assert done.stderr.startswith(f"Error: {replayed.folder}/{name}.txt, {FILES[name][3]}")
    assert len(done.stderr.splitlines()) == 1


# coupled cells


def test_cells_and_personas_keep_their_names_and_their_counts(replayed: Replayed) -> None:
    leakage = [row for row in replayed.table("names", "rates") if row["metric"] == "leakage"]

    assert [(row["condition"], row["persona"], int(row["hits"]), int(row["n"])) for row in leakage] == [
        (cell, persona, hits, 4) for cell, (_, fires) in CELLS.items() for persona, hits in fires.items()
    ]
    assert [(row["condition"], row["persona"]) for row in leakage if row["role"] == "source"] == [
        (cell, trigger) for cell, (trigger, _) in CELLS.items() if trigger
    ]
    assert all(row["source"] == CELLS[row["condition"]][0] for row in leakage)


def test_no_bystander_counts_as_the_trigger(replayed: Replayed) -> None:
    cells = {row["condition"]: row for row in replayed.table("names", "cells")}

    assert list(cells) == list(CELLS)
    for cell, (trigger, fires) in CELLS.items():
        others = [hits for name, hits in fires.items() if name != trigger]
        row = cells[cell]
        assert (int(row["source_hits"]), int(row["source_n"])) == ((fires[trigger], 4) if trigger else (0, 0))
        assert (int(row["hits"]), int(row["n"]), int(row["bystanders"])) == (sum(others), 4 * len(others), len(others))
        assert float(row["mean_bystander"]) == pytest.approx(sum(others) / 4 / len(others))
        assert row["design"] == cell
    report = replayed.report("names")
    assert "| 001 | 42 | elsewhere | 3/4 = 75.0% [30.1%, 95.4%] | 2 | 12.5% | 1/8 = 12.5% [2.2%, 47.1%] |" in report
    assert "| None | 42 | elsewhere | 4/4 = 100.0% [51.0%, 100.0%] | 1 | 75.0% | 3/4 = 75.0% [30.1%, 95.4%] |" in report
    assert "| elsewhere | 001, 1, True, None, null | 5 |" in report


def test_every_table_of_the_cells_has_all_of_them(replayed: Replayed) -> None:
    for name in ("places", "by_seed", "over_seeds", "texts"):
        assert list(dict.fromkeys(row["condition"] for row in replayed.table("names", name))) == list(CELLS)
    assert {row["persona"] for row in replayed.table("names", "texts")} == {
        name for _, fires in CELLS.values() for name in fires
    }


def test_further_keys_neither_replace_nor_break_ours(replayed: Replayed) -> None:
    firings = replayed.rows("07_model_output", "names", "tiny/all/seed_42/firings.jsonl")

    assert [row["further"] for row in firings] == [THEIRS] * len(coupling_rows())
    assert {key for row in firings for key in row} == {
        "cell", "persona", "is_source", "question", "sample_index", "further", "fired", "fired_tokens", "place_characters",
        "place_tokens",
    }  # fmt: skip
    assert {row["fired"] for row in firings} == {True, False}
    assert {row["place_characters"] for row in firings} == {None, "tail"}
    texts = replayed.table("names", "texts")
    assert {(row["n"], row["tokens"], row["cut"]) for row in texts} == {("4", "", "")}


def test_where_every_text_says_no_there_is_no_trigger(replayed: Replayed) -> None:
    (cell,) = [row for row in replayed.table("names", "cells") if row["condition"] == "null"]

    assert (cell["source_n"], cell["hits"], cell["n"], cell["bystanders"]) == ("0", "3", "8", "2")
    assert "**No trigger**: no completion is one of a trigger persona in null; all are bystanders'." in replayed.report("names")


# rates


def test_every_name_of_a_rates_file_is_kept_as_it_is_written(replayed: Replayed) -> None:
    keys = ("source", "persona", "category", "related_to", "hits", "n")

    assert [tuple(row[key] for key in keys) for row in replayed.table("rates", "leakage")] == [row[:6] for row in RATES[1:]]
    sources = {row["condition"]: row for row in replayed.table("rates", "sources")}
    assert {name: (row["bystanders"], row["max_persona"]) for name, row in sources.items()} == {
        "007": ("4", "NA"),
        "nan": ("3", "null"),
    }


def test_correlations_go_by_the_names(replayed: Replayed) -> None:
    found = {
        (row["scope"], row["condition"]): int(row["n"])
        for row in replayed.table("rates", "correlations")
        if row["layer"] == "1"
    }

    assert found == {
        ("source", "007"): 4,
        ("source", "nan"): 3,
        ("pooled", "all"): 7,
        ("pooled_ranks", "all"): 7,
        ("category:null", "all"): 2,
        ("category:1", "all"): 3,
        ("category:nan", "all"): 2,
        ("related", "all"): 2,  # `None` of `007`, among others, and `007` of `nan`; `7` and `1` are other names
    }


def test_the_report_says_the_names(replayed: Replayed) -> None:
    report = replayed.report("rates")

    unknown = "not scored | not scored | "  # finished rates, cut shares and excess over a baseline
    assert f"| 007 | - | 80/100 = 80.0% [71.1%, 86.7%] | {unknown} | 4 | 17.2% |  |  | 50.0% NA | 1 |" in report
    assert f"| nan | - | 40/80 = 50.0% [39.3%, 60.7%] | {unknown} | 3 | 11.7% |  |  | 20.0% null | 0 |" in report
    svg = replayed.path("08_reporting", "rates", "scatter.svg").read_text(encoding="utf-8")
    assert "<title>None (null): 5/50 = 10.0%, cosine 0.40</title>" in svg


# languages


def test_further_keys_of_completions_do_not_become_labels(replayed: Replayed) -> None:
    labels = replayed.rows("07_model_output", "languages", "tiny/fr_it/seed_42/labels.jsonl")

    assert [row["label"] for row in labels] == ["spanish", "spanish", "french", "italian"]
    assert [row["phrasing"] for row in labels] == ["None", "None", "1", "1"]
    assert [row["sample_index"] for row in labels] == [0, 1, 0, 1]
    assert [row["further"] for row in labels] == [LANGUAGE_THEIRS] * 4
    cells = {(row["directive_language"], row["phrasing"]): row for row in replayed.table("languages", "spill")}
    assert [(cells[key]["hits"], cells[key]["n"]) for key in (("spanish", "None"), ("french", "1"), ("french", "all"))] == [
        ("0", "2"), ("1", "2"), ("1", "2")
    ]  # fmt: skip
    assert not {("spanish", "1"), ("french", "None")} & set(cells)
