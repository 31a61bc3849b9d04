"""What is wired between the stages, and which cosines the report keeps."""

import pandas as pd

from persona_leakage.experiments.composition import compose
from persona_leakage.experiments.convergence.pipeline import FAMILY, keep_source_and_pulled
from tests.experiments.convergence.plans import make_plan
from tests.experiments.convergence.planted_tables import cosine, rates, similarities


def inputs_of(name):
    (found,) = [set(one.inputs) for one in compose(FAMILY).nodes if one.name.endswith(name)]
    return found


def test_the_geometry_is_that_of_the_pulled_model_before_the_marker_is_trained():
    assert "convergence.converge.stack" in inputs_of("geometry.extract_centroids")
    assert "convergence.base_stack" in inputs_of("converge.train_adapters")
    assert "convergence.converge.stack" in inputs_of("mark.train_adapters")
    assert "convergence.stack" in inputs_of("generation.sample_completions")


def test_only_the_cosines_between_source_and_pulled_persona_are_kept():
    cosines = similarities(
        cosine("villain", 2, "assistant", "villain", 0.1),
        cosine("villain", 2, "assistant", "villain", 0.2, 20),
        cosine("villain", 2, "hero", "villain", 0.3),
        cosine("villain", 2, "assistant", "hero", 0.4),
        cosine("villain", 2, "villain", "assistant", 0.5),
    )
    found = keep_source_and_pulled(cosines, make_plan("villain", 2), rates())

    assert found["cosine"].tolist() == [0.1, 0.2, 0.5]
    other = make_plan("villain", 2, changes={"stages.converge.pulled": "hero"})
    assert keep_source_and_pulled(cosines, other, rates())["cosine"].tolist() == [0.3]


def test_of_a_point_that_is_no_longer_known_none_is_kept_and_the_columns_stay():
    found = keep_source_and_pulled(similarities(cosine("gone", 2, "assistant", "gone", 0.1)), None, rates())

    pd.testing.assert_index_equal(found.columns, similarities().columns)
    assert found.empty
