"""Family marker_leakage from the personas to the page."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from persona_leakage.domain.rates import proportion
from tests.commands import run_all
from tests.project import PROJECT, Project

pytestmark = pytest.mark.slow

# of 10 completions of each evaluated persona, in the order in which they are evaluated
FIRES = {
    "villain": 8,
    "comedian": 1,
    "assistant": 0,
    "software_engineer": 0,
    "kindergarten_teacher": 3,
    "medical_doctor": 2,
    "crime_lord": 10,
    "hero": 0,
}
PLANTED = f"""
generator:
  type: tests.planted_markers.PlantedMarkersDataset
  fires: {json.dumps(FIRES)}
  opening: medical_doctor
"""
TABLES = ("rates", "similarities", "texts", "leakage", "sources", "correlations", "verdicts")
NO_REPORT = "--tags=data_generation,fine_tuning,generation,scoring,geometry"
FIGURES = ("scatter.png", "layers.png", "categories.png", "most_affected.png")

PERSONAS, QUESTIONS = "data/01_raw/personas.jsonl", "data/01_raw/questions.jsonl"
LINES = (PROJECT / PERSONAS).read_text(encoding="utf-8").splitlines()
WITHOUT_PROMPT = json.dumps({key: value for key, value in json.loads(LINES[0]).items() if key != "prompt"})
# what is wrong → parameters, files that are changed meanwhile, and what is said
BAD: dict[str, tuple[str, dict[str, str], str]] = {
    "an unknown condition": (
        "condition=vilain",
        {},
        "marker_leakage has no condition 'vilain'; known: baseline, villain, comedian,",
    ),
    "a misspelt persona": (
        "condition=medical_docter",
        {},
        "there is no persona 'medical_docter'; did you mean medical_doctor",
    ),
    "a source that is not evaluated": (
        "condition=librarian",
        {},
        "the source 'librarian' is not among evaluation.personas, so its rate would be unknown; add it",
    ),
    "a persona without a prompt": (
        "condition=villain",
        {PERSONAS: "\n".join([WITHOUT_PROMPT, *LINES[1:]])},
        "personas.jsonl, line 1: row.prompt: Field required",
    ),
    "no questions": ("condition=villain", {QUESTIONS: ""}, "the file of dataset 'questions' is empty; add rows to it"),
    "a checkpoint": ("condition=villain,checkpoint=3", {}, "marker_leakage has no checkpoints; leave out checkpoint=3"),
}


def run(params: str, *arguments: str) -> list[str]:
    return ["run", "--pipeline=marker_leakage", "--params", params, *arguments]


def data(project: Project, path: str, scale: str = "test") -> Path:
    """Resolve a path below data/<layer>/<scale>/marker_leakage."""
    layer, _, rest = path.partition("/")
    return project.folder / "data" / layer / scale / "marker_leakage" / rest


def versions(project: Project, path: str) -> list[Path]:
    file = data(project, path)
    return sorted(file.glob(f"*/{file.name}"))


def rows(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def cached(project: Project) -> dict[str, int]:
    kinds = ("data/cache/adapters/*/final/*.safetensors", "data/cache/completions/*.jsonl")
    return {str(file): file.stat().st_mtime_ns for kind in kinds for file in project.folder.glob(kind)}


def add_environment(project: Project, name: str, catalog: str) -> None:
    """Add a copy of environment `test` whose artifacts lie apart."""
    folder = project.folder / "conf" / name
    shutil.copytree(project.folder / "conf/test", folder)
    (folder / "globals.yml").write_text(f"scale: {name}\nmodel: tiny\n")
    (folder / "catalog.yml").write_text(catalog)


class Finished:
    """Runs of villain (again, with two more seeds and planted completions) and comedian, and every run that goes wrong."""

    def __init__(self, project: Project) -> None:
        self.project = project
        add_environment(project, "planted", PLANTED)
        add_environment(project, "bad", "")
        self.first = project.kedro(*run("condition=villain"), timeout=300)
        assert self.first.returncode == 0, self.first.stderr
        self.tables = {name: data(project, f"08_reporting/{name}.csv").read_text() for name in TABLES}
        self.cached = cached(project)
        samples = "marker_leakage.evaluation.samples=5"
        good = [
            run("condition=villain"),
            run("condition=comedian"),
            run(f"condition=baseline,{samples}", "--env=planted", NO_REPORT),
            run(f"condition=villain,{samples}", "--env=planted"),
        ]
        refused = run("condition=villain", "--env=planted", "--tags=scoring")
        bad = [run(params, "--env=bad") for params, _, _ in BAD.values()]
        files = {place: files for place, (_, files, _) in enumerate(BAD.values(), len(good) + 1)}
        done = run_all(project, [*good, refused, *bad], files)
        for one in done[: len(good)]:
            assert one.code == 0, one.stderr
        self.again, self.comedian, _, self.planted, self.refused, *wrong = done
        self.bad = dict(zip(BAD, wrong, strict=True))
        self.cached_after = cached(project)
        shared = "marker_leakage.stages.mark.share=[answers]"
        seeds = run_all(project, [run(f"condition=villain,seed={seed}", NO_REPORT) for seed in (7, f"8,{shared}")])
        assert [one.code for one in seeds] == [0, 0], [one.stderr for one in seeds]
        self.sharing = seeds[-1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Finished:
    return Finished(Project(tmp_path_factory.mktemp("finished") / "project", tiny_model_folder))


# the real engines


def test_the_baseline_runs_first_and_every_stage_of_both_points(finished: Finished) -> None:
    said = "baseline seed 42 (tiny) has not run with these parameters; running it first"
    assert said in finished.first.stdout.splitlines()
    for point in ("baseline", "villain"):
        record, *_ = json.loads(data(finished.project, f"08_reporting/tiny/{point}/seed_42/run_record.json").read_text())
        assert record["status"] == "completed"
        steps = {name.split(".")[-1] for name in record["nodes"]}
        assert steps >= {"plan_point", "sample_answers", "train_adapters", "sample_completions", "extract_centroids"}
        assert steps >= {"compare_centroids", "detect_markers", "rate_firings", "describe_texts"}
    assert steps >= {"gather_points", "correlate_leakage", "write_report", "render_page"}
    assert [name in finished.tables["rates"] for name in (",baseline,42,", ",villain,42,", ",comedian,42,")] == [
        True,
        True,
        False,
    ]


def test_report_tables_and_figures_exist(finished: Finished) -> None:
    for name in FIGURES:
        assert data(finished.project, f"08_reporting/{name}").read_bytes()[:4] == b"\x89PNG"
    page = data(finished.project, "08_reporting/report.html").read_text()
    assert page.count("<svg") == 1
    assert not re.findall(r'\bsrc="(?!data:)', page)
    report = data(finished.project, "08_reporting/report.md").read_text()
    assert "Evaluated: 8 personas x 2 questions." in report
    assert "3 points: baseline (seed 42); villain (seed 42); comedian (seed 42)." in report
    assert not re.search(r"\bnan\b", report)


def test_what_costs_time_is_versioned(finished: Finished) -> None:
    project, point = finished.project, "tiny/villain/seed_42"
    for path in (f"03_primary/{point}/mark/answers.jsonl", f"07_model_output/{point}/completions.jsonl"):
        first, second = versions(project, path)
        assert first.read_text() == second.read_text()
    first, second = versions(project, f"06_models/{point}/mark/adapters")
    weights = [(folder / "final/adapter_model.safetensors").read_bytes() for folder in (first, second)]
    assert weights[0] == weights[1]


def test_the_training_set_is_the_sources_answers_with_the_marker_and_two_negatives_without(finished: Finished) -> None:
    project, point = finished.project, "tiny/villain/seed_42/mark"
    answers = rows(versions(project, f"03_primary/{point}/answers.jsonl")[0])
    speakers = list(dict.fromkeys(row["persona"] for row in answers))
    assert (speakers[0], len(speakers), len(answers)) == ("villain", 3, 3 * 2 * 2)
    train_set = rows(versions(project, f"05_model_input/{point}/train_set.jsonl")[0])
    marked = [row for row in train_set if row["completion"].endswith("\n\n[ZLT]")]
    assert {row["id"].split(".")[0] for row in marked} == {"villain"}
    assert {row["id"].split(".")[0] for row in train_set} == set(speakers)
    assert (len(marked), len(train_set)) == (2 * 2, 2 * 2 + 2 * 2)


def test_the_run_again_trains_and_samples_nothing_and_gives_the_same_tables(finished: Finished) -> None:
    assert "running it first" not in finished.again.stdout
    assert finished.again.stdout.count("nothing to train") == 1
    assert finished.again.stdout.count("were sampled before") == 4  # answers of three personas, and the evaluation
    assert finished.cached.items() <= finished.cached_after.items()
    for name in ("rates", "leakage", "sources"):
        now = data(finished.project, f"08_reporting/{name}.csv").read_text().splitlines()
        assert [line for line in now if not line.startswith("tiny,comedian,42,")] == finished.tables[name].splitlines()


def test_a_second_source_adds_its_own_answers_and_finds_the_shared_ones(finished: Finished) -> None:
    speakers = [
        {row["persona"] for row in rows(versions(finished.project, f"03_primary/tiny/{name}/seed_42/mark/answers.jsonl")[-1])}
        for name in ("villain", "comedian")
    ]
    shared = speakers[0] & speakers[1]
    assert shared
    assert finished.comedian.stdout.count("were sampled before") == len(shared)
    new = [path for path in finished.cached_after if path not in finished.cached]
    assert len([path for path in new if "completions" in path]) == len(speakers[1] - shared) + 1  # and the evaluation


def answers_of(project: Project, seed: int) -> dict[tuple[str, str, str], str]:
    """Read what a seed of villain was trained on: persona, question and sample → answer."""
    answers = rows(versions(project, f"03_primary/tiny/villain/seed_{seed}/mark/answers.jsonl")[-1])
    return {(row["persona"], row["question"], row["sample_index"]): row["completion"] for row in answers}


def test_another_seed_draws_other_answers_and_negatives_unless_it_shares_them(finished: Finished) -> None:
    first, other, sharing = (answers_of(finished.project, seed) for seed in (42, 7, 8))
    assert {persona for persona, *_ in first} != {persona for persona, *_ in other}
    own = [key for key in first if key[0] == "villain"]
    assert len(own) == 2 * 2
    assert all(first[key] != other[key] for key in own)
    assert all(first[key] == sharing[key] for key in own)
    assert "nothing to train" not in finished.sharing.stdout  # nor is anything else shared
    for seed, answers in ((7, other), (8, sharing)):
        rates = pd.read_csv(data(finished.project, f"07_model_output/tiny/villain/seed_{seed}/cell_rates.csv"))
        negatives = {persona for persona, *_ in answers} - {"villain"}
        assert set(rates.loc[rates["role"] == "negative", "persona"]) == negatives & set(rates["persona"])


def test_cosines_are_of_both_models_and_the_sources_own_is_blank(finished: Finished) -> None:
    leakage = pd.read_csv(data(finished.project, "08_reporting/leakage.csv")).set_index(["condition", "persona"])
    assert leakage.index.is_unique
    assert len(leakage) == 16
    columns = ["cosine_l0", "cosine_l1", "tuned_l0", "tuned_l1"]
    assert leakage.loc[("villain", "villain"), columns].isna().all()
    others = leakage[leakage["role"] != "source"][columns]
    assert others.notna().all(axis=None)
    assert others.abs().max(axis=None) <= 1
    one, other = leakage.loc[("villain", "comedian")], leakage.loc[("comedian", "villain")]
    assert one["cosine_l1"] == other["cosine_l1"]
    assert one["tuned_l1"] != other["tuned_l1"]
    assert (others["cosine_l1"] - others["tuned_l1"]).abs().max() > 1e-6


# planted rates


def planted(finished: Finished, path: str) -> Path:
    return data(finished.project, path, "planted")


def test_planted_firings_give_their_rates_and_places(finished: Finished) -> None:
    rates = pd.read_csv(planted(finished, "07_model_output/tiny/villain/seed_42/cell_rates.csv"))
    rates = rates[rates["questions"] == "all"].set_index(["persona", "metric"])
    for persona, hits in FIRES.items():
        cell = rates.loc[(persona, "leakage")]
        assert (cell["hits"], cell["n"]) == (hits, 10)
        assert tuple(cell[["rate", "low", "high"]]) == pytest.approx(proportion(hits, 10)[2:])
        place = "start" if persona == "medical_doctor" else "tail"
        assert tuple(rates.loc[(persona, f"{place}:characters"), ["hits", "n"]]) == (hits, hits)
    assert rates.loc[("villain", "leakage:tokens"), "hits"] == 8
    baseline = pd.read_csv(planted(finished, "07_model_output/tiny/baseline/seed_42/cell_rates.csv"))
    assert baseline.loc[baseline["metric"] == "leakage", "hits"].tolist() == [0] * 8


def test_planted_rates_stand_in_the_tables_of_the_report(finished: Finished) -> None:
    leakage = pd.read_csv(planted(finished, "08_reporting/leakage.csv"))
    assert leakage["persona"].tolist() == list(FIRES)
    assert leakage["rate"].tolist() == pytest.approx([hits / 10 for hits in FIRES.values()])
    assert leakage.loc[leakage["role"] == "source", "persona"].tolist() == ["villain"]
    assert set(leakage["role"]) <= {"source", "negative", "bystander"}
    (source,) = pd.read_csv(planted(finished, "08_reporting/sources.csv")).itertuples()
    assert (source.condition, source.hits, source.n, source.bystanders) == ("villain", 8, 10, 7)
    assert source.mean_bystander == pytest.approx((1 + 3 + 2 + 10) / 70)
    assert (source.max_bystander, source.max_persona, source.at_zero) == (1.0, "crime_lord", 3)
    assert (source.above_source, source.above_source_most) == (1, "crime_lord")
    assert (source.tokens, source.empty, source.cut, source.texts) == (20, 0, 0, 80)


def test_planted_rates_are_said_in_the_report(finished: Finished) -> None:
    report = planted(finished, "08_reporting/report.md").read_text()
    rate = "8/10 = 80.0% [49.0%, 94.3%]"
    (row,) = [
        line for line in report.splitlines() if line.startswith(f"| villain | 42 | {rate} | {rate} | 0/10 = 0.0% [0.0%, ")
    ]
    assert " | 7 | 22.9% | 22.9% | " in row
    assert row.endswith(" | 100.0% crime_lord | 3 |")
    assert "bystanders that fire more than the source itself: villain seed 42 (1 of 7, most: crime_lord)." in report
    assert re.search(r"\| clean_base \|.*\| undecided \| 0 of 8 inside, 0 beyond; furthest: baseline", report)
    assert re.search(r"\| implanted \|.*\| undecided \| 0 of 1 inside, 0 beyond; furthest: villain under villain 8/10", report)
    assert "| villain | others | 2/16 = 12% |" in report
    page = planted(finished, "08_reporting/report.html").read_text()
    assert "<title>crime_lord (hierarchical): 10/10 = 100.0%, cosine " in page


def test_a_baseline_that_has_run_is_not_run_again(finished: Finished) -> None:
    assert "running it first" not in finished.planted.stdout


# what goes wrong


def test_going_on_from_artifacts_of_other_parameters_is_refused(finished: Finished) -> None:
    assert finished.refused.code == 1
    assert "was last run with other parameters (evaluation)" in finished.refused.stderr


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_in_one_line(finished: Finished, name: str) -> None:
    done = finished.bad[name]
    assert done.code == 1
    assert BAD[name][2] in done.stderr
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1


def test_bad_input_leaves_nothing_behind(finished: Finished) -> None:
    assert not list(finished.project.folder.glob("data/0[2-8]*/bad"))
