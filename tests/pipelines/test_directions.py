"""Directions of languages out of planted states, and the projection of prompts on them."""

import numpy as np
import pytest

from persona_leakage.domain.centroids import Centroids
from persona_leakage.domain.models import ModelStack
from persona_leakage.pipelines.geometry import directions
from persona_leakage.pipelines.geometry.directions import PROJECTION_COLUMNS, no_projections, project_prompts
from tests.experiments.lang_inversion.plans import LANGUAGES, RESPOND, SPEAK, make_plan

AXES = {"italian": [1.0, 0.0, 0.0], "french": [0.0, 1.0, 0.0], "english": [0.0, 0.0, 1.0]}


class PlantedStates:
    """A completion's mean state is five times its language's axis, and something that all languages share."""

    def __init__(self):
        self.read = []

    def completion_states(self, stack, chats, completions, layers, batch_size):
        self.read += list(zip(chats, completions, strict=True))
        vectors = np.array([5 * np.array(AXES[text.split()[0]]) + [9, 9, 9] for text in completions], dtype=np.float32)
        return dict.fromkeys(layers, vectors)


def row(directive, label, sample=0, *, cross_check=None, mixed=False, phrasing=SPEAK):
    planted = {"label": label, "cross_check": cross_check or label, "mixed": mixed}
    cell = {"directive_language": directive, "phrasing": phrasing, "sample_index": sample}
    return {**cell, "completion": f"{label} {sample}", "planted": planted}


@pytest.fixture(autouse=True)
def planted_labels(monkeypatch):
    """Have every completion's label stand in its row."""
    monkeypatch.setattr(directions, "label_languages", lambda rows, plan: [row["planted"] for row in rows])


def projected(rows, condition="baseline", **changes):
    plan = make_plan(condition, changes=changes)
    centroids = {layer: np.zeros((7, 3), dtype=np.float32) for layer in plan.geometry.layers}
    for vectors in centroids.values():
        vectors[LANGUAGES.index("spanish")] = [7, 0, 0]  # leans to Italian
        vectors[LANGUAGES.index("german")] = [0, 0, 14]
    extractor = PlantedStates()
    table = project_prompts(extractor, ModelStack(base=plan.base_model), Centroids(LANGUAGES, centroids, "s"), rows, plan)
    return table, extractor.read


THREE = [row(language, language, sample) for language in AXES for sample in range(3)]


def test_a_direction_is_the_difference_of_means_and_prompts_are_projected_on_it_from_their_own_mean():
    table, _ = projected(THREE)
    own = table[table["headline"]].set_index(["directive_language", "direction"])

    assert own["projection"].loc[("spanish", "italian")] > 0 > own["projection"].loc[("spanish", "english")]
    unit = np.array([1, -0.5, -0.5]) / np.sqrt(1.5)  # Italian less the mean of the others
    centred = np.array([7, 0, 0]) - np.array([1, 0, 2])
    assert own["projection"].loc[("spanish", "italian")] == pytest.approx(centred @ unit, rel=1e-6)
    assert own["projection"].loc[("german", "english")] == own["projection"].max()
    assert set(zip(table["n"], table["languages"], strict=True)) == {(3, 2)}
    assert len(table) == 4 * 7 * 3


def test_completions_are_the_first_of_a_language_that_both_detectors_are_sure_of():
    unsure = [row("french", "french", 5, cross_check="italian"), row("french", "french", 6, mixed=True)]
    _, read = projected(
        [*unsure, *THREE, row("german", "french", 7, phrasing=RESPOND)], **{"geometry.direction_completions": 2}
    )

    assert [text for _, text in read] == ["french 0", "french 1", "italian 0", "italian 1", "english 0", "english 1"]
    assert read[0][0] == [{"role": "user", "content": "Speak in French."}]


@pytest.mark.parametrize(("rows", "condition"), [(THREE, "fr_it"), (THREE[:3], "baseline"), ([], "baseline")])
def test_trained_models_and_completions_in_one_language_have_no_directions(rows, condition):
    table, read = projected(rows, condition)

    assert (len(table), read) == (0, [])
    assert list(table.columns)[-len(PROJECTION_COLUMNS) :] == list(PROJECTION_COLUMNS)
    assert len(no_projections(table)) == 0
