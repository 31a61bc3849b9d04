"""Every family and every replay is made of the six stages, in order, and of nothing else."""

from functools import cache

import pytest
from kedro.pipeline import Pipeline, node, pipeline

from persona_leakage.experiments import FAMILIES, family_of, replay_of
from persona_leakage.experiments.composition import compose, compose_replay, train
from persona_leakage.experiments.family import Family, Replay
from persona_leakage.experiments.lang_inversion.settings import Settings
from persona_leakage.pipeline_registry import register_pipelines
from persona_leakage.pipelines import STAGES
from persona_leakage.pipelines.reporting.pipeline import Report

REPLAYS = [replay_of(name) for name in FAMILIES if family_of(name).replay]
ROSTER = {"personas", "coupling_personas", "questions"}
POINT = {f"params:{name}" for name in ("model", "condition", "seed", "checkpoint", "dose")}
TRAINING = ("train_adapters", "sample_gauge", "measure_gauge", "choose_dose", "extend_stack")


@cache
def registered() -> dict[str, Pipeline]:
    return register_pipelines()


def stage_of(one):
    """The stage that kedro-viz folds a node into."""
    return one.namespace.split(".")[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_folds_into_the_six_stages(family):
    assert {stage_of(one) for one in registered()[family].nodes} == set(STAGES)


@pytest.mark.parametrize("name", [*FAMILIES, *REPLAYS])
def test_what_is_made_flows_through_the_stages_in_order(name):
    nodes = registered()[name].nodes
    maker = {made.partition("@")[0]: stage_of(one) for one in nodes for made in one.outputs}
    read = {(given.partition("@")[0], stage_of(one)) for one in nodes for given in one.inputs}
    steps = {(maker[dataset], stage) for dataset, stage in read if dataset in maker}

    assert steps
    assert [step for step in steps if STAGES.index(step[0]) > STAGES.index(step[1])] == []


@pytest.mark.parametrize("name", [*FAMILIES, *REPLAYS])
def test_a_stage_is_selected_by_its_tag(name):
    for one in registered()[name].nodes:
        stages = {stage_of(one)}
        if one.namespace.startswith("fine_tuning.") and one.func.__name__ not in TRAINING:
            stages = {"data_generation"}
        if one.func.__name__ == "build_roster":  # a report reads the files as they are
            stages |= {"reporting"}
        assert one.tags == stages, one.name


@pytest.mark.parametrize(
    ("family", "trained"),
    [
        ("lang_inversion", ["tune"]),
        ("marker_leakage", ["mark"]),
        ("convergence", ["converge", "mark"]),
        ("benign_coupling", ["induce", "couple"]),
    ],
)
def test_data_of_a_later_stage_is_made_inside_fine_tuning(family, trained):
    first, *later = trained
    nodes = registered()[family].nodes
    inside = {one.namespace: set() for one in nodes if "." in one.namespace}
    for one in nodes:
        if "." in one.namespace:
            inside[one.namespace] |= one.tags

    assert inside == {
        f"data_generation.{first}": {"data_generation"},
        f"fine_tuning.{first}": {"fine_tuning"},
        **{f"fine_tuning.{stage}": {"data_generation", "fine_tuning"} for stage in later},
    }


@pytest.mark.parametrize("name", [*FAMILIES, *REPLAYS])
def test_of_the_parameters_a_pipeline_reads_the_point_and_its_familys_settings(name):
    replay = family_of(name).replay
    file = {f"params:{replay.parameter}"} if name in REPLAYS else set()

    read = {dataset for dataset in registered()[name].inputs() if dataset.startswith("params:")}
    assert read == POINT | file | {f"params:variants.{name.removesuffix('_replay')}"}


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("lang_inversion_replay", {"outside_completions", "published_rates", "language_model"}),
        ("marker_leakage_replay", {"outside_rates", "personas", "questions"}),
        ("benign_coupling_replay", {"outside_persona_completions", "tokenizer", "language_model", *ROSTER}),
    ],
)
def test_a_replay_reads_what_was_made_elsewhere_and_trains_nothing(name, read):
    assert {dataset for dataset in registered()[name].inputs() if not dataset.startswith("params:")} == read


@pytest.mark.parametrize("name", [*FAMILIES, *REPLAYS])
def test_what_a_pipeline_makes_is_named_after_it(name):
    made = registered()[name].all_outputs()

    assert [dataset for dataset in made if not dataset.startswith(f"{name}.")] == []
    assert {f"{name}.plan", f"{name}.report", f"{name}.report_page", f"{name}.points"} <= made


@pytest.mark.parametrize("name", [*FAMILIES, *REPLAYS])
def test_a_report_alone_needs_nothing_that_a_run_does_not_keep(name):
    alone = registered()[name].only_nodes_with_tags("reporting").inputs()
    kept = {dataset for dataset in alone if "@" in dataset} | {f"{name}.plan", "published_rates", "outside_rates"}

    read = alone - kept - ROSTER
    assert [dataset for dataset in read if not dataset.startswith("params:")] == []


def test_every_family_its_replays_and_the_six_stages_are_registered():
    assert set(registered()) == {"__default__", *FAMILIES, *REPLAYS, *STAGES}
    assert registered()["__default__"].describe() == registered()["lang_inversion"].describe()


def test_a_family_without_a_replay_has_none_registered():
    assert family_of("convergence").replay is None
    assert "convergence_replay" not in registered()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_holds_that_stage_of_every_family(stage):
    nodes = registered()[stage].nodes

    assert {one.namespace.split(".")[0] for one in nodes} == set(FAMILIES)
    assert len(nodes) == sum(len(registered()[name].only_nodes_with_tags(stage).nodes) for name in FAMILIES)


# the parts


def give(one):
    return one


def adopt(outside, plan):
    return outside


def small(*steps):
    return pipeline([node(give, given, made, name=f"make_{made.replace('@', '_')}") for given, made in steps])


def write(rates, *, family):
    return ""


def keep_apart(rates, settings):
    return rates


def planted(**more):
    """A family of one table, whose stages read texts and share an engine."""
    stages = small(("base_stack", "stack"), ("texts", "cell_rates@run"))
    return Family(
        "planted", Settings, lambda: stages, {"cell_rates": "rates"}, Report({"by_seed": keep_apart}, {}, write), **more
    )


def test_a_family_names_what_it_makes_and_shares_what_it_reads():
    whole = compose(planted())

    assert whole.inputs() == {"texts", *POINT, "params:variants.planted"}
    assert {"planted.plan", "planted.stack", "planted.cell_rates@run", "planted.rates", "planted.report"} <= whole.all_outputs()
    assert [dataset for dataset in whole.all_outputs() if not dataset.startswith("planted.")] == []
    assert "planted.trainings@run" in whole.all_outputs()
    assert {"planted.cell_rates@grid", "planted.trainings@grid"} <= whole.all_inputs()
    (kept,) = [one for one in whole.nodes if one.func.__name__ == "keep_apart"]
    assert (kept.inputs, kept.outputs) == (["planted.rates", "params:variants.planted"], ["planted.by_seed"])


def test_a_family_with_personas_resolves_its_plans_and_its_report_with_a_roster():
    whole = compose(planted(personas=("personas", "strangers")))
    (build,) = [one for one in whole.nodes if one.func.__name__ == "build_roster"]

    assert build.inputs == ["questions", "personas", "strangers"]
    assert {one.func.__name__ for one in whole.nodes if "planted.roster" in one.inputs} == {"plan_point", "gather_points"}


def test_a_replay_has_names_of_its_own_and_its_familys_parameters():
    replay = Replay("texts_file", "outside", adopt, "completions", "generation", lambda: small(("completions", "rates")))

    whole = compose_replay(planted(replay=replay))

    assert {"planted_replay.plan", "planted_replay.completions", "planted_replay.rates"} <= whole.all_outputs()
    assert [dataset for dataset in whole.all_outputs() if not dataset.startswith("planted_replay.")] == []
    assert whole.inputs() == {"outside", "params:texts_file", *POINT, "params:variants.planted"}


def test_a_family_without_a_replay_cannot_be_replayed():
    with pytest.raises(TypeError, match="wired for Replay"):
        compose_replay(planted())


def data_of(*steps):
    return pipeline(small(*steps), tags="data_generation")


def test_a_trained_stage_names_all_but_its_stack_and_what_it_reads():
    trained = train("tune", data_of(("source_texts", "train_set")))

    assert trained.inputs() == {"source_texts", "trainer", "generator", "tokenizer", "plan", "base_stack"}
    assert trained.all_outputs() == {
        *("tune.train_set", "tune.adapters", "tune.training_log", "stack"),
        *("tune.gauge_completions", "gauge@run", "tune.dose"),
    }


def test_only_the_last_stage_has_a_gauge():
    first = train("induce", data_of(("source_texts", "train_set")), last=False)

    assert first.all_outputs() == {"induce.train_set", "induce.adapters", "induce.training_log", "induce.stack"}
    assert "generator" not in first.inputs()


def test_a_stage_that_another_is_trained_on_hands_its_stack_on():
    first = train("induce", data_of(("source_texts", "train_set")), last=False)
    second = train("couple", data_of(("base_stack", "train_set")), below="induce.stack")

    assert "induce.stack" in first.outputs()
    assert second.inputs() == {"trainer", "generator", "tokenizer", "plan", "induce.stack"}
    assert {"couple.train_set", "stack"} <= second.all_outputs()
