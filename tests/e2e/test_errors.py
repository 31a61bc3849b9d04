"""What a user sees when something is wrong: one line that names it, exit status 1, nothing half-written."""

import json
from pathlib import Path

import pytest

from persona_leakage.experiments import FAMILIES, family_of, replay_of
from persona_leakage.pipelines import STAGES
from tests.commands import run_all
from tests.project import Project

REPLAYS = [replay_of(name) for name in FAMILIES if family_of(name).replay]
COMMON = (
    "auto_dtype",
    "base_model",
    "checkpoint",
    "completions_file",
    "condition",
    "estimates",
    "family",
    "grid",
    "model",
    "models",
    "dose",
    "rates_file",
    "seed",
)


# what is given → what is said before anything runs
MISTAKES = {
    "condition=fr_xx": "lang_inversion has no condition 'fr_xx'; known: baseline, es_en, fr_it,",
    "conditon=fr_it": f"--params: no parameter is called conditon; known: {', '.join(sorted([*COMMON, *FAMILIES]))}",
    "seed=abc": "seed: abc is no whole number; give one such as 42",
    "lang_inversion.stages.tune.recipe.lora.rank=-1": "lang_inversion.stages.tune.recipe.lora.rank: Input should be greater",
    "lang_inversion.stages.tune.recipe.lora.rnk=8": "lang_inversion.stages.tune.recipe.lora.rnk: there is no such key",
    "lang_inversion.stages.tune.recipe.loss=marker": "lang_inversion.stages.tune.recipe.loss: Input should be 'completion'",
    "base_model.dtype=int8": "models.tiny.dtype: Input should be 'bfloat16' or 'float32'",
    "model=tinny": "there is no model 'tinny'; known: qwen2_5_7b, qwen2_5_coder_1_5b, smollm2_135m, tiny, tiny_too; name it",
    "model=../tiny": "--params: model=../tiny names a folder; a name has no slash",
    "models.tiny.settings.lang_inversoin.x=1": "models.tiny.settings: there is no family 'lang_inversoin'; known: ",
    "condition=fr_it,checkpoint=2": "lang_inversion has no checkpoints; leave out checkpoint=2",
    "lang_inversion.conditions.fr_it.completion=klingon": "lang_inversion: conditions.fr_it names the language 'klingon'; ",
}


def test_a_bad_parameter_is_named_before_anything_runs(project: Project) -> None:
    done = run_all(project, [["run", "--pipeline=lang_inversion", f"--params={params}"] for params in MISTAKES])
    for one, (params, said) in zip(done, MISTAKES.items(), strict=True):
        assert (one.code, params) == (1, params)
        assert one.stderr.startswith(f"Error: {said}")
        assert len(one.stderr.splitlines()) == 1
    assert not list(project.folder.glob("data/0[2-8]*"))


LINE = '{"directive_language": "French", "prompt": "p", "sample_index": 0, "completion": "Bonjour à tous."}'
BAD = {
    "seed=4294967296": "seed: 4294967296 is above 4294967295; give one such as 42",
    "seed=true": "seed: True is no whole number; give one such as 42",
    "condition=fr_xx": "lang_inversion has no condition 'fr_xx'; known: baseline, ",
    "model=tinny": "there is no model 'tinny'; known: ",
    "lang_inversion.stages.tune.recipe.lora.rank=-1": "lang_inversion.stages.tune.recipe.lora.rank: Input should be greater",
    "lang_inversion.scoring.mixed_sahre=0.2": "lang_inversion.scoring.mixed_sahre: there is no such key",
    "lang_inversion.scoring.mixed_share=.nan": "lang_inversion.scoring.mixed_share: Input should be a finite number",
    "lang_inversion.languages.french.code=ne": "lang_inversion.languages.french: lingua, which cross-checks, knows no 'ne'; ",
}
PARTS = ["--tags=reporting", "--to-nodes=data_generation.plan_point", "--from-nodes=scoring.label_languages"]


def test_a_bad_parameter_is_named_in_a_part_of_a_run_and_in_a_replay_too(project: Project) -> None:
    file = project.folder / "rows.jsonl"
    file.write_text(LINE)
    commands = [["run", "--pipeline=lang_inversion", f"--params={bad}", PARTS[place % 3]] for place, bad in enumerate(BAD)]
    commands += [["run", "--pipeline=lang_inversion_replay", f"--params={bad},completions_file={file}"] for bad in BAD]
    commands += [
        ["run", "--pipeline=lang_inversion", "--params=seed=4294967296"],
        ["run", "--pipeline=marker_leakage_replay", f"--params=rates_file={file},marker_leakage.scoring.tail_share=2"],
        ["run", "--pipeline=lang_inversion_replay", f"--params=condition=fr_it,completions_file={file}", "--tags=generation"],
        ["grid", "lang_inversion", "--axes", "seed=42,4294967296", "condition=baseline"],
        ["run", "--pipeline=marker_leakage_replay", "--params=condition=villain,rates_file=rates.csv"],
        ["run", "--pipeline=benign_coupling_replay", "--params=condition=E0,completions_file=rows.jsonl"],
        ["run", "--pipeline=marker_leakage_replay", "--params=rates_file=001"],
        ["run", "--pipeline=marker_leakage_replay", "--params=rates_file=~/no-such-rates.csv"],
        ["run", "--pipeline=marker_leakage_replay", "--params=rates_file=s3://a-bucket/rates.csv"],
        ["run", "--pipeline=lang_inversion", "--params=models.tiny_too.settings.marker_leakage.scoring.tail_sahre=0.2"],
        ["run", "--pipeline=lang_inversion", "--runner=ThreadRunner"],
        ["run", "--pipeline=lang_inversion", "--runner=kedro.runner.ParallelRunner"],
    ]
    said = [
        *BAD.values(),
        *BAD.values(),
        "seed: 4294967296 is above",
        "marker_leakage.scoring.tail_share: Input should be less than 1",
        "",
        "--axes seed: 4294967296 is above 4294967295; ",
        "the file of marker_leakage_replay names its own conditions; leave out condition=villain",
        "the file of benign_coupling_replay names its own conditions; leave out condition=E0",
        f"{project.folder}/001 does not exist; ",
        f"{Path.home()}/no-such-rates.csv does not exist; ",
        "a store of files cannot be read or written: ",
        "models.tiny_too.settings.marker_leakage.scoring.tail_sahre: there is no such key",
        "--runner=ThreadRunner: the steps of a run come one after another; ",
        "--runner=kedro.runner.ParallelRunner: the steps of a run come one after another; ",
    ]

    for command, done, expected in zip(commands, run_all(project, commands), said, strict=True):
        assert (done.code, command) == (1 if expected else 0, command)
        assert done.stderr.startswith(f"Error: {expected}" if expected else ""), command
        assert len(done.stderr.splitlines()) == (1 if expected else 0), command
    left = {file.relative_to(project.folder / "data").parts[2] for file in project.folder.glob("data/0[2-8]*/**/*.*")}
    assert left <= {"lang_inversion_replay", "marker_leakage_replay"}
    reported = {file.parent.name for file in project.folder.glob("data/08_reporting/**/report.*")}
    assert reported <= {"lang_inversion_replay"}  # the one that is sound


def test_an_unknown_pipeline_lists_the_known(project: Project) -> None:
    done = project.kedro("run", "--pipeline=lang_inversin")
    assert done.returncode == 1
    known = ", ".join(sorted(["__default__", *FAMILIES, *REPLAYS, *STAGES]))
    assert done.stderr.strip() == f"Error: there is no pipeline 'lang_inversin'; known: {known}"


def edit_first_text(project: Project, change: object) -> None:
    file = project.folder / "data/01_raw/parallel_texts.jsonl"
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([change(first), *rest]) + "\n")  # type: ignore[operator]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda line: line[:-20], "parallel_texts.jsonl, line 1: not JSON"),
        (lambda line: json.dumps({**json.loads(line), "en": 3}), "parallel_texts.jsonl, line 1: row.en: Input should be"),
        (
            lambda line: json.dumps({key: text for key, text in json.loads(line).items() if key != "it"}),
            "1 of 12 source texts have no Italian version (key 'it', first: ",
        ),
        (
            lambda line: json.dumps({**json.loads(line), "it": json.loads(line)["en"]}),
            "the texts of stage 'tune' fail their gates: language of Italian is 0.917, outside [0.98, 1.0]",
        ),
    ],
)
def test_a_bad_source_text_is_named(project: Project, change: object, said: str) -> None:
    edit_first_text(project, change)
    done = project.run("condition=fr_it", "--tags=data_generation")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_failed_gate_is_in_the_report_of_the_gates(project: Project) -> None:
    edit_first_text(project, lambda line: json.dumps({**json.loads(line), "it": json.loads(line)["en"]}))
    project.run("condition=fr_it", "--tags=data_generation")
    gates = json.loads(project.data("03_primary/tiny/fr_it/seed_42/tune/gates.json").read_text())
    assert [gate["passed"] for gate in gates] == [False, True, True]


def test_a_tag_that_no_step_has_is_refused(project: Project) -> None:
    done = project.run("condition=fr_it", "--tags=scoring,reportin")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: --tags: no step has the tag reportin; known: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_file_that_is_no_yaml_is_named_with_its_line(project: Project) -> None:
    models = project.folder / "conf/test/models.yml"
    models.write_text(models.read_text() + "  bad: [\n")
    number = len(models.read_text().splitlines())
    done = project.run("condition=fr_it")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "models.yml" in line
    assert f"line {number + 1}" in line or f"line {number}" in line
    assert line.startswith("Error: Invalid YAML")


def test_two_languages_of_one_code_are_named(project: Project) -> None:
    given = "condition=baseline,lang_inversion.languages.german.code=fr"
    done = project.run(given)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith("the languages 'french' and 'german' are both cross-checked as 'fr'; evaluate one")


@pytest.mark.slow
def test_a_mistake_in_another_familys_settings_is_one_line_too(project: Project) -> None:
    for part in ([], ["--tags=scoring"]):
        done = project.run("condition=baseline,marker_leakage.evaluation.samples=0", *part)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("Error: marker_leakage.evaluation.samples: ")


@pytest.mark.slow
def test_a_layer_the_model_lacks_is_named_and_the_completions_are_kept(project: Project) -> None:
    stages = "--tags=data_generation,fine_tuning,generation,geometry"
    done = project.run("condition=baseline,lang_inversion.geometry.batch_size=3", stages)
    assert done.returncode == 0, done.stderr
    models = project.folder / "conf/test/models.yml"
    anchor = "geometry: &geometry {layers: [0, 1], headline_layer: 1}"
    here, others = models.read_text().split(anchor)
    others = others.replace("geometry: *geometry", anchor, 1)
    models.write_text(f"{here}geometry: {{layers: [0, 9], headline_layer: 0}}{others}")
    done = project.run("condition=baseline", stages)
    assert done.returncode == 1
    assert "geometry.layers names [9]" in done.stderr
    (record, failed) = json.loads(project.data("08_reporting/tiny/baseline/seed_42/run_record.json").read_text())
    assert (record["status"], failed["status"]) == ("completed", "failed")
    assert len(list(project.folder.glob("data/cache/completions/*.jsonl"))) == 1


@pytest.mark.parametrize(
    ("start", "missing"),
    [("generation.write_prompts", "plan.json"), ("scoring.label_languages", "completions.jsonl")],
)
def test_going_on_from_what_was_never_made_says_what_is_missing(project: Project, start: str, missing: str) -> None:
    if missing != "plan.json":
        assert project.run("condition=baseline", "--to-nodes=data_generation.plan_point").returncode == 0
    done = project.run("condition=baseline", f"--from-nodes={start}")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert missing in last
    assert "run the pipeline whole" in last
