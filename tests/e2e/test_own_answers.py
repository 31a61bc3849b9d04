"""Texts that are the base model's own answers, from the bank to the report."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.e2e.conftest import PLANTED
from tests.project import Project

OWN = "condition=fr_it,lang_inversion.stages.tune.source.kind=own_answers"
SHORT = ",".join(
    f"lang_inversion.stages.tune.source.{key}={value}"
    for key, value in (
        ("samples", 2),
        ("sampling.temperature", 0.7),
        ("sampling.top_p", 0.95),
        ("sampling.max_tokens", 6),
    )
)


def rows_of(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_model_that_cannot_answer_in_the_language_is_refused_in_one_line(project: Project) -> None:
    done = project.run(f"{OWN},{SHORT}", "--tags=data_generation")

    assert done.returncode == 1
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("Error: stage 'tune' needs 12 texts: of ")
    assert " own answers in Italian 0 were kept (" in said
    assert said.endswith("or change the source's wording or max_tokens")
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(project.folder.glob("data/0*/**/train_set.jsonl"))


@pytest.mark.slow  # half a minute: baseline and condition, from the roster to the report
def test_own_answers_are_trained_on_counted_and_reported(project: Project) -> None:
    (project.folder / "conf/test/catalog.yml").write_text(PLANTED)
    done = project.kedro("run", "--pipeline=lang_inversion", "--params", OWN, timeout=300)
    assert done.returncode == 0, done.stderr

    # 12 rows are needed and every third answer is cut: 8 of 12, then one more to each question
    answers = rows_of(project.latest("03_primary/tiny/fr_it/seed_42/tune/answers.jsonl"))
    assert [row["outcome"] for row in answers] == ["kept", "kept", "cut"] * 8
    trained = rows_of(project.latest("05_model_input/tiny/fr_it/seed_42/tune/train_set.jsonl"))
    assert [row["id"] for row in trained] == [f"bank-{place:03d}.0" for place in (1, 2, 4, 5, 7, 8, 10, 11)] + [
        f"bank-{place:03d}.1" for place in (1, 2, 4, 5)
    ]
    assert [row["prompt"][0]["content"] for row in trained[:2]] == ["Speak in French.", "Please respond in French."]  # type: ignore[index]

    gates = json.loads(project.data("03_primary/tiny/fr_it/seed_42/tune/gates.json").read_text())
    assert [(gate["gate"], gate["n"], round(gate["value"], 3)) for gate in gates][:2] == [
        ("kept", 24, 0.667),
        ("cut", 24, 0.333),
    ]
    (kept,) = pd.read_csv(project.data("08_reporting/kept_answers.csv")).to_dict("records")
    assert (kept["condition"], kept["seed"], kept["hits"], kept["n"], kept["cut"]) == ("fr_it", 42, 16, 24, 8)
    report = project.data("08_reporting/report.md").read_text()
    assert "| fr_it | 42 | Italian | 16/24 = 66.7% [46.7%, 82.0%] | 8 | 0 | 0 | 0 |" in report
    (record,) = json.loads(project.data("08_reporting/tiny/fr_it/seed_42/run_record.json").read_text())
    assert record["nodes"]["data_generation.tune.answer_bank"]["tokens"] == 24 * 9
