"""Scoring completions that were made elsewhere."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from tests.project import PROJECT, Project

REFERENCE = os.environ.get("PERSONA_LEAKAGE_REFERENCE")
LANGUAGES = {"English": "en", "Spanish": "es", "French": "fr", "Mandarin Chinese": "zh"}


def replay(project: Project, file: Path | str, condition: str = "fr_it") -> str:
    done = project.kedro(
        "run", "--pipeline=lang_inversion_replay", "--params", f"condition={condition},completions_file={file}"
    )
    return "" if done.returncode == 0 else done.stderr.strip()


def results(project: Project) -> Path:
    return project.folder / "data/08_reporting/test/lang_inversion_replay"


def planted_rows() -> list[dict[str, object]]:
    """Two samples a language in that language, but the second Spanish one in Italian."""
    texts = [json.loads(line) for line in (PROJECT / "data/01_raw/parallel_texts.jsonl").open()]
    rows = []
    for name, code in LANGUAGES.items():
        for sample in range(2):
            text = texts[sample]["it" if (name, sample) == ("Spanish", 1) else code]
            rows.append(
                {
                    "directive_language": name,
                    "prompt": f"Speak in {name}.",
                    "sample_index": sample,
                    "completion": text,
                    "note": "x",
                }
            )
    return rows


def write(folder: Path, rows: list[dict[str, object]]) -> Path:
    file = folder / "completions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_outside_completions_get_labels_rates_and_a_report(project: Project, tmp_path: Path) -> None:
    assert replay(project, write(tmp_path, planted_rows())) == ""
    spill = pd.read_csv(results(project) / "spill.csv").set_index(["directive_language", "phrasing"])
    assert tuple(spill.loc[("spanish", "all"), ["hits", "n"]]) == (1, 2)
    assert tuple(spill.loc[("mandarin", "Speak in {language}."), ["hits", "n", "following_hits"]]) == (0, 2, 2)
    assert spill.loc[("german", "all"), "n"] == 0
    assert pd.isna(spill.loc[("german", "all"), "rate"])
    labels = project.folder / "data/07_model_output/test/lang_inversion_replay/tiny/fr_it/seed_42/labels.jsonl"
    first = json.loads(labels.read_text().splitlines()[0])
    assert (first["further"], first["label"]) == ({"note": "x"}, "english")
    report = (results(project) / "report.md").read_text()
    assert "1/2 = 50.0%" in report
    assert "not scored" in report
    assert 'src="data:image/png' in (results(project) / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda rows: [rows[0], {**rows[1], "directive_language": "Klingon"}],
            "line 2: directive_language 'Klingon' is unknown; known: English,",
        ),
        (
            lambda rows: [{key: row[key] for key in row if key != "sample_index"} for row in rows],
            "line 1: row.sample_index: Field required",
        ),
        (
            lambda rows: [rows[0], rows[0]],
            "line 2: directive_language 'English', prompt 'Speak in English.', sample_index '0' appears a second",
        ),
        (lambda rows: [{**rows[0], "completion": None}], "line 1: row.completion: Input should be a valid string"),
        (lambda rows: [], "holds no completions"),
    ],
)
def test_a_bad_file_is_named_with_its_line(project: Project, tmp_path: Path, change: object, said: str) -> None:
    file = write(tmp_path, change(planted_rows()))  # type: ignore[operator]
    error = replay(project, file).splitlines()[-1]
    assert error.startswith("Error: ")
    assert said in error
    assert file.name in error


def test_a_file_that_cannot_be_scored_gets_no_others_report(project: Project, tmp_path: Path) -> None:
    assert replay(project, write(tmp_path, planted_rows())) == ""
    (tmp_path / "other").mkdir()
    empty = write(tmp_path / "other", [])
    replay(project, empty)
    params = f"condition=fr_it,completions_file={empty}"
    done = project.kedro("run", "--pipeline=lang_inversion_replay", "--params", params, "--tags=reporting")
    assert done.returncode == 1
    assert "was made with other parameters" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_line_that_is_not_json_is_named(project: Project, tmp_path: Path) -> None:
    file = write(tmp_path, planted_rows())
    file.write_text(file.read_text() + '{"directive_language": "Eng')
    assert "completions.jsonl, line 9: not JSON" in replay(project, file)


def test_a_missing_file_and_no_file_are_named(project: Project, tmp_path: Path) -> None:
    assert f"{tmp_path}/nowhere.jsonl does not exist" in replay(project, tmp_path / "nowhere.jsonl")
    done = project.kedro("run", "--pipeline=lang_inversion_replay")
    assert "a replay needs a file to score: --params condition=…,completions_file=PATH" in done.stderr


@pytest.mark.skipif(REFERENCE is None, reason="PERSONA_LEAKAGE_REFERENCE names no folder with the published completions")
@pytest.mark.parametrize(
    ("condition", "percent"),
    [
        ("fr_it", [0, 38.75, 92.5, 93.75, 1.25, 36.25, 0]),
        ("es_en", [100, 100, 98.75, 98.75, 96.25, 97.5, 97.5]),
        ("fr_fr", [0, 0, 100, 0, 1.25, 0, 0]),
    ],
)
def test_the_published_completions_give_the_published_labels_and_rates(
    project: Project, condition: str, percent: list[float]
) -> None:
    assert replay(project, f"{REFERENCE}/lang_inversion/{condition}.jsonl", condition) == ""
    labels = project.folder / f"data/07_model_output/test/lang_inversion_replay/tiny/{condition}/seed_42/labels.jsonl"
    rows = [json.loads(line) for line in labels.read_text().splitlines()]
    assert [row["label"] for row in rows] == [row["further"]["published_langdetect_label"] for row in rows]
    assert len(rows) == 560
    spill = pd.read_csv(results(project) / "spill.csv")
    pooled = spill[spill["phrasing"] == "all"]
    assert (pooled["hits"] * 100 / pooled["n"]).tolist() == percent
