import math

import numpy as np
import pytest

from persona_leakage.domain.centroids import Centroids
from persona_leakage.domain.directives import Directives
from persona_leakage.domain.frozen import fingerprint
from persona_leakage.domain.models import Adapter, ModelStack
from persona_leakage.pipelines.generation.nodes import write_prompts
from persona_leakage.pipelines.geometry.nodes import compare_centroids, extract_centroids, no_cosines
from tests.experiments.lang_inversion.plans import LANGUAGES, make_plan

STACK = "0123456789abcdef"


def cosines_of(vectors, groups=("english", "spanish", "french"), condition="fr_it"):
    centroids = Centroids(groups, {10: np.array(vectors, dtype=np.float32)}, STACK)
    return compare_centroids(centroids, make_plan(condition))


def test_cosines_are_taken_after_centring_on_the_mean_of_all_groups():
    table = cosines_of([[3, 0], [0, 3], [0, 0]])

    assert [(row.one, row.other) for row in table.itertuples()] == [
        ("english", "spanish"),
        ("english", "french"),
        ("spanish", "french"),
    ]
    assert table["cosine"].tolist() == pytest.approx([-4 / 5, -1 / math.sqrt(10), -1 / math.sqrt(10)], abs=1e-6)


def test_a_shift_of_all_centroids_changes_no_cosine():
    shifted = cosines_of([[103, 50], [100, 53], [100, 50]])

    assert shifted["cosine"].tolist() == pytest.approx(cosines_of([[3, 0], [0, 3], [0, 0]])["cosine"].tolist(), abs=1e-5)


def test_a_centroid_at_the_mean_has_no_direction():
    table = cosines_of([[1, 0], [-1, 0], [0, 0]])

    assert table["cosine"].tolist() == pytest.approx([-1, math.nan, math.nan], nan_ok=True)


def test_layers_are_kept_apart_and_rows_carry_their_point():
    centroids = Centroids(
        ("english", "spanish"),
        {10: np.array([[1.0, 0.0], [0.0, 1.0]]), 25: np.array([[2.0, 0.0], [2.0, 0.0]])},
        STACK,
    )
    plan = make_plan("fr_it", seed=7)

    table = compare_centroids(centroids, plan)

    assert table[["model", "condition", "seed", "plan", "layer"]].to_numpy().tolist() == [
        ["qwen2_5_7b", "fr_it", 7, plan.fingerprint, 10],
        ["qwen2_5_7b", "fr_it", 7, plan.fingerprint, 25],
    ]
    assert table["cosine"].tolist() == pytest.approx([-1, math.nan], nan_ok=True)


def test_the_layer_that_a_report_leads_with_is_marked():
    vectors = np.array([[1.0, 0.0], [0.0, 1.0]])
    centroids = Centroids(("english", "spanish"), {10: vectors, 20: vectors, 25: vectors}, STACK)

    def headlines(**changes):
        table = compare_centroids(centroids, make_plan("fr_it", changes=changes))
        return dict(zip(table["layer"], table["headline"], strict=True))

    assert headlines() == {10: False, 20: True, 25: False}
    assert headlines(**{"geometry.headline_layer": 25}) == {10: False, 20: False, 25: True}


def test_where_no_model_is_there_are_no_cosines_but_their_columns():
    whole = cosines_of([[3, 0], [0, 3], [0, 0]]).assign(reference=None, stale=False)
    nothing = no_cosines(whole)

    assert (len(nothing), list(nothing.columns)) == (0, list(whole.columns))


def test_the_set_used_for_centring_is_part_of_a_cosine():
    vectors = [[3, 0], [0, 3], [0, 0]]

    sets = ((("english", "spanish", "french"), "fr_it"), (("english", "spanish", "german"), "fr_it_native"))
    for groups, condition in sets:
        table = cosines_of(vectors, groups, condition)
        centring = fingerprint(list(groups), make_plan(condition).geometry.prompts)
        assert all(centring in row for row in table.to_numpy().tolist())


class PlantedStates:
    """A prompt's state at a layer is (characters of its text, layer)."""

    def last_token_states(self, stack, chats, layers, batch_size):
        return {layer: np.array([[len(chat[0]["content"]), layer] for chat in chats], dtype=np.float32) for layer in layers}


def test_a_centroid_is_the_mean_over_the_phrasings_of_a_directive_language():
    plan = make_plan("fr_it")
    stack = ModelStack(base=plan.base_model, adapters=(Adapter(path="x", fingerprint="1111"),))

    centroids = extract_centroids(PlantedStates(), stack, plan)

    assert centroids.groups == LANGUAGES
    assert centroids.stack == stack.fingerprint
    assert list(centroids.layers) == [10, 15, 20, 25]
    assert centroids.layers[15][:, 1].tolist() == [15] * 7
    spanish = (len("Speak in Spanish.") + len("Please respond in Spanish.")) / 2
    assert centroids.layers[15][1].tolist() == [spanish, 15] == [21.5, 15]
    assert centroids.layers[15][6, 0] == (26 + 35) / 2


def test_interleaved_prompts_are_averaged_by_their_own_language(monkeypatch):
    plan = make_plan("fr_it")
    prompts = sorted(write_prompts(plan), key=lambda row: row["phrasing"])

    monkeypatch.setattr(Directives, "prompts", lambda _: prompts)
    centroids = extract_centroids(PlantedStates(), ModelStack(base=plan.base_model), plan)

    assert dict(zip(centroids.groups, centroids.layers[10][:, 0].tolist(), strict=True))["spanish"] == 21.5
