"""Two base models in one report never mix."""

import pandas as pd
import pytest

from persona_leakage.domain.frozen import Frozen
from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.variants import Variant, Variants
from persona_leakage.experiments.lang_inversion.report import write_report
from persona_leakage.experiments.lang_inversion.tables import judge_claims, tabulate_spill
from persona_leakage.pipelines.reporting.by_model import for_each_model, name_models
from tests.experiments.lang_inversion.plans import load_variants
from tests.experiments.lang_inversion.planted_tables import cell, contaminations, table

BIG, SMALL = "qwen2_5_7b", "smollm2_135m"


class Limit(Frozen):
    limit: int


def limits(**by_model):
    base = BaseModel(source="folder", name="x", revision="1")
    return Variants[Limit](
        models={name: Variant[Limit](base_model=base, settings=Limit(limit=limit)) for name, limit in by_model.items()}
    )


def counts(*rows):
    return pd.DataFrame(rows, columns=["model", "condition", "hits"])


def total(counts):
    return counts.groupby("condition", sort=False)[["hits"]].sum().reset_index()


def of_model(rates, model):
    return rates.assign(model=model)


def both(*rates):
    return pd.concat([of_model(one, model) for one, model in zip(rates, (BIG, SMALL), strict=True)], ignore_index=True)


# tables


def test_each_model_is_counted_by_itself_and_comes_first():
    found = for_each_model(total)(counts(("a", "x", 1), ("b", "x", 10), ("a", "x", 2), ("b", "y", 20)))

    assert list(found.columns) == ["model", "condition", "hits"]
    assert found.to_numpy().tolist() == [["a", "x", 3], ["b", "x", 10], ["b", "y", 20]]


def test_every_table_is_cut_to_the_model_and_one_without_models_is_handed_over_whole():
    seen = []

    def join(rates, published, *, label):
        seen.append((rates["hits"].tolist(), published["hits"].tolist(), label, "model" in rates))
        return rates

    for_each_model(join)(counts(("a", "x", 1), ("b", "x", 2)), pd.DataFrame({"hits": [7, 8]}), label="l")

    assert seen == [([1], [7, 8], "l", False), ([2], [7, 8], "l", False)]


def test_each_model_is_given_its_own_settings():
    def over_limit(counts, settings):
        return counts[counts["hits"] > settings.limit]

    rows = counts(("a", "x", 5), ("a", "y", 7), ("b", "x", 5), ("b", "y", 7))

    found = for_each_model(over_limit)(rows, limits(a=6, b=4))

    assert found.to_numpy().tolist() == [["a", "y", 7], ["b", "x", 5], ["b", "y", 7]]


def test_a_model_that_is_no_longer_known_has_no_settings_and_no_rows():
    def everything(counts, settings):
        return counts

    found = for_each_model(everything)(counts(("gone", "x", 1), ("a", "x", 2)), limits(a=0))

    assert found.to_numpy().tolist() == [["a", "x", 2]]


@pytest.mark.parametrize("variants", [[], [limits(a=1)]], ids=["without settings", "with settings"])
def test_without_rows_the_columns_stay(variants):
    def everything(counts, settings=None):
        return counts

    found = for_each_model(everything)(counts(), *variants)

    assert (len(found), list(found.columns)) == (0, ["model", "condition", "hits"])


def test_a_model_without_results_takes_no_row_and_no_column_from_another():
    found = for_each_model(lambda counts: counts[counts["hits"] > 1])(counts(("a", "x", 1), ("b", "x", 2)))

    assert found.to_numpy().tolist() == [["b", "x", 2]]
    assert found["hits"].dtype == int


def test_what_goes_in_is_left_as_it_was():
    rows = counts(("a", "x", 1), ("b", "x", 2))

    for_each_model(lambda counts: counts)(rows)

    pd.testing.assert_frame_equal(rows, counts(("a", "x", 1), ("b", "x", 2)))


def test_a_node_keeps_its_name_and_says_the_familys_own_types():
    def settle(counts: pd.DataFrame, settings: Frozen) -> pd.DataFrame:
        return counts

    wrapped = for_each_model(settle, {"settings": Variants[Limit]})

    assert wrapped.__name__ == "settle"
    assert wrapped.__annotations__["settings"] == Variants[Limit]
    assert settle.__annotations__["settings"] is Frozen


# a family


def test_the_spill_of_two_models_is_never_pooled_nor_compared_with_the_other_ones_baseline():
    rates = both(
        table(cell("fr_it", "spanish", (31, 80)), cell("baseline", "spanish", label_italian=(2, 80))),
        table(cell("fr_it", "spanish", (80, 80)), cell("fr_it", "spanish", (79, 80), seed=43)),
    )

    spill = for_each_model(tabulate_spill)(rates)

    assert spill[["model", "condition", "seeds", "hits", "n", "baseline_hits", "baseline_n"]].to_numpy().tolist() == [
        [BIG, "fr_it", 1, 31, 80, 2, 80],
        [SMALL, "fr_it", 2, 159, 160, 0, 0],
    ]


def test_claims_are_judged_model_by_model():
    quiet = dict.fromkeys(("english", "spanish", "italian", "portuguese", "german", "mandarin"), 0)
    rates = both(contaminations("fr_fr", 800, **quiet), contaminations("fr_fr", **quiet | {"german": 40}))
    variants = load_variants()

    verdicts = for_each_model(judge_claims)(rates, for_each_model(tabulate_spill)(rates), variants)

    assert len(verdicts) == 2 * len(variants.of(BIG).settings.claims)
    floor = verdicts[verdicts["claim"] == "control_floor"]
    assert floor[["model", "verdict"]].to_numpy().tolist() == [[BIG, "holds"], [SMALL, "fails"]]
    assert "fr_fr under german 40/80" in floor["evidence"].iloc[1]


def test_claims_are_judged_by_the_rule_of_the_model():
    changed = load_variants()
    claims = changed.of(SMALL).settings.claims
    loose = claims | {"control_floor": claims["control_floor"].model_copy(update={"at_most": 0.6})}
    settings = changed.of(SMALL).settings.model_copy(update={"claims": loose})
    models = changed.models | {SMALL: changed.of(SMALL).model_copy(update={"settings": settings})}
    rates = both(contaminations("fr_fr", 800, german=400), contaminations("fr_fr", 800, german=400))

    verdicts = for_each_model(judge_claims)(
        rates, for_each_model(tabulate_spill)(rates), changed.model_copy(update={"models": models})
    )

    floor = verdicts[verdicts["claim"] == "control_floor"]
    assert floor[["model", "verdict"]].to_numpy().tolist() == [[BIG, "fails"], [SMALL, "holds"]]


# figures and reports


def shown(**given):
    """Hand tables to a figure or report, and return what it sees."""

    def look(rates=None, texts=None, label=None):
        return {"rates": rates, "texts": texts, "label": label}

    return name_models(look)(**given)


def test_with_one_model_nobody_sees_its_name():
    seen = shown(rates=counts(("a", "x", 1), ("a", "y", 2)), label="l")

    assert seen["rates"].to_dict("list") == {"condition": ["x", "y"], "hits": [1, 2]}
    assert seen["label"] == "l"


def test_with_several_models_conditions_are_named_with_theirs():
    seen = shown(rates=counts(("a", "x", 1), ("b", "x", 2)), texts=pd.DataFrame({"condition": ["x"]}))

    assert seen["rates"].to_dict("list") == {"condition": ["x (a)", "x (b)"], "hits": [1, 2]}
    assert seen["texts"]["condition"].tolist() == ["x"]  # it knows nothing of models, such as what was published


def test_a_table_of_one_model_is_named_where_another_table_has_two():
    seen = shown(rates=counts(("a", "x", 1), ("b", "x", 2)), texts=counts(("b", "x", 2)))

    assert seen["texts"]["condition"].tolist() == ["x (b)"]


def test_a_table_without_conditions_keeps_the_model_where_there_are_several():
    one, several = pd.DataFrame({"model": ["a"], "claim": ["c"]}), pd.DataFrame({"model": ["a", "b"], "claim": ["c", "c"]})

    assert list(shown(rates=one)["rates"].columns) == ["claim"]
    assert list(shown(rates=several)["rates"].columns) == ["model", "claim"]


def test_scopes_stand_for_conditions_where_a_table_has_no_others():
    table = pd.DataFrame({"model": ["a", "b"], "scope": ["all", "x"]})

    assert shown(rates=table)["rates"].to_dict("list") == {"scope": ["all (a)", "x (b)"]}


def test_a_report_keeps_its_name_for_the_node():
    assert name_models(write_report).__name__ == "write_report"
