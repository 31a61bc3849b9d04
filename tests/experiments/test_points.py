"""Saved points against the parameters of now."""

import logging
import re

import numpy as np
import pandas as pd
import pytest
from kedro.io import AbstractDataset

from persona_leakage.configuration import ModelConfigLoader
from persona_leakage.domain.centroids import Centroids
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import fingerprint
from persona_leakage.domain.points import Address
from persona_leakage.experiments import family_of
from persona_leakage.experiments.composition import gather_points
from persona_leakage.experiments.family import plan_point, read_variants
from persona_leakage.experiments.points import Designs, describe_points, gather, gather_tables, in_order
from persona_leakage.pipelines.fine_tuning.nodes import describe_training
from persona_leakage.pipelines.geometry.nodes import compare_centroids
from persona_leakage.pipelines.reporting.opening import origin
from persona_leakage.pipelines.scoring.nodes import rate_cells
from persona_leakage.settings import CONFIG_LOADER_ARGS
from tests import plans
from tests.experiments.lang_inversion.plans import load_variants, make_plan, make_replay
from tests.plans import PROJECT, bundled_roster, changed

MODEL, OTHER = "qwen2_5_7b", "smollm2_135m"
OLD = "0000000000000000"


def rates(condition, seed=42, plan=None, model=MODEL):
    saved = rate_cells([], [], make_plan(condition, seed, model=model))
    return saved if plan is None else saved.assign(plan=plan)


def cosines(condition, seed=42, plan=None):
    now = make_plan(condition, seed)
    centroids = Centroids(("spanish", "italian"), {20: np.array([[1.0, 0.0], [0.0, 1.0]])}, "stack")
    saved = compare_centroids(centroids, now)
    return saved if plan is None else saved.assign(plan=plan)


def partitions(*tables):
    return {f"{index}": (lambda saved=saved: saved) for index, saved in enumerate(tables)}


def everything(table, now):
    return table


def gathered(*tables, keep=everything, replay=False):
    return gather(partitions(*tables), Designs(load_variants(), None), keep, replay=replay)


def of_condition(frame, condition):
    (row,) = frame[frame["condition"] == condition][["reference", "stale"]].drop_duplicates().to_numpy().tolist()
    return row


def stale_of(frame, *keys):
    return dict(zip(frame[list(keys)].itertuples(index=False, name=None), frame["stale"], strict=True))


# stale or current


def test_current_points_get_their_reference():
    frame = gathered(rates("fr_it"), rates("fr_it_native"), rates("baseline"))

    assert of_condition(frame, "fr_it") == ["baseline", False]
    assert of_condition(frame, "fr_it_native") == ["baseline_native", False]
    assert of_condition(frame, "baseline") == ["baseline", False]


def test_a_point_that_ran_under_other_parameters_is_stale():
    frame = gathered(rates("fr_it", plan=OLD), rates("es_en"))

    assert of_condition(frame, "fr_it") == ["baseline", True]
    assert of_condition(frame, "es_en") == ["baseline", False]


def test_a_point_whose_condition_is_no_longer_known_is_stale():
    gone = rates("fr_it").assign(condition="gone")

    reference, stale = of_condition(gathered(gone, rates("fr_it")), "gone")

    assert (pd.isna(reference), stale) == (True, True)


def test_a_point_whose_model_is_no_longer_known_is_stale():
    frame = gathered(rates("fr_it").assign(model="gone"), rates("fr_it"))

    assert stale_of(frame, "model") == {("gone",): True, (MODEL,): False}


def test_each_seed_is_compared_with_its_own_plan():
    frame = gathered(rates("fr_it", seed=42), rates("fr_it", seed=43, plan=make_plan("fr_it", 42).fingerprint))

    assert stale_of(frame, "seed") == {(42,): False, (43,): True}


def test_each_model_is_compared_with_its_own_plan():
    mistaken = rates("fr_it", model=OTHER, plan=make_plan("fr_it", model=MODEL).fingerprint)

    frame = gathered(rates("fr_it", model=MODEL), rates("fr_it", model=OTHER), mistaken.assign(seed=43))

    assert stale_of(frame, "model", "seed") == {(MODEL, 42): False, (OTHER, 42): False, (OTHER, 43): True}


def test_each_checkpoint_is_compared_with_its_own_plan():
    variants, roster = variants_of("convergence"), bundled_roster("convergence")
    at_2 = plans.make_plan("convergence", "villain", checkpoint=2)
    saved = [pd.DataFrame([{**at_2.columns, "checkpoint": epoch, "hits": 1}]) for epoch in (2, 4, 3)]

    frame = gather(partitions(*saved), Designs(variants, roster), everything)

    assert stale_of(frame, "checkpoint") == {(2,): False, (4,): True, (3,): True}  # nobody stops at epoch 3


def test_no_row_is_lost_and_the_columns_of_the_points_stay():
    saved = [rates("fr_it"), rates("es_en")]

    frame = gathered(*saved)

    pd.testing.assert_frame_equal(frame.drop(columns=["reference", "stale"]), pd.concat(saved, ignore_index=True))


def test_cosines_keep_the_set_they_were_centred_on():
    frame = gathered(cosines("fr_it"))

    assert frame["centring"].tolist() == [fingerprint(["spanish", "italian"], make_plan("fr_it").geometry.prompts)]


def test_a_point_with_an_empty_table_does_not_stop_the_report():
    assert gathered(cosines("baseline").iloc[:0], cosines("fr_it"))["condition"].tolist() == ["fr_it"]


def test_tables_that_are_all_empty_keep_their_columns():
    frame = gathered(cosines("baseline").iloc[:0])

    assert (len(frame), {"condition", "cosine", "reference", "stale"} <= set(frame)) == (0, True)


def test_a_point_that_is_older_than_the_models_is_left_out_and_the_log_names_it(caplog):
    caplog.set_level(logging.WARNING)

    frame = gathered(rates("fr_it").drop(columns="model"), rates("es_en"))

    assert set(frame["condition"]) == {"es_en"}
    assert caplog.messages == ["0 is left out: it is older than the model in a point's name; run the point again"]


def test_where_every_point_is_older_nothing_has_run():
    with pytest.raises(UserError, match="no point has run"):
        gathered(rates("fr_it").drop(columns="model"))


def test_replays_are_stale_only_where_their_condition_is_no_longer_known():
    frame = gathered(rates("fr_it", plan=OLD), rates("es_en", plan=OLD).assign(condition="gone"), replay=True)

    assert of_condition(frame, "fr_it") == ["baseline", False]
    assert frame.loc[frame["condition"] == "gone", "stale"].all()


def test_rows_are_chosen_by_what_their_point_is_now():
    def of_own_language(table, now):
        return table.iloc[:0] if now is None else table[table["directive_language"] == now.scoring.completion]

    frame = gathered(rates("fr_it"), rates("es_en").assign(condition="gone"), keep=of_own_language)

    assert set(zip(frame["condition"], frame["directive_language"], strict=True)) == {("fr_it", "italian")}


def test_rows_of_a_further_table_are_chosen_by_the_sources_and_personas_of_all_rates():
    given = []

    def of_spanish(table, now, rates):
        given.append(rates.to_numpy().tolist())
        return table[table["one"] == "spanish"]

    rated = [
        rates(condition).assign(source=source, persona=persona)
        for condition, source, persona in [
            ("fr_it", "villain", "hero"),
            ("es_en", "villain", "hero"),
            ("it_fr", "hero", "hero"),
        ]
    ]
    of_others = [cosines(condition).assign(one="german") for condition in ("es_en", "it_fr")]
    tables = {"cell_rates": partitions(*rated), "cosines": partitions(cosines("fr_it"), *of_others)}

    all_rates, all_cosines = gather_tables(tables, Designs(load_variants(), None), {"cosines": of_spanish})

    assert given == [[["villain", "hero"], ["hero", "hero"]]] * 3
    assert len(all_rates) == sum(map(len, rated))
    assert all_cosines["condition"].tolist() == ["fr_it"]


def test_a_table_that_nobody_chooses_rows_of_is_gathered_whole():
    tables = {"cell_rates": partitions(rates("fr_it")), "cosines": partitions(cosines("fr_it"), cosines("es_en"))}

    _, all_cosines = gather_tables(tables, Designs(load_variants(), None), {})

    assert all_cosines["condition"].tolist() == ["fr_it", "es_en"]


# order


def test_rows_follow_the_order_of_models_and_conditions_and_the_unknown_come_last():
    frame = pd.DataFrame(
        [
            (MODEL, "gone", 1, 0),
            ("lost", "baseline", 1, 1),
            (OTHER, "baseline", 42, 2),
            (MODEL, "fr_it", 43, 3),
            (MODEL, "fr_it", 42, 4),
            (MODEL, "baseline", 42, 5),
            (MODEL, "fr_it", 42, 6),
        ],
        columns=["model", "condition", "seed", "row"],
    )

    ordered = in_order(frame, load_variants())

    assert ordered["row"].tolist() == [5, 4, 6, 3, 0, 2, 1]
    assert list(ordered.columns) == list(frame.columns)


def test_rows_of_a_seed_follow_its_checkpoints():
    frame = pd.DataFrame([(2, 10), (1, 4), (2, 2), (1, 12)], columns=["seed", "checkpoint"])

    ordered = in_order(frame.assign(model=MODEL, condition="fr_it"), load_variants())

    assert ordered[["seed", "checkpoint"]].to_numpy().tolist() == [[1, 4], [1, 12], [2, 2], [2, 10]]


# designs


def variants_of(family, changes=None):
    return read_variants(family_of(family), changed(family, changes))


ADDRESSES = [
    ("lang_inversion", "fr_it", None),
    ("lang_inversion", "baseline", None),
    ("marker_leakage", "villain", None),
    ("convergence", "villain", 0),
    ("convergence", "villain", 4),
    ("benign_coupling", "benign_paramedic", None),
    ("benign_coupling", "uncoupled", None),
]


@pytest.mark.parametrize(("family", "condition", "checkpoint"), ADDRESSES)
def test_one_design_tells_the_fingerprints_of_all_seeds(family, condition, checkpoint):
    variants, roster = variants_of(family), bundled_roster(family)
    designs = Designs(variants, roster)

    for seed in (0, 1, 42, 137, 1_000_003):
        plan = plan_point(MODEL, condition, seed, checkpoint, "final", variants, roster)
        design = designs.of(plan.address)
        assert (design.identity, design.fingerprint(seed)) == (plan.design, plan.fingerprint)
        assert plan.columns["plan"] == plan.fingerprint


def test_a_design_is_resolved_once_whatever_the_seed():
    designs = Designs(load_variants(), None)
    one, other = (designs.of(Address(model=MODEL, condition="fr_it", seed=seed)) for seed in (1, 2))

    assert one is other


def test_different_seeds_models_conditions_and_checkpoints_have_different_fingerprints():
    pairs = [
        make_plan(condition, seed, model=model)
        for condition in ("fr_it", "it_fr")
        for seed in (0, 1, 42)
        for model in (MODEL, OTHER)
    ]
    epochs = [plans.make_plan("convergence", "villain", seed, checkpoint=epoch) for seed in (1, 2) for epoch in (0, 2, 4)]

    assert len({plan.fingerprint for plan in [*pairs, *epochs]}) == 12 + 6
    assert len({plan.design for plan in [*pairs, *epochs]}) == 4 + 3


def test_two_models_that_differ_in_their_names_alone_do_not_share_a_fingerprint():
    one = make_plan()
    other = one.model_copy(update={"address": one.address.model_copy(update={"model": "twin"})})

    assert one.fingerprint != other.fingerprint


def test_what_a_point_is_compared_with_is_no_part_of_it():
    plan = make_plan()

    assert plan.reference == "baseline"
    assert plan.model_copy(update={"reference": None}).fingerprint == plan.fingerprint


def test_what_makes_a_missing_model_is_no_part_of_a_point():
    plan = make_plan()
    made = plan.base_model.model_copy(update={"made_by": "python -m somebody"})

    assert plan.model_copy(update={"base_model": made}).fingerprint == plan.fingerprint


def test_an_unknown_model_lists_the_known_ones():
    variants = load_variants()

    with pytest.raises(UserError, match=f"there is no model 'gpt'; known: {', '.join(variants.models)}; name it in"):
        Designs(variants, None).of(Address(model="gpt", condition="fr_it", seed=1))


# what points were made with


def test_a_current_point_says_what_its_numbers_were_made_with():
    designs = Designs(load_variants(), None)

    (row,) = describe_points(gathered(rates("fr_it")), designs).to_dict("records")

    plan = make_plan("fr_it")
    assert pd.isna(row.pop("trained"))  # nothing says what it was trained on
    assert row == {
        **plan.columns,
        "reference": "baseline",
        "stale": False,
        "again": False,
        "shared": "tune: texts",
        "base_model": "Qwen/Qwen2.5-7B-Instruct",
        "revision": plan.base_model.revision,
        "dtype": "bfloat16",
        "samples": 40,
        "temperature": 1.0,
        "top_p": 0.95,
        "max_tokens": 256,
        "prompts": 14,
        "evaluated_groups": 7,
        "prompts_a_group": 2,
        "groups": 7,
        "centroid_prompts": 14,
        "unevaluated_groups": 0,
        "headline_layer": 20,
    }


def test_groups_that_have_a_centroid_only_are_counted():
    changes = {"evaluation.personas": ["villain", "hero", "pirate"], "evaluation.questions": 5}
    plan = plans.make_plan("marker_leakage", "villain", changes=changes)
    table = pd.DataFrame([{**plan.columns, "reference": "baseline", "stale": False}])

    (row,) = describe_points(
        table, Designs(variants_of("marker_leakage", changes), bundled_roster("marker_leakage"))
    ).itertuples()

    assert (row.prompts, row.evaluated_groups, row.prompts_a_group) == (15, 3, 5)
    assert (row.groups, row.centroid_prompts, row.unevaluated_groups) == (111, 2220, 108)


def test_a_point_is_described_once_and_a_stale_one_without_what_it_was_made_with():
    designs = Designs(load_variants(), None)
    frame = gathered(rates("fr_it"), rates("fr_it", seed=43, plan=OLD), rates("fr_it").assign(condition="gone"))

    points = describe_points(frame, designs)

    assert points[["condition", "seed", "stale"]].to_numpy().tolist() == [
        ["fr_it", 42, False],
        ["fr_it", 43, True],
        ["gone", 42, True],
    ]
    assert points["base_model"].isna().tolist() == points["samples"].isna().tolist() == [False, True, True]


def test_without_designs_nothing_is_known_but_the_points():
    points = describe_points(gathered(rates("fr_it"), replay=True), None)

    assert (len(points), points["condition"].item(), points["base_model"].isna().all()) == (1, "fr_it", True)


# the node


def test_rates_cosines_and_points_of_a_family_are_gathered_in_its_order():
    all_rates, all_cosines, points = gather_points(
        load_variants(),
        make_plan("fr_it"),
        keep={},
        replay=False,
        cell_rates=partitions(rates("fr_it"), rates("baseline"), rates("fr_it", model=OTHER)),
        cosines=partitions(cosines("fr_it"), cosines("baseline", plan=OLD), cosines("fr_it").assign(model=OTHER)),
    )

    assert list(dict.fromkeys(all_rates[["model", "condition"]].itertuples(index=False, name=None))) == [
        (MODEL, "baseline"),
        (MODEL, "fr_it"),
        (OTHER, "fr_it"),
    ]
    assert stale_of(all_cosines[all_cosines["model"] == MODEL], "condition") == {("baseline",): True, ("fr_it",): False}
    assert points[["model", "condition", "headline_layer"]].to_numpy().tolist() == [
        [MODEL, "baseline", 20],
        [MODEL, "fr_it", 20],
        [OTHER, "fr_it", 20],
    ]
    assert points["replayed_file"].isna().all()


def test_where_no_point_is_current_nothing_is_reported_over_an_earlier_report():
    saved = partitions(rates("fr_it", plan=OLD), rates("baseline", plan=OLD))

    with pytest.raises(UserError, match="every saved point of lang_inversion ran under other parameters than now"):
        gather_points(load_variants(), make_plan("fr_it"), keep={}, replay=False, cell_rates=saved)


def test_a_current_point_that_lacks_a_table_is_named_and_a_stale_one_is_not_missed():
    rated = partitions(rates("fr_it"), rates("baseline"), rates("es_en", plan=OLD))

    def gathered_with(saved):
        return gather_points(load_variants(), make_plan("fr_it"), keep={}, replay=False, cell_rates=rated, cosines=saved)

    for saved, lacking in (({}, 3), (partitions(cosines("fr_it")), 2)):
        with pytest.raises(UserError, match=f"^{lacking} saved points, . among them, have no cosines.csv, .*--tags=scoring"):
            gathered_with(saved)
    _, found, _ = gathered_with(partitions(cosines("fr_it"), cosines("baseline")))
    assert set(found["condition"]) == {"fr_it", "baseline"}
    with pytest.raises(UserError, match="every saved point of lang_inversion ran under other parameters"):
        gather_points(
            load_variants(),
            make_plan("fr_it"),
            keep={},
            replay=False,
            cell_rates=partitions(rates("fr_it", plan=OLD)),
            cosines={},
        )


def test_points_say_what_their_own_plan_was_trained_on():
    def trained(condition, rows, seed=42):
        logs = {"tune": {"final": {"rows": rows, "left_out": 1, "trainable_parameters": 80_740_352}}}
        return describe_training(make_plan(condition, seed), **(logs if condition != "baseline" else {"tune": {}}))

    *_, points = gather_points(
        load_variants(),
        make_plan("fr_it"),
        keep={},
        replay=False,
        cell_rates=partitions(*(rates(condition, seed) for condition in ("baseline", "fr_it", "es_en") for seed in (42, 7))),
        trainings=partitions(trained("baseline", 0), trained("fr_it", 4999), trained("fr_it", 4998, 7), trained("es_en", 9, 8)),
    )

    said = points.set_index(["condition", "seed"])["trained"]
    assert said.dropna().to_dict() == {
        ("fr_it", 42): "tune: 4,999 rows, 80,740,352 parameters",
        ("fr_it", 7): "tune: 4,998 rows, 80,740,352 parameters",
    }
    (sentence,) = re.findall("Trained: .*", origin(points))
    assert sentence == ("Trained: tune: 4,998 rows, 80,740,352 parameters, or tune: 4,999 rows, 80,740,352 parameters.")


def test_points_of_a_replay_name_its_file():
    saved = partitions(rates("fr_it", plan=OLD))

    all_rates, points = gather_points(
        load_variants(), make_replay(file="outside.jsonl"), keep={}, replay=True, cell_rates=saved
    )

    assert of_condition(all_rates, "fr_it") == ["baseline", False]
    assert points["replayed_file"].tolist() == ["outside.jsonl"]


@pytest.mark.parametrize("plan", ["0123456789012345", "1234567890123456", "12345678901234e5"])
@pytest.mark.parametrize("table", ["cell_rates", "cosines"])
def test_a_fingerprint_that_looks_like_a_number_is_read_back_as_it_was(tmp_path, table, plan):
    catalog = ModelConfigLoader(str(PROJECT / "conf"), env="base", **CONFIG_LOADER_ARGS)["catalog"]
    saved = rates("fr_it", plan=plan) if table == "cell_rates" else cosines("fr_it", plan=plan)
    saved.to_csv(tmp_path / "x.csv", index=False)
    dataset = catalog["{family}.{table}@grid"]["dataset"]

    loaded = AbstractDataset.from_config("table", {**dataset, "filepath": str(tmp_path / "x.csv")}).load()

    assert set(loaded["plan"]) == {plan}
