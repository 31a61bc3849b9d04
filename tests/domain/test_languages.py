import math
from itertools import product
from pathlib import Path

import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.language_scoring import LanguageScoring
from persona_leakage.domain.languages import LANGDETECT_CODES, LINGUA_CODES, Band, Language, typological_distance
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


# detectors


def language(**changes):
    french = load_settings().languages["french"].model_dump()
    return Language.checked({**french, **changes}, "languages.it")


def test_the_codes_are_those_of_the_detectors():
    import langdetect
    import lingua

    assert set(LANGDETECT_CODES) == {file.name for file in (Path(langdetect.__file__).parent / "profiles").iterdir()}
    assert set(LINGUA_CODES) == {one.iso_code_639_1.name.lower() for one in lingua.Language.all()}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"code": "no", "detected_as": ["no"]}, "lingua, which cross-checks, knows no 'no'; list in cross_checked_as "),
        ({"code": "ne", "detected_as": ["ne"], "name": "Nepali"}, "which of its codes mean Nepali"),
        ({"cross_checked_as": ["fr", "frr"]}, "lingua, which cross-checks, knows no 'frr'"),
        ({"detected_as": ["nb"]}, "langdetect knows no 'nb', so detected_as would find nothing; known: af, ar, "),
        ({"detected_as": ["fr", "FR"]}, "langdetect knows no 'FR'"),
    ],
)
def test_a_language_that_a_detector_does_not_know_is_refused(changes, said):
    with pytest.raises(UserError) as caught:
        language(**changes)

    assert str(caught.value).startswith("languages.it: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_codes_for_the_second_detector_leave_other_plans_as_they_were():
    assert "cross_checked_as" not in language().model_dump()
    assert language(code="no", detected_as=["no"], cross_checked_as=["nb", "nn"]).cross_check_codes == ("nb", "nn")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"code": "nl", "detected_as": ["nl", "fr"]}, "'french' and 'dutch' are both detected as 'fr'; evaluate one"),
        ({"code": "fr", "detected_as": ["nl"]}, "'french' and 'dutch' are both cross-checked as 'fr'; evaluate one"),
    ],
)
def test_two_languages_of_one_code_are_refused(changes, said):
    scoring = {
        "languages": {"french": language(), "dutch": language(**changes)}, "trained_directive": None, "completion": None,
        "min_characters": 5, "detect_characters": 500, "detector_seed": 0, "mixed_share": 0.2,
    }  # fmt: skip

    with pytest.raises(UserError, match=said):
        LanguageScoring.checked(scoring, "scoring")
