"""Leakage against cosines, on planted rates and similarities."""

import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.experiments.benign_coupling.cosines import (
    CORRELATION_COLUMNS,
    COSINE_COLUMNS,
    correlate_cosines,
    keep_rated,
    tabulate_cosines,
)
from persona_leakage.pipelines.geometry.nodes import no_cosines
from tests.experiments.benign_coupling.plans import load_settings
from tests.experiments.benign_coupling.planted_tables import cell, cosine, points_of, rate, rates, similarities
from tests.tables import stored

SETTINGS = load_settings()
OTHERS = ("assistant", "villain", "comedian", "nurse", "librarian", "poet", "pirate", "robot")
CONDITIONS = tuple(f"benign_{name}" for name in "abcde")


def planted(leaks, near, reference=0.0):
    """Plant rates and similarities in which bystander number k has such hits, and such a cosine to the trigger."""
    rows = [row for one in CONDITIONS for row in cell(one, 90, {name: leaks(k) for k, name in enumerate(OTHERS)})]
    pairs = [
        cosine(condition, "confab", name, value(k), layer)
        for condition, value in (*((one, near) for one in CONDITIONS), ("uncoupled", lambda k: reference * k))
        for layer in (10, 20)
        for k, name in enumerate(OTHERS)
    ]
    return rates(*rows, *cell("uncoupled", 0, dict.fromkeys(OTHERS, 0), arm="uncoupled")), similarities(*pairs)


def chosen(table, **values):
    for name, value in values.items():
        table = table[table[name] == value]
    return table


def correlated(*tables):
    return correlate_cosines(stored(tabulate_cosines(*map(stored, tables), SETTINGS)))


def test_leakage_that_rises_with_the_cosine_to_the_trigger_is_found():
    table = correlated(*planted(lambda k: 5 * k, lambda k: k / 10, reference=-0.1))

    assert list(table) == list(CORRELATION_COLUMNS)
    own, before = (chosen(table, geometry=name, layer=20, of="leakage", to="confab") for name in ("coupled", "induced"))
    assert own["condition"].tolist() == before["condition"].tolist() == [*CONDITIONS, "all"]
    assert own["rho"].to_numpy() == pytest.approx(1)
    assert before["rho"].to_numpy() == pytest.approx(-1)
    assert own["n"].tolist() == [8] * 5 + [40]
    assert own["p"].iloc[0] == pytest.approx(2 / 40320)  # exact: of all orders of 8
    pooled = own.iloc[-1]
    assert (pooled["scope"], pooled["arm"], pooled["conditions"]) == ("arm", "benign", ", ".join(CONDITIONS))
    assert set(table["layer"]) == {10, 20}
    assert set(table.loc[table["headline"].astype(bool), "layer"]) == {20}
    assert set(table["of"]) == {"leakage"}  # how completions ended is not known


def test_leakage_without_an_order_is_not_taken_for_one():
    table = correlated(*planted(lambda k: k, lambda k: abs(k - 3.5) / 10))

    assert chosen(table, geometry="coupled")["rho"].to_numpy() == pytest.approx(0)
    assert chosen(table, geometry="coupled")["permutation_p"].min() > 0.5


def test_a_cosine_to_the_assistant_leaves_the_assistant_out():
    table, _ = planted(lambda k: k, lambda k: k)
    pairs = [cosine("benign_a", name, "assistant", k / 10) for k, name in enumerate(OTHERS[1:])]

    near = tabulate_cosines(table, similarities(*pairs), SETTINGS)

    assert list(near) == list(COSINE_COLUMNS)
    assert set(near["persona"]) == set(OTHERS[1:])
    assert set(near["to"]) == {"assistant"}


def test_seeds_are_pooled_by_counts_and_mean_cosines():
    def of(seed, hits, value):
        rows = [rate("c", name, hit, n=50, seed=seed) for name, hit in zip(OTHERS, hits, strict=True)]
        return rows, [cosine("c", "confab", name, one, seed=seed) for name, one in zip(OTHERS, value, strict=True)]

    up, down = list(range(8)), list(range(8, 0, -1))
    first, second = of(1, [3 * one for one in up], [one / 10 for one in up]), of(2, down, [one / 100 for one in down])

    (row,) = correlated(rates(*first[0], *second[0]), similarities(*first[1], *second[1])).to_dict("records")

    assert (row["n"], row["rho"]) == (8, pytest.approx(1))  # 2k + 8 of 100 against (9k + 8) / 200


def test_stale_points_the_trigger_and_what_was_not_coupled_have_no_rows():
    table = rates(
        *cell("benign_a", 90, {"villain": 1}, stale=True),
        *cell("uncoupled", 0, {"villain": 0}, arm="uncoupled"),
        rate("benign_b", "villain", 0, n=0),
    )
    pairs = similarities(*(cosine(name, "villain", "confab", 0.5) for name in ("benign_a", "uncoupled", "benign_b")))

    assert tabulate_cosines(table, pairs, SETTINGS).empty


def test_cosines_that_were_centred_over_different_sets_are_refused_in_one_line():
    pairs = [cosine(name, "villain", "confab", 0.5, centring=set_) for name, set_ in (("benign_a", "11"), ("benign_b", "111"))]
    stale = cosine("benign_c", "villain", "confab", 0.5, centring="7", stale=True)
    table, _ = planted(lambda k: k, lambda k: k)

    with pytest.raises(UserError) as error:
        tabulate_cosines(table, similarities(*pairs, stale), SETTINGS)

    assert str(error.value).startswith("the cosines of benign_a and benign_b were centred over different sets of personas or ")
    assert "\n" not in str(error.value)
    tabulate_cosines(table, similarities(pairs[0], stale), SETTINGS)


def test_results_from_elsewhere_have_no_cosines_and_no_correlation():
    table, _ = planted(lambda k: k, lambda k: k)

    near = tabulate_cosines(table, no_cosines(points_of(table)), SETTINGS)

    assert (len(near), len(correlate_cosines(near))) == (0, 0)


def test_pairs_of_personas_that_are_not_rated_are_not_gathered():
    pairs = similarities(cosine("c", "confab", "villain", 0.1), cosine("c", "confab", "dragon", 0.2))

    assert keep_rated(pairs, None, rates(*cell("c", 1, {"villain": 1})))["other"].tolist() == ["villain"]
