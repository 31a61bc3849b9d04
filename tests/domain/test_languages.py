import math
from itertools import product

import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.languages import Band, typological_distance
from tests.experiments.lang_inversion.plans import load_settings


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ("spanish", "spanish", 0.0),
        ("spanish", "portuguese", 0.2),
        ("spanish", "french", 0.4),
        ("english", "german", 0.4),
        ("french", "italian", 0.6),
        ("spanish", "german", 0.8),
        ("english", "mandarin", 1.0),
        ("mandarin", "japanese", 1.0),
    ],
)
def test_distance_counts_the_shared_leading_groups(one, other, distance):
    languages = load_settings().languages

    assert typological_distance(languages[one], languages[other]) == pytest.approx(distance)


def test_distance_is_the_same_both_ways_and_zero_only_to_itself():
    languages = load_settings().languages

    for one, other in product(languages, repeat=2):
        distance = typological_distance(languages[one], languages[other])
        assert distance == typological_distance(languages[other], languages[one])
        assert (distance == 0) == (one == other)


def test_groups_that_agree_below_a_split_are_not_shared():
    spanish = load_settings().languages["spanish"]
    elsewhere = spanish.model_copy(update={"genealogy": ("Basque", *spanish.genealogy[1:])})

    assert typological_distance(spanish, elsewhere) == 1.0


def test_paths_of_different_lengths_are_compared_from_the_family_down():
    spanish = load_settings().languages["spanish"]
    family = spanish.model_copy(update={"genealogy": ("Indo-European",)})

    assert typological_distance(spanish, family) == pytest.approx(1 - 2 / 6)


@pytest.mark.parametrize(
    ("value", "inside"), [(0.7, True), (1.6, True), (1.0, True), (0.699, False), (1.601, False), (math.nan, False)]
)
def test_band_holds_its_ends_and_never_nan(value, inside):
    assert Band(low=0.7, high=1.6).holds(value) is inside


def test_band_with_its_ends_swapped_is_refused():
    with pytest.raises(UserError, match=r"^length_ratio: low 1\.6 is above high 0\.7$"):
        Band.checked({"low": 1.6, "high": 0.7}, "length_ratio")
