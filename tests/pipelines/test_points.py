import numpy as np
import pandas as pd
import pytest
from kedro.config import OmegaConfigLoader
from kedro.io import AbstractDataset

from persona_leakage.domain.centroids import Centroids
from persona_leakage.domain.frozen import fingerprint
from persona_leakage.experiments.lang_inversion import annotated, gather_points, gather_replays
from persona_leakage.experiments.points import conditions_in_order, gather, unannotated
from persona_leakage.pipelines.geometry.nodes import compare_centroids
from persona_leakage.settings import CONFIG_LOADER_ARGS
from tests.pipelines.tables import cell, plan_of, table
from tests.plans import PROJECT, base_model, load_settings


def cosines(condition, seed=42, plan=None):
    return pd.DataFrame(
        [(condition, seed, plan or plan_of(condition, seed).fingerprint, 20, "spanish", "italian", 0.25)],
        columns=["condition", "seed", "plan", "layer", "one", "other", "cosine"],
    )


def rates(condition, seed=42, plan=None):
    saved = table(cell(condition, "spanish", label_italian=(2, 80), seed=seed)).drop(
        columns=["reference", "completion", "stale", "distance"]
    )
    return saved if plan is None else saved.assign(plan=plan)


def gathered(*tables, annotate=annotated):
    partitions = {f"{index}": (lambda saved=saved: saved) for index, saved in enumerate(tables)}
    return gather(partitions, plan_of, annotate)


def of_condition(frame, condition):
    (row,) = frame[frame["condition"] == condition][["reference", "completion", "stale"]].drop_duplicates().to_numpy().tolist()
    return row


def test_current_points_get_their_reference_and_completion_language():
    frame = gathered(rates("fr_it"), rates("fr_it_native"), rates("baseline"))

    assert of_condition(frame, "fr_it") == ["baseline", "italian", False]
    assert of_condition(frame, "fr_it_native") == ["baseline_native", "italian", False]
    reference, completion, stale = of_condition(frame, "baseline")
    assert (reference, pd.isna(completion), stale) == ("baseline", True, False)


def test_a_point_that_ran_under_other_parameters_is_stale():
    frame = gathered(rates("fr_it", plan="0000000000000000"), rates("es_en"))

    assert of_condition(frame, "fr_it") == ["baseline", "italian", True]
    assert of_condition(frame, "es_en") == ["baseline", "english", False]


def test_a_point_whose_condition_is_no_longer_known_is_stale():
    gone = rates("fr_it").assign(condition="gone")

    reference, completion, stale = of_condition(gathered(gone, rates("fr_it")), "gone")

    assert (pd.isna(reference), pd.isna(completion), stale) == (True, True, True)


def test_each_seed_is_compared_with_its_own_plan():
    frame = gathered(rates("fr_it", seed=42), rates("fr_it", seed=43, plan=plan_of("fr_it", 42).fingerprint))

    assert dict(zip(frame["seed"], frame["stale"], strict=True)) == {42: False, 43: True}


def test_no_row_is_lost():
    frame = gathered(rates("fr_it"), rates("es_en"))

    assert frame[["condition", "metric", "hits", "n"]].to_numpy().tolist() == [
        ["fr_it", "following", 0, 0],
        ["fr_it", "label:italian", 2, 80],
        ["es_en", "following", 0, 0],
        ["es_en", "label:italian", 2, 80],
    ]


def test_cosines_keep_the_set_they_were_centred_on():
    centroids = Centroids(("spanish", "italian"), {20: np.array([[1.0, 0.0], [0.0, 1.0]])}, "stack")

    plan = plan_of("fr_it", 42)

    frame = gathered(compare_centroids(centroids, plan), annotate=unannotated)

    assert fingerprint(["spanish", "italian"], plan.geometry.prompts) in frame.iloc[0].tolist()


def test_a_point_with_an_empty_table_does_not_stop_the_report():
    empty = cosines("baseline").iloc[:0]

    assert gathered(empty, cosines("fr_it"), annotate=unannotated)["condition"].tolist() == ["fr_it"]


def test_rows_follow_the_order_of_the_conditions_and_the_unknown_come_last():
    frame = pd.DataFrame(
        [("gone", 1, 0), ("fr_it", 43, 1), ("fr_it", 42, 2), ("baseline", 42, 3), ("fr_it", 42, 4)],
        columns=["condition", "seed", "row"],
    )

    assert conditions_in_order(frame, ["baseline", "es_en", "fr_it"])["row"].tolist() == [3, 2, 4, 1, 0]


def test_rates_and_cosines_of_the_family_are_gathered_in_its_order():
    all_rates, all_cosines = gather_points(
        {"a": lambda: rates("fr_it"), "b": lambda: rates("baseline")},
        {"a": lambda: cosines("fr_it"), "b": lambda: cosines("baseline", plan="0000000000000000")},
        base_model(),
        load_settings(),
    )

    assert list(dict.fromkeys(all_rates["condition"])) == ["baseline", "fr_it"]
    assert dict(zip(all_cosines["condition"], all_cosines["stale"], strict=True)) == {"baseline": True, "fr_it": False}


def test_replays_get_their_reference_and_completion_language():
    all_rates, all_cosines = gather_replays({"a": lambda: rates("fr_it", plan="0" * 16)}, base_model(), load_settings())

    assert of_condition(all_rates, "fr_it") == ["baseline", "italian", False]
    assert (len(all_cosines), {"centring", "reference", "stale"} <= set(all_cosines.columns)) == (0, True)


def test_a_replay_whose_condition_is_no_longer_known_is_stale():
    gone = rates("fr_it").assign(condition="gone")

    all_rates, _ = gather_replays({"a": lambda: gone}, base_model(), load_settings())

    assert set(all_rates["stale"]) == {True}


@pytest.mark.parametrize("entry", ["cell_rates", "cosines"])
@pytest.mark.parametrize("plan", ["0123456789012345", "1234567890123456", "12345678901234e5"])
def test_a_fingerprint_that_looks_like_a_number_is_read_back_as_it_was(tmp_path, entry, plan):
    catalog = OmegaConfigLoader(str(PROJECT / "conf"), env="base", **CONFIG_LOADER_ARGS)["catalog"]
    saved = rates("fr_it", plan=plan) if entry == "cell_rates" else cosines("fr_it", plan=plan)
    saved.to_csv(tmp_path / "x.csv", index=False)
    dataset = catalog["{family}." + entry + "@grid"]["dataset"]

    loaded = AbstractDataset.from_config("table", {**dataset, "filepath": str(tmp_path / "x.csv")}).load()

    assert set(loaded["plan"]) == {plan}
