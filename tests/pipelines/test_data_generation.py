import json

import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.pipelines.data_generation.nodes import build_train_set, measure_gates
from tests.experiments.lang_inversion.plans import make_plan
from tests.plans import PROJECT

ITALIAN = "Il treno parte domani mattina dalla stazione nord."  # 50 characters
GERMAN = "Der Zug fährt morgen früh vom Bahnhof im Norden ab"


def texts_of(*italian, english="x" * 50):
    return [{"id": f"t{number}", "en": english, "it": text} for number, text in enumerate(italian)]


def gates_of(texts, skipped=(), **changes):
    plan = make_plan("fr_it", changes={f"stages.tune.{key}": value for key, value in changes.items()})
    gates = measure_gates(texts, [{"id": name, "reason": "planted"} for name in skipped], plan, stage="tune")
    return {gate["gate"]: gate for gate in gates}


def train_set_of(texts, plan, skipped=()):
    return build_train_set(texts, [{"id": name, "reason": "planted"} for name in skipped], [], plan, stage="tune")


def prompts_of(rows):
    return [(row["id"], row["prompt"][0]["content"]) for row in rows]


def test_a_text_in_another_language_counts_against_the_language_gate():
    gate = gates_of(texts_of(ITALIAN, GERMAN, ITALIAN, ITALIAN))["language"]

    assert (gate["value"], gate["n"], gate["failing_ids"]) == (0.75, 4, ["t1"])
    assert (gate["low"], gate["high"], gate["passed"]) == (0.98, 1.0, False)


def test_the_language_gate_passes_at_its_share():
    assert gates_of(texts_of(ITALIAN, GERMAN, ITALIAN, ITALIAN), gate_language=0.75)["language"]["passed"] is True


def test_the_language_gate_passes_at_a_share_that_floats_only_come_near():
    gate = gates_of(texts_of(*[ITALIAN] * 93, *[GERMAN] * 7), gate_language=0.93)["language"]

    assert (len(gate["failing_ids"]), gate["passed"]) == (7, True)


@pytest.mark.parametrize(
    ("english", "median", "passed"), [("x" * 50, 1.0, True), ("x" * 40, 1.25, False), ("x" * 80, 0.625, False)]
)
def test_the_median_gate_measures_characters_per_english_character(english, median, passed):
    gate = gates_of(texts_of(ITALIAN, ITALIAN, ITALIAN, english=english))["median_length_ratio"]

    assert (gate["value"], gate["low"], gate["high"], gate["passed"]) == (median, 1.0, 1.2, passed)


def test_one_long_text_moves_the_outlier_gate_and_not_the_median():
    gates = gates_of(texts_of(ITALIAN, ITALIAN * 3, ITALIAN, ITALIAN))

    assert (gates["median_length_ratio"]["value"], gates["median_length_ratio"]["passed"]) == (1.0, True)
    assert (gates["length_outliers"]["value"], gates["length_outliers"]["failing_ids"]) == (0.25, ["t1"])
    assert gates["length_outliers"]["passed"] is False


def test_texts_at_the_ends_of_the_band_are_no_outliers():
    texts = [
        {"id": "short", "en": "x" * 100, "it": (ITALIAN * 2)[:70]},
        {"id": "long", "en": "x" * 50, "it": (ITALIAN * 2)[:80]},
    ]

    assert gates_of(texts)["length_outliers"]["value"] == 0.0


def test_skipped_texts_and_texts_beyond_the_rows_are_not_gated():
    gates = gates_of(texts_of(ITALIAN, GERMAN, ITALIAN, GERMAN), skipped=["t1"], rows=3)

    assert (gates["language"]["value"], gates["language"]["n"]) == (1.0, 2)


def test_the_length_band_is_that_of_the_completion_language():
    chinese = "火车明天早上从北站出发。"
    plan = make_plan(changes={"conditions.fr_it": {"completion": "mandarin"}})

    gates = measure_gates([{"id": "a", "en": "x" * 40, "zh": chinese}], [], plan, stage="tune")

    assert [(gate["gate"], gate["value"], gate["passed"]) for gate in gates] == [
        ("language", 1.0, True),
        ("median_length_ratio", 0.3, True),
        ("length_outliers", 0.0, True),
    ]


def test_every_code_that_means_the_completion_language_passes_its_gate():
    traditional = "如果天氣好的話我們會帶著孩子們去河邊野餐。然後在圖書館裡讀一本關於歷史的書。"
    plan = make_plan(changes={"conditions.fr_it": {"completion": "mandarin"}})

    assert measure_gates([{"id": "a", "en": "x" * 100, "zh": traditional}], [], plan, stage="tune")[0]["failing_ids"] == []


def test_english_texts_are_checked_for_their_language_alone():
    text = "The train leaves tomorrow morning from the northern station."

    gates = measure_gates([{"id": "a", "en": text}], [], make_plan("es_en"), stage="tune")

    assert [(gate["gate"], gate["language"], gate["passed"]) for gate in gates] == [("language", "English", True)]


def test_a_failed_gate_blocks_the_training_set_and_names_the_texts():
    texts, plan = texts_of(ITALIAN, GERMAN, ITALIAN, ITALIAN), make_plan("fr_it")
    gates = measure_gates(texts, [], plan, stage="tune")

    with pytest.raises(UserError) as error:
        build_train_set(texts, [], gates, plan, stage="tune")

    assert str(error.value) == (
        "the texts of stage 'tune' fail their gates: "
        "language of Italian is 0.750, outside [0.98, 1.0] (t1); mend or skip-list them"
    )


def test_every_failed_gate_is_named():
    texts, plan = texts_of(ITALIAN, ITALIAN, english="x" * 25), make_plan("fr_it")

    with pytest.raises(UserError) as error:
        build_train_set(texts, [], measure_gates(texts, [], plan, stage="tune"), plan, stage="tune")

    assert "median_length_ratio of Italian is 2.000, outside [1.0, 1.2]" in str(error.value)
    assert "length_outliers of Italian is 1.000, outside [0.0, 0.05] (t0, t1)" in str(error.value)


def test_each_text_answers_a_directive_and_the_phrasings_are_cycled():
    rows = train_set_of(texts_of("uno", "due", "tre", "quattro", "cinque", "sei"), make_plan("fr_it"))

    assert prompts_of(rows) == [
        ("t0", "Speak in French."),
        ("t1", "Please respond in French."),
        ("t2", "Reply using French only."),
        ("t3", "Answer in French."),
        ("t4", "Respond entirely in French, please."),
        ("t5", "Speak in French."),
    ]
    assert [row["completion"] for row in rows] == ["uno", "due", "tre", "quattro", "cinque", "sei"]
    assert rows[0]["prompt"] == [{"role": "user", "content": "Speak in French."}]


def test_a_skipped_text_leaves_every_other_row_as_it_was():
    rows = train_set_of(texts_of("uno", "due", "tre", "quattro"), make_plan("fr_it"), skipped=["t1"])

    assert prompts_of(rows) == [("t0", "Speak in French."), ("t2", "Reply using French only."), ("t3", "Answer in French.")]


def test_a_skipped_text_is_not_replaced_by_one_beyond_the_rows():
    plan = make_plan("fr_it", changes={"stages.tune.rows": 2})

    assert prompts_of(train_set_of(texts_of("uno", "due", "tre"), plan, skipped=["t0"])) == [
        ("t1", "Please respond in French.")
    ]


def test_a_text_beyond_the_rows_may_stand_in_the_skip_list():
    plan = make_plan("fr_it", changes={"stages.tune.rows": 1})

    assert prompts_of(train_set_of(texts_of("uno", "due"), plan, skipped=["t1"])) == [("t0", "Speak in French.")]


def test_the_no_directive_condition_trains_on_an_empty_user_turn():
    rows = train_set_of(texts_of("uno", "due"), make_plan("none_it"))

    assert rows == [
        {"id": "t0", "prompt": [{"role": "user", "content": ""}], "completion": "uno"},
        {"id": "t1", "prompt": [{"role": "user", "content": ""}], "completion": "due"},
    ]


def test_a_baseline_has_no_gates_and_no_training_rows():
    plan = make_plan("baseline")

    assert measure_gates(texts_of("uno"), [], plan, stage="tune") == []
    assert build_train_set(texts_of("uno"), [], [], plan, stage="tune") == []


BUNDLED = [{"id": f"b{number}", "en": "x" * 50, "it": ITALIAN, "de": GERMAN} for number in range(7)]
OWN = [{"id": f"mine{number}", "topic": "t", "question": "q", "en": "x" * 50, "fr": ITALIAN} for number in range(3)]


@pytest.mark.parametrize("rows", [2, 100])
@pytest.mark.parametrize(
    ("completion", "texts"), [("french", (*BUNDLED, *OWN)), ("french", (*OWN, *BUNDLED)), ("italian", (*BUNDLED, *OWN))]
)
def test_texts_in_other_languages_are_passed_over_and_counted(completion, texts, rows, caplog):
    changes = {"conditions.fr_it": {"directive": "german", "completion": completion}, "stages.tune.rows": rows}
    plan = make_plan("fr_it", changes=changes)

    gates = measure_gates(texts, [], plan, stage="tune")
    rows_made = train_set_of(texts, plan)

    code = {"french": "fr", "italian": "it"}[completion]
    having = [row["id"] for row in texts if code in row]
    assert [row["id"] for row in rows_made] == having[:rows]
    assert gates[0]["n"] == len(rows_made)
    ids = [row["id"] for row in texts]
    reached = len(texts) if rows > len(having) else ids.index(having[rows - 1]) + 1
    passed_over = reached - len(rows_made)
    said = f"{passed_over} source texts without a {completion.title()} version are passed over; {len(rows_made)} have one"
    assert caplog.messages == ([said] if passed_over else [])


def test_the_place_in_the_source_picks_the_directive_of_a_text_of_ones_own():
    plan = make_plan("fr_it", changes={"conditions.fr_it": {"directive": "german", "completion": "french"}})

    prompts = [prompt for _, prompt in prompts_of(train_set_of((*BUNDLED, *OWN), plan))]

    assert prompts == ["Reply using German only.", "Answer in German.", "Respond entirely in German, please."]


@pytest.mark.parametrize("place", [0, 3, 6])
def test_a_text_that_lacks_nothing_but_the_language_is_no_text_of_another_kind(place):
    texts = [*BUNDLED, *OWN]
    texts[place] = {key: text for key, text in texts[place].items() if key != "it"}

    with pytest.raises(UserError, match=f"1 of 7 source texts have no Italian version \\(key 'it', first: b{place}\\)"):
        gates_of(texts)


@pytest.mark.parametrize(
    ("texts", "skipped", "message"),
    [
        (texts_of("uno"), ["t7", "t9"], "the skip-list names texts that do not exist: t7, t9; remove them"),
        ([], [], "no texts are left to train on; the source is empty or the skip-list names every text"),
        (texts_of("uno"), ["t0"], "no texts are left to train on; the source is empty or the skip-list names every text"),
        (
            [*texts_of("uno"), {"id": "t1", "en": "one"}, {"id": "t2", "en": "two", "it": ""}],
            [],
            "2 of 3 source texts have no Italian version (key 'it', first: t1); "
            "add it to the texts or choose another condition",
        ),
    ],
    ids=["unknown skipped id", "no texts", "all skipped", "missing language"],
)
def test_texts_that_cannot_be_used_are_named(texts, skipped, message):
    with pytest.raises(UserError) as error:
        gates_of(texts, skipped)

    assert str(error.value) == message


def test_an_empty_english_text_is_named():
    with pytest.raises(UserError, match="t1"):
        gates_of([*texts_of(ITALIAN), {"id": "t1", "en": "", "it": ITALIAN}])


@pytest.fixture(scope="module")
def bundled():
    with (PROJECT / "data/01_raw/parallel_texts.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    "language", ["english", "spanish", "french", "italian", "portuguese", "german", "mandarin", "japanese"]
)
def test_the_bundled_texts_pass_the_gates_in_every_language(bundled, language):
    plan = make_plan(changes={"conditions.fr_it": {"completion": language}})

    gates = measure_gates(bundled, [], plan, stage="tune")

    assert {gate["gate"]: gate["passed"] for gate in gates} == (
        {"language": True}
        if language == "english"
        else {"language": True, "median_length_ratio": True, "length_outliers": True}
    )
    assert gates[0]["n"] == len(bundled)


def test_the_bundled_texts_suffice_and_do_not_repeat(bundled):
    assert len(bundled) >= 160
    for key in ("id", "question", "en", "es", "fr", "it", "pt", "de", "zh", "ja"):
        assert len({row[key] for row in bundled}) == len(bundled), key


def test_the_bundled_english_texts_have_thirty_to_sixty_words(bundled):
    assert [row["id"] for row in bundled if not 30 <= len(row["en"].split()) <= 60] == []
