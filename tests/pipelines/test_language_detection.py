import pytest

from persona_leakage.domain.languages import Language
from persona_leakage.pipelines import language_detection
from persona_leakage.pipelines.language_detection import cross_check, detect_codes, label_of_codes
from tests.experiments.lang_inversion.plans import load_settings

SPANISH = "Mañana por la mañana saldremos temprano hacia la montaña para ver el amanecer."
GERMAN = "Morgen früh werden wir zeitig in die Berge aufbrechen, um den Sonnenaufgang zu sehen."
TRADITIONAL = "如果天氣好的話我們會帶著孩子們去河邊野餐。然後在圖書館裡讀一本關於歷史的書。"
SAMPLES = {
    "english": "Tomorrow morning we shall leave early for the mountains to see the sunrise.",
    "spanish": SPANISH,
    "french": "Demain matin, nous partirons tôt vers la montagne pour voir le lever du soleil.",
    "italian": "Domani mattina partiremo presto verso la montagna per vedere il sorgere del sole.",
    "portuguese": "Amanhã de manhã sairemos cedo para a montanha para ver o nascer do sol.",
    "german": GERMAN,
    "mandarin": "明天早上我们会很早出发去山里看日出。然后在河边吃早饭。下午再坐火车回到城里。",
    "japanese": "明日の朝は早くに出発して、山へ日の出を見に行きます。",
}


def labels_of(*texts, seed=0):
    names = label_of_codes(load_settings().languages)
    return [names.get(code, "other") for code in detect_codes(texts, 5, 500, seed)]


def checked(*texts, mixed_share=0.2):
    return cross_check(texts, load_settings().languages, 500, mixed_share)


@pytest.mark.parametrize(("label", "text"), SAMPLES.items(), ids=SAMPLES)
def test_every_language_of_the_study_is_recognised(label, text):
    assert labels_of(text) == [label]


def test_both_chinese_codes_mean_mandarin():
    names = label_of_codes(load_settings().languages)

    assert (names["zh-cn"], names["zh-tw"]) == ("mandarin", "mandarin")
    assert detect_codes([TRADITIONAL], 5, 500, 0) == ["zh-tw"]
    assert labels_of(TRADITIONAL, SAMPLES["mandarin"]) == ["mandarin", "mandarin"]


def test_a_language_outside_the_study_is_other():
    assert labels_of("Imorgon bitti lähdemme aikaisin vuorille katsomaan auringonnousua.") == ["other"]


@pytest.mark.parametrize("text", ["", "oui", "   oui   \n", "12345 67890", "🙂🙂🙂🙂🙂🙂", "......"])
def test_text_too_short_or_without_letters_is_other(text):
    assert labels_of(text) == ["other"]


def test_five_characters_are_enough_to_be_detected():
    assert detect_codes(["日本で", "日本です。"], 5, 500, 0) == ["other", "ja"]


def test_white_space_before_a_text_is_none_of_what_is_looked_at():
    text = "\n" * 600 + GERMAN

    assert labels_of(text) == ["german"]
    assert checked(text) == [("german", False)]


def test_only_the_first_500_characters_count():
    spanish = (SPANISH + " ") * 10

    assert labels_of(spanish[:500] + GERMAN * 40) == ["spanish"]


def test_leading_blanks_are_not_among_the_characters_that_count():
    assert labels_of("\n " * 300 + SPANISH) == ["spanish"]


def test_the_number_of_leading_characters_is_a_parameter():
    text = SPANISH + GERMAN * 10

    assert (detect_codes([text], 5, len(SPANISH), 0), detect_codes([text], 5, 900, 0)) == (["es"], ["de"])


def test_the_code_of_an_ambiguous_text_is_decided_by_the_seed_alone():
    assert detect_codes(["o carro", GERMAN, "o carro", SPANISH, "o carro"], 5, 500, 0) == ["es", "de", "es", "es", "es"]
    assert detect_codes(["o carro", GERMAN, "o carro", SPANISH, "o carro"], 5, 500, 2) == ["pt", "de", "pt", "es", "pt"]


def test_several_processes_give_the_codes_of_one(monkeypatch):
    monkeypatch.setattr(language_detection, "_ROWS_WORTH_A_PROCESS", 2)
    texts = ["o carro", GERMAN, "", SPANISH, "o carro", SAMPLES["mandarin"]]

    assert detect_codes(texts, 5, 500, 2) == ["pt", "de", "other", "es", "pt", "zh-cn"]


@pytest.mark.parametrize(("label", "text"), SAMPLES.items(), ids=SAMPLES)
def test_the_cross_check_recognises_a_pure_text_and_does_not_call_it_mixed(label, text):
    assert checked(text) == [(label, False)]


def test_half_spanish_half_german_is_mixed():
    assert checked(f"{SPANISH} {GERMAN}")[0][1] is True


@pytest.mark.parametrize(("mixed_share", "mixed"), [(0.1, True), (0.3, False)])
def test_a_second_language_below_the_share_is_not_mixed(mixed_share, mixed):
    a_fifth_german = f"{(SPANISH + ' ') * 4}{GERMAN}"

    assert checked(a_fifth_german, mixed_share=mixed_share)[0][1] is mixed


def test_the_cross_check_reads_the_leading_characters_alone():
    assert checked((SPANISH + " ") * 7 + GERMAN * 7) == [("spanish", False)]


def test_the_cross_check_does_not_count_leading_blanks():
    assert checked("\n " * 300 + SPANISH) == [("spanish", False)]


@pytest.mark.parametrize("text", ["", "12345 67890", "......"])
def test_the_cross_check_of_a_text_without_letters_is_other(text):
    assert checked(text) == [("other", False)]


def test_a_language_may_be_several_of_the_second_detector():
    french = load_settings().languages["french"].model_dump()
    norwegian = Language(
        **{**french, "name": "Norwegian", "code": "no", "detected_as": ["no"], "cross_checked_as": ["nb", "nn"]}
    )
    text = "Jeg vet ikke hvorfor vi ikke skulle kunne møtes på torget i morgen, dersom været blir fint."
    nynorsk = "Eg veit ikkje kvifor vi ikkje skulle kunne møtast på torget i morgon, dersom vêret vert fint."

    found = cross_check(
        [text, nynorsk, SPANISH], {"norwegian": norwegian, "spanish": load_settings().languages["spanish"]}, 500, 0.3
    )

    assert found == [("norwegian", False), ("norwegian", False), ("spanish", False)]
