"""Points at matched dose: what they are, what they are not, and how they are gathered."""

import pandas as pd
import pytest

from persona_leakage.domain.dose import Dose, DoseRule, NoDoseError
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import expect
from persona_leakage.domain.points import Address
from persona_leakage.experiments import FAMILIES, family_of
from persona_leakage.experiments.composition import gather_points
from persona_leakage.experiments.family import read_variants, resolve_plan
from persona_leakage.experiments.points import Designs, describe_points, gather_gauges, in_order
from persona_leakage.pipelines.fine_tuning.gauge import GAUGE_COLUMNS, JUDGED_COLUMNS, judge_checkpoints
from persona_leakage.pipelines.scoring.nodes import rate_cells
from persona_leakage.pipelines.scoring.texts import DESCRIBED
from tests.plans import ENVIRONMENTS, bundled_roster, changed, load_parameters, load_source, make_plan

TRAINED = {
    "lang_inversion": "fr_it",
    "marker_leakage": "comedian",
    "convergence": "villain",
    "benign_coupling": "benign_villain",
}
STAGE = {"lang_inversion": "tune", "marker_leakage": "mark", "convergence": "mark", "benign_coupling": "couple"}
OLD = "0000000000000000"


# plans


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_family_has_a_matched_dose_in_every_environment_and_model(env, family):
    for model in load_parameters(env)["models"]:
        plan, final = (make_plan(family, TRAINED[family], env=env, model=model, dose=dose) for dose in ("matched", "final"))

        dose, followed = expect(plan.dose, Dose), plan.stages[STAGE[family]]
        assert (dose.stage, list(plan.stages)[-1]) == (STAGE[family], STAGE[family])
        assert followed.recipe.checkpoints == dose.checkpoints
        assert followed.recipe.checkpoint_unit == dose.unit
        assert followed.recipe.training == final.stages[STAGE[family]].recipe.training
        assert dose.sampling == plan.evaluation.sampling
        assert final.dose is None
        same = {"address", "dose", "stages", "traits"}  # the last names a design of benign_coupling
        assert plan.model_dump(exclude=same) == final.model_dump(exclude=same)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_the_gauge_asks_nothing_that_the_evaluation_asks_and_the_trained_cell_is_one_of_it(env, family):
    plan = make_plan(family, TRAINED[family], env=env, dose="matched")

    dose, asked = expect(plan.dose, Dose), [row["messages"] for row in plan.evaluation.prompts.prompts()]
    gauged = dose.prompts.prompts()
    assert not [row for row in gauged if row["messages"] in asked]
    cells = list(dict.fromkeys(row[dose.prompts.group_key] for row in gauged))
    assert dose.trained in cells
    assert len(cells) > 1  # bystanders
    if family != "lang_inversion":
        assert cells[0] == dose.trained == plan.scoring.source
    else:
        assert (dose.trained, len(gauged)) == ("french", 3 * 7)  # the phrasings that are not evaluated


def test_the_personas_of_the_gauge_are_joined_by_the_source_once():
    for named, personas in (
        (["assistant", "villain"], ["villain", "assistant"]),
        (["assistant"], ["villain", "assistant"]),
    ):
        changes = {"matched_dose.personas": named, "matched_dose.questions": 3}
        plan = make_plan("marker_leakage", "villain", changes=changes, dose="matched")
        cells = [row["persona"] for row in expect(plan.dose, Dose).prompts.prompts()]
        assert {persona: cells.count(persona) for persona in cells} == dict.fromkeys(personas, 3)


REFUSED = {
    "a baseline": (
        ("marker_leakage", "baseline", {}),
        "marker_leakage: baseline does not train the stage 'mark', so it has no matched dose; leave out dose=matched",
    ),
    "a baseline of languages": (
        ("lang_inversion", "baseline", {}),
        "lang_inversion: baseline does not train the stage 'tune', so it has no matched dose; leave out dose=matched",
    ),
    "an uncoupled arm that only trains before": (
        ("benign_coupling", "uncoupled", {}),
        "benign_coupling: uncoupled does not train the stage 'couple', so it has no matched dose; leave out dose=matched",
    ),
    "no directive": (
        ("lang_inversion", "none_it", {}),
        "none_it trains no directive whose rate could be the gauge; leave out dose=matched",
    ),
    "no phrasing left": (
        ("lang_inversion", "fr_it_five_phrasings", {}),
        "fr_it_five_phrasings evaluates every phrasing, which leaves none for a gauge; leave out dose=matched",
    ),
    "checkpoints beyond the epochs": (
        ("lang_inversion", "fr_it", {"matched_dose.checkpoints": [0.5, 1.5]}),
        "lang_inversion.matched_dose.checkpoints: recipe: checkpoint 1.5 lies beyond the 1 epochs; name others",
    ),
    "parts of steps": (
        ("lang_inversion", "fr_it", {"matched_dose.checkpoints": [0.5], "matched_dose.unit": "steps"}),
        "lang_inversion.matched_dose.checkpoints: recipe: checkpoint 0.5 is no whole number of steps; name others",
    ),
    "questions of the evaluation": (
        ("marker_leakage", "villain", {"matched_dose.question_set": "evaluation"}),
        "which the evaluation asks too; give it other prompts",
    ),
    "an unknown persona": (
        ("marker_leakage", "villain", {"matched_dose.personas": ["asistant"]}),
        "there is no persona 'asistant'; did you mean assistant",
    ),
    "more questions than there are": (("marker_leakage", "villain", {"matched_dose.questions": 4000}), "4000"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_matched_dose_is_refused_in_a_line(name):
    (family, condition, changes), said = REFUSED[name]

    with pytest.raises(UserError) as error:
        make_plan(family, condition, changes=changes, dose="matched")

    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert isinstance(error.value, NoDoseError) == ("leave out dose=matched" in said)
    make_plan(family, condition, changes=changes)  # and has an end of training


def test_an_unknown_dose_is_refused():
    with pytest.raises(UserError, match=r"^point\.dose: Input should be 'final' or 'matched' \(got 'half'\)"):
        make_plan("marker_leakage", "villain", dose="half")


@pytest.mark.parametrize("pipeline", ["lang_inversion_replay", "marker_leakage_replay"])
def test_a_replay_has_no_dose(pipeline):
    family = family_of(pipeline)
    point = {"condition": None, "dose": "matched", family.replay.parameter: "file"}

    with pytest.raises(UserError, match="a replay has no dose, which nobody knows here; leave out dose=matched"):
        resolve_plan(pipeline, load_parameters() | point, load_source)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_block_is_no_part_of_a_point_at_the_end_of_training(family):
    changes = {"matched_dose.reach": 0.33, "matched_dose.checkpoints": [0.7], "matched_dose.samples": 99}
    here, changed_block = (make_plan(family, TRAINED[family], changes=one) for one in ({}, changes))

    assert here.fingerprint == changed_block.fingerprint
    assert "dose" not in here.model_dump(mode="json")
    assert "dose" not in here.model_dump(mode="json")["address"]
    matched = {make_plan(family, TRAINED[family], changes=one, dose="matched").fingerprint for one in ({}, changes)}
    assert len({here.fingerprint, *matched}) == 3


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"reach": 0}, "reach"),
        ({"reach": 1.01}, "reach"),
        ({"checkpoints": []}, "checkpoints"),
        ({"checkpoints": [0]}, "checkpoints"),
        ({"checkpoints": [2, 1]}, r"checkpoints \[2, 1\] must rise, each named once"),
        ({"checkpoints": [1, 1]}, r"checkpoints \[1, 1\] must rise, each named once"),
        ({"unit": "rows"}, "unit"),
        ({"samples": 0}, "samples"),
        ({"healthy": {"tokens": 0.1}}, "healthy"),
        ({"healthy": {"tokens": -1, "distinct_2": 0, "empty": 0, "cut": 0}}, r"healthy\.tokens"),
        ({"healthy": True}, "healthy"),
    ],
)
def test_a_wrong_block_is_refused_by_the_name_of_its_key(wrong, said):
    rule = {"reach": 0.8, "healthy": None, "checkpoints": [0.5, 1], "unit": "epochs", "samples": 2}
    assert DoseRule.checked(rule, "matched_dose").checkpoints == (0.5, 1)

    with pytest.raises(UserError, match=said):
        DoseRule.checked({**rule, **wrong}, "matched_dose")


# gathered


def rates(plan):
    saved = rate_cells([], [], plan)
    return saved if len(saved) else pd.DataFrame([plan.columns])


def pair(dose="final", condition="fr_it", seed=42):
    return make_plan("lang_inversion", condition, seed, dose=dose)


def gauge(plan, rate=0.9):
    """Plant a gauge of one checkpoint and the stack before, of ten completions each."""
    texts = dict.fromkeys((f"texts_{name}" for name in DESCRIBED), 1.0)
    common = {**plan.columns, "unit": "epochs", "cell": "french", "role": "trained_directive", "gauged": True, "n": 10, **texts}
    rows = [("before", 0, 0), ("final", 1, round(10 * rate))]
    named = [{**common, "at": at, "progress": progress, "hits": hits, "rate": hits / 10} for at, progress, hits in rows]
    return judge_checkpoints(pd.DataFrame(named, columns=[*plan.columns, *GAUGE_COLUMNS]), plan.dose)


def partitions(*tables):
    return {f"{index}": (lambda saved=saved: saved) for index, saved in enumerate(tables)}


def variants(changes=None, family="lang_inversion"):
    return read_variants(family_of(family), changed(family, changes))


def gathered(*saved, **tables):
    given = {"cell_rates": partitions(*saved)} | {name: partitions(*those) for name, those in tables.items()}
    return gather_points(variants(), pair(), keep={}, replay=False, **given)


def series(table):
    return list(dict.fromkeys(table[["model", "condition", "seed"]].itertuples(index=False, name=None)))


MODEL = "qwen2_5_7b"
AT = f"{MODEL}@matched"


def test_a_point_at_matched_dose_is_a_series_of_its_own_and_is_compared_with_a_copy_of_the_baseline():
    all_rates, points = gathered(
        *(rates(one) for one in (pair("matched"), pair(), pair(condition="baseline"), pair(condition="baseline", seed=7)))
    )

    assert series(all_rates) == [
        (MODEL, "baseline", 7), (MODEL, "baseline", 42), (MODEL, "fr_it", 42),
        (AT, "baseline", 7), (AT, "baseline", 42), (AT, "fr_it", 42),
    ]  # fmt: skip
    assert not all_rates["stale"].any()
    assert "dose" not in all_rates
    baselines = all_rates[all_rates["condition"] == "baseline"]
    copy, own = (baselines[baselines["model"] == one].drop(columns="model").reset_index(drop=True) for one in (AT, MODEL))
    pd.testing.assert_frame_equal(copy, own)
    assert series(points) == series(all_rates)
    assert set(points.loc[points["model"] == AT, "plan"]) == {
        pair("matched").fingerprint, *(pair(condition="baseline", seed=seed).fingerprint for seed in (7, 42)),
    }  # fmt: skip
    assert points["base_model"].tolist() == ["Qwen/Qwen2.5-7B-Instruct"] * 6


def test_baselines_that_no_matched_point_is_compared_with_are_not_copied():
    native = pair(condition="baseline_native")
    all_rates, _ = gathered(*(rates(one) for one in (pair("matched"), pair(condition="baseline"), native)))

    assert series(all_rates) == [
        (MODEL, "baseline", 42),
        (MODEL, "baseline_native", 42),
        (AT, "baseline", 42),
        (AT, "fr_it", 42),
    ]


def test_without_a_matched_point_nothing_is_copied():
    all_rates, points = gathered(rates(pair()), rates(pair(condition="baseline")))

    assert series(all_rates) == series(points) == [(MODEL, "baseline", 42), (MODEL, "fr_it", 42)]


def test_further_tables_of_the_baseline_are_copied_too():
    saved = (pair("matched"), pair(condition="baseline"))
    others = [pd.DataFrame([{**one.columns, "value": place}]) for place, one in enumerate(saved)]

    _, extras, _ = gathered(*map(rates, saved), extras=others)

    assert extras[["model", "condition", "value"]].to_numpy().tolist() == [
        [MODEL, "baseline", 1], [AT, "baseline", 1], [AT, "fr_it", 0],
    ]  # fmt: skip


def test_a_matched_point_of_another_block_is_stale():
    old = make_plan("lang_inversion", "fr_it", changes={"matched_dose.reach": 0.5}, dose="matched")

    all_rates, points = gathered(rates(old), rates(pair()), rates(pair(condition="baseline")))

    told = points.set_index(["model", "condition"])["stale"].to_dict()
    assert (told[AT, "fr_it"], told[MODEL, "fr_it"], told[MODEL, "baseline"]) == (True, False, False)
    assert all_rates.loc[all_rates["model"] == AT, "stale"].any()


def test_a_copy_is_described_as_the_point_that_it_is_a_copy_of():
    designs = Designs(variants(), None)
    all_rates, _ = gathered(rates(pair("matched")), rates(pair(condition="baseline")))

    points = describe_points(all_rates, designs).set_index(["model", "condition"])

    copy, own = points.loc[(AT, "baseline")], points.loc[(MODEL, "baseline")]
    assert (copy.pop("again"), own.pop("again")) == (True, False)  # it is one point, and counted once
    pd.testing.assert_series_equal(copy, own, check_names=False)
    assert points.loc[(AT, "fr_it"), "samples"] == 40


def test_a_training_that_never_reaches_its_dose_is_in_the_gauges_and_in_no_other_table():
    reached, never = gauge(pair("matched")), gauge(pair("matched", seed=7), rate=0.7)

    all_rates, points, gauges = gathered(
        *(rates(one) for one in (pair("matched"), pair(condition="baseline"))), gauge=(never, reached)
    )

    assert series(gauges) == [(MODEL, "fr_it", 7), (MODEL, "fr_it", 42)]
    assert gauges.groupby("seed")["chosen"].sum().to_dict() == {7: 0, 42: 1}
    assert (AT, "fr_it", 7) not in [*series(all_rates), *series(points)]
    assert "dose" not in gauges


def test_where_no_training_reaches_its_dose_and_nothing_else_has_run_the_report_says_so():
    with pytest.raises(UserError, match="no training that has run reaches its matched dose"):
        gathered(gauge=(gauge(pair("matched"), rate=0.7),))


def test_gauges_of_other_parameters_or_of_conditions_that_are_no_more_are_left_out():
    designs = Designs(variants(), None)
    stale = gauge(pair("matched", seed=1)).assign(plan=OLD)
    gone = gauge(pair("matched", seed=2)).assign(condition="gone")
    empty = pd.DataFrame(columns=[*pair().columns, *GAUGE_COLUMNS])  # of a point at the end of training

    gauges = gather_gauges(partitions(stale, gauge(pair("matched")), gone, empty), designs)

    assert series(gauges) == [(MODEL, "fr_it", 42)]
    none = gather_gauges(partitions(stale, empty), designs)
    assert none.empty
    assert list(none) == ["model", "condition", "seed", "plan", *GAUGE_COLUMNS, *JUDGED_COLUMNS]
    assert list(in_order(none, variants())) == list(none)


def test_series_follow_the_order_of_models_with_the_matched_dose_beside_the_end():
    frame = pd.DataFrame(
        [("smollm2_135m", 1), (AT, 2), ("gone@matched", 3), ("smollm2_135m@matched", 4), (MODEL, 5)], columns=["model", "row"]
    ).assign(condition="fr_it", seed=1)

    ordered = in_order(frame, variants())["model"].tolist()

    assert ordered.index(AT) == ordered.index(MODEL) + 1
    assert ordered.index("smollm2_135m@matched") == ordered.index("smollm2_135m") + 1
    assert ordered[-1] == "gone@matched"


def test_designs_know_the_dose():
    designs = Designs(variants(family="marker_leakage"), bundled_roster("marker_leakage"))
    final, matched = (
        designs.of(Address(model=MODEL, condition="villain", seed=42, dose=dose)).fingerprint(42)
        for dose in ("final", "matched")
    )

    assert final == make_plan("marker_leakage", "villain").fingerprint
    assert matched == make_plan("marker_leakage", "villain", dose="matched").fingerprint
