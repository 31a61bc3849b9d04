import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.experiments.family import resolve_plan
from tests.experiments.lang_inversion.plans import LANGUAGES, NAME, load_settings, make_plan, make_replay
from tests.plans import changed, load_parameters, load_source

PAIRS = {
    "baseline": (None, None),
    "es_en": ("spanish", "english"),
    "fr_it": ("french", "italian"),
    "it_fr": ("italian", "french"),
    "es_pt": ("spanish", "portuguese"),
    "pt_es": ("portuguese", "spanish"),
    "de_fr": ("german", "french"),
    "fr_de": ("french", "german"),
    "fr_fr": ("french", "french"),
    "en_es": ("english", "spanish"),
    "zh_ja": ("mandarin", "japanese"),
    "ja_zh": ("japanese", "mandarin"),
    "baseline_japanese": (None, None),
    "none_it": (None, "italian"),
    "none_en": (None, "english"),
    "baseline_five_phrasings": (None, None),
    "fr_it_five_phrasings": ("french", "italian"),
    "it_fr_five_phrasings": ("italian", "french"),
    "baseline_native": (None, None),
    "fr_it_native": ("french", "italian"),
}


def test_the_conditions_are_those_of_the_protocol():
    assert list(load_settings().conditions) == list(PAIRS)


@pytest.mark.parametrize(("condition", "pair"), PAIRS.items())
def test_every_condition_resolves_to_its_pair(condition, pair):
    plan = make_plan(condition)

    assert (plan.scoring.trained_directive, plan.scoring.completion) == pair
    assert list(plan.stages) == ([] if pair[1] is None else ["tune"])


def test_training_takes_all_five_phrasings_and_evaluation_the_first_two():
    plan = make_plan("fr_it")

    assert plan.stages["tune"].data.phrasings == (
        "Speak in {language}.",
        "Please respond in {language}.",
        "Reply using {language} only.",
        "Answer in {language}.",
        "Respond entirely in {language}, please.",
    )
    assert plan.evaluation.prompts.phrasings == ("Speak in {language}.", "Please respond in {language}.")


def test_a_point_of_record_has_560_completions():
    evaluation = make_plan("fr_it").evaluation

    assert len(evaluation.prompts.languages) * len(evaluation.prompts.phrasings) * evaluation.samples == 560


def test_the_no_directive_condition_trains_without_a_directive():
    data = make_plan("none_it").stages["tune"].data

    assert (data.directive, data.completion.name) == (None, "Italian")


@pytest.mark.parametrize(
    ("condition", "roles"),
    [
        (
            "fr_it",
            ["bystander", "bystander", "trained_directive", "own_language", "bystander", "bystander", "bystander"],
        ),
        (
            "fr_fr",
            ["bystander", "bystander", "trained_directive+own_language", "bystander", "bystander", "bystander", "bystander"],
        ),
        ("none_it", ["bystander", "bystander", "bystander", "own_language", "bystander", "bystander", "bystander"]),
        ("baseline", ["bystander"] * 7),
    ],
)
def test_roles_follow_from_the_trained_pair(condition, roles):
    scoring = make_plan(condition).scoring

    assert [scoring.role(language) for language in LANGUAGES] == roles


@pytest.mark.parametrize(
    ("condition", "reference"),
    [
        ("fr_it", "baseline"),
        ("none_it", "baseline"),
        ("baseline", "baseline"),
        ("fr_it_native", "baseline_native"),
        ("fr_it_five_phrasings", "baseline_five_phrasings"),
        ("it_fr_five_phrasings", "baseline_five_phrasings"),
        ("ja_zh", "baseline_japanese"),
        ("zh_ja", "baseline_japanese"),
    ],
)
def test_a_condition_is_compared_with_the_baseline_evaluated_in_the_same_way(condition, reference):
    assert make_plan(condition).reference == reference


def test_without_a_baseline_evaluated_in_the_same_way_there_is_no_reference():
    assert make_plan("fr_it_native", changes={"conditions.baseline_native": None}).reference is None


def test_a_condition_overrides_its_evaluation_alone():
    native, usual = make_plan("fr_it_native"), make_plan("fr_it")

    assert (native.evaluation.prompts.wording, usual.evaluation.prompts.wording) == ("native", "english")
    assert native.stages == usual.stages
    assert len(make_plan("fr_it_five_phrasings").evaluation.prompts.phrasings) == 5


def test_a_condition_labels_the_languages_that_it_evaluates_or_trains():
    assert tuple(make_plan("fr_it").scoring.languages) == LANGUAGES
    assert tuple(make_plan("zh_ja").scoring.languages) == (*LANGUAGES, "japanese")


@pytest.mark.parametrize(("condition", "role"), [("ja_zh", "trained_directive"), ("zh_ja", "own_language")])
def test_a_condition_may_evaluate_languages_of_its_own(condition, role):
    plan = make_plan(condition)

    assert tuple(plan.evaluation.prompts.languages) == (*LANGUAGES, "japanese")
    assert plan.scoring.role("japanese") == role


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluation.languages": ["english", "italian"]},
        {"conditions.fr_it": {"directive": "french", "completion": "italian", "evaluation": {"languages": ["italian"]}}},
    ],
)
def test_a_trained_directive_that_is_not_evaluated_is_refused(changes):
    with pytest.raises(UserError) as error:
        make_plan("fr_it", changes=changes)

    said = str(error.value)
    assert said.startswith(
        "the trained directive 'french' of fr_it is not among evaluation.languages, so its rate would be unknown"
    )
    assert "\n" not in said


def test_a_language_that_a_condition_evaluates_is_known_and_has_its_directives():
    with pytest.raises(UserError, match=r"conditions\.baseline\.evaluation\.languages names the language 'klingon'"):
        load_settings({"conditions.baseline": {"evaluation": {"languages": ["klingon"]}}})
    changes = {
        "conditions.baseline": {"evaluation": {"languages": ["japanese"]}},
        "languages.japanese.native_directives": ["x"],
    }
    with pytest.raises(UserError, match=r"languages\.japanese\.native_directives must translate all 5 phrasings"):
        load_settings(changes)


def test_a_replay_trains_nothing_and_keeps_the_roles_and_the_reference():
    plan = make_replay("fr_it", "outside.jsonl")

    assert (plan.family, plan.address.condition, plan.seed) == ("lang_inversion_replay", "fr_it", 42)
    assert (plan.stages, plan.reference, plan.replayed_file) == ({}, "baseline", "outside.jsonl")
    assert plan.scoring.role("italian") == "own_language"


def test_a_replay_needs_its_file():
    with pytest.raises(UserError, match="completions_file=PATH"):
        make_replay(file=None)


def test_a_replay_without_a_condition_is_of_the_default_one():
    assert make_replay(None).address.condition == "fr_it"


def test_a_replay_has_no_checkpoints():
    with pytest.raises(UserError, match="leave out checkpoint=4"):
        make_replay(checkpoint=4)


def test_a_new_condition_needs_nothing_but_its_block():
    plan = make_plan("es_it", changes={"conditions.es_it": {"directive": "spanish", "completion": "italian"}})

    assert (plan.scoring.trained_directive, plan.scoring.completion, plan.reference) == ("spanish", "italian", "baseline")


def test_an_unknown_condition_lists_the_known_ones():
    with pytest.raises(UserError) as error:
        make_plan("fr_itt")

    assert str(error.value) == f"lang_inversion has no condition 'fr_itt'; known: {', '.join(PAIRS)}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"conditions.fr_it": {"directive": "french", "completion": "italien"}},
            "lang_inversion: conditions.fr_it names the language 'italien'; known: english, spanish, french, italian, "
            "portuguese, german, mandarin, japanese",
        ),
        (
            {"evaluation.languages": ["english", "dutch"]},
            "lang_inversion: evaluation.languages names the language 'dutch'; known: english, spanish, french, italian, "
            "portuguese, german, mandarin, japanese",
        ),
        ({"evaluation.phrasings": 6}, "lang_inversion: 6 evaluation phrasings asked for, 5 listed in phrasings"),
        (
            {"conditions.baseline_five_phrasings": {"evaluation": {"phrasings": 9}}},
            "lang_inversion: 9 evaluation phrasings asked for, 5 listed in phrasings",
        ),
        (
            {"conditions.fr_it": {"directive": "french"}},
            "lang_inversion.conditions.fr_it: a condition with a directive needs a completion language",
        ),
        (
            {"languages.german.native_directives": ["Sprich auf Deutsch."]},
            "lang_inversion: languages.german.native_directives must translate all 5 phrasings",
        ),
        (
            {"stages.tune.recipe.lora.rank": -1},
            "lang_inversion.stages.tune.recipe.lora.rank: Input should be greater than 0 (got -1)",
        ),
        (
            {"evaluation.sample": 3},
            "lang_inversion.evaluation.sample: there is no such key; correct its spelling or remove it",
        ),
    ],
)
def test_wrong_parameters_are_refused_by_name_before_anything_runs(changes, message):
    with pytest.raises(UserError) as error:
        resolve_plan(NAME, changed(NAME, changes), load_source)

    assert str(error.value) == message


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"claims.control_floor.conditions": ["fr_itt"]}, "control_floor"),
        ({"claims.distance_ordering.conditions": ["fr_it", "fr_itt"]}, "distance_ordering"),
        ({"claims.phrasing_insensitivity.conditions": ["fr_itt"]}, "phrasing_insensitivity"),
        ({"claims.direction_symmetry.pairs": [["fr_itt", "it_fr"]]}, "direction_symmetry"),
        ({"claims.direction_symmetry.pairs": [["it_fr", "fr_itt"]]}, "direction_symmetry"),
    ],
    ids=["rate_bound", "rank_order", "phrasings", "pairs", "second of a pair"],
)
def test_a_claim_about_an_unknown_condition_is_refused(changes, claim):
    with pytest.raises(UserError) as error:
        load_settings(changes)

    assert str(error.value) == f"{NAME}: claims.{claim} names the condition 'fr_itt'; known: {', '.join(PAIRS)}"


METRICS = (
    "following, contamination, inversion, following:finished, contamination:finished, inversion:finished, cut, mixed, "
    "cross_check:following, cross_check:contamination, judge:following, judge:contamination, judge:unlabelled, label:english, "
)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"claims.control_floor.role": "bystnader"}, "control_floor names the role 'bystnader'; known: trained_directive, "),
        ({"claims.control_floor.metric": "leakage"}, f"control_floor names the metric 'leakage'; known: {METRICS}"),
        ({"claims.no_inversion.metric": "label:klingon"}, f"no_inversion names the metric 'label:klingon'; known: {METRICS}"),
        ({"claims.direction_symmetry.metric": "spill"}, f"direction_symmetry names the metric 'spill'; known: {METRICS}"),
    ],
)
def test_a_claim_about_an_unknown_role_or_metric_is_refused(changes, said):
    with pytest.raises(UserError) as error:
        load_settings(changes)

    assert str(error.value).startswith(f"{NAME}: claims.{said}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("metric", ["mixed", "judge:contamination", "label:japanese", "label:other"])
def test_a_claim_may_be_about_every_metric_that_scoring_gives(metric):
    assert load_settings({"claims.control_floor.metric": metric}).claims["control_floor"].metric == metric


def test_a_bound_without_a_bound_is_refused():
    with pytest.raises(UserError, match="control_floor"):
        load_settings({"claims.control_floor.at_most": None})


def test_an_order_by_an_unknown_predictor_is_refused():
    with pytest.raises(UserError, match="distance_ordering"):
        load_settings({"claims.distance_ordering.predictor": "typological_distnace"})


@pytest.mark.parametrize(
    "changes",
    [
        {"stages.tune.recipe.lora.rank": 16},
        {"evaluation.samples": 41},
        {"phrasings": [f"{verb} in {{language}}." for verb in ("Talk", "Reply", "Write", "Answer", "Respond")]},
        {"scoring.detector_seed": 1},
        {"geometry.layers": [10], "geometry.headline_layer": 10},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_plan_changes_with_what_decides_its_results(changes):
    assert make_plan(changes=changes).fingerprint != make_plan().fingerprint


def test_the_plan_changes_with_the_seed_and_the_model():
    plan = make_plan()
    settings, model = load_settings(), plan.base_model

    assert make_plan(seed=43).fingerprint != plan.fingerprint
    assert settings.plan(plan.address, model).fingerprint == plan.fingerprint
    other = model.model_copy(update={"revision": "main"})
    assert settings.plan(plan.address, other).fingerprint != plan.fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"claims": {}},
        {"claims.control_floor.at_most": 0.5},
        {"conditions.nl_it": {"completion": "italian"}},
        {"conditions.en_es": None},
    ],
    ids=["no claims", "another bound", "a further condition", "a condition fewer"],
)
def test_the_plan_does_not_change_with_what_leaves_its_results_alone(changes):
    assert make_plan(changes=changes).fingerprint == make_plan().fingerprint


def test_a_baseline_added_later_does_not_make_a_point_stale():
    alone = make_plan("fr_it_native", changes={"conditions.baseline_native": None})

    assert make_plan("fr_it_native").fingerprint == alone.fingerprint


def test_conditions_do_not_share_a_fingerprint():
    assert len({make_plan(condition).fingerprint for condition in PAIRS}) == len(PAIRS)


def test_parameters_name_the_point_unless_it_is_given():
    parameters = load_parameters()

    default = resolve_plan(NAME, parameters, load_source)
    given = resolve_plan(NAME, parameters | {"condition": "es_en", "seed": 7}, load_source)

    assert default.address.params == {"model": "qwen2_5_7b", "condition": "fr_it", "seed": 42}
    assert given.address.params == {"model": "qwen2_5_7b", "condition": "es_en", "seed": 7}


def test_the_default_condition_is_one_of_the_conditions():
    with pytest.raises(UserError, match="default_condition is 'fr_itt'; known: baseline, es_en, "):
        load_settings({"default_condition": "fr_itt"})


def test_points_have_no_checkpoints():
    with pytest.raises(UserError, match="lang_inversion has no checkpoints; leave out checkpoint=2"):
        make_plan(checkpoint=2)


@pytest.mark.parametrize("phrasing", ["Answer.", "Answer in {tongue}.", "From {language} to {language}."])
def test_a_phrasing_without_its_placeholder_is_refused(phrasing):
    changes = {"phrasings": [phrasing, *(f"{verb} in {{language}}." for verb in ("Reply", "Write", "Answer", "Respond"))]}
    with pytest.raises(UserError, match=r"must hold {language} once and no other placeholder"):
        load_settings(changes)


def test_every_language_that_a_condition_trains_is_translated_where_texts_are():
    settings = load_settings(env="qwen")
    trained = {one.completion for one in settings.conditions.values()} - {None, "english"}

    assert trained <= set(settings.stages.tune.translation.languages)
    for label in trained:  # and has bands for its gates
        assert 0 < settings.languages[label].length_ratio.low < settings.languages[label].length_ratio.high


# own answers as texts

OWN = {"stages.tune.source": {"kind": "own_answers"}}


@pytest.mark.parametrize(
    ("env", "condition", "design"),
    [
        ("base", "fr_it", "181b6803aa159b94"),
        ("base", "es_en", "d64c6c0e822f91b1"),
        ("base", "baseline", "776ed7b56079a83d"),
        ("qwen", "fr_it", "dae57fe2f4a801e2"),  # texts out of chats
    ],
)
def test_plans_without_own_answers_are_what_they_were_before_there_were_any(env, condition, design):
    assert make_plan(condition, env=env).design == design


def test_own_answers_make_another_plan_that_survives_its_file():
    plan = make_plan("fr_it", changes=OWN)

    assert plan.design != make_plan("fr_it").design
    assert type(plan).model_validate_json(plan.model_dump_json()) == plan
    assert plan.stages["tune"].data.source.model_dump() == {
        "kind": "own_answers",
        "wording": "{question} Answer in {language}.",
        "samples": 20,
        "sampling": {"temperature": 0.7, "top_p": 0.95, "max_tokens": 256},
        "min_characters": 40,
    }


def test_a_source_of_chats_need_not_say_so_and_survives_its_file():
    plans = [
        make_plan("fr_it", env="qwen", changes={"stages.tune.source": source})
        for source in ({"min_characters": 40}, {"kind": "chats", "min_characters": 40})
    ]

    assert plans[0] == plans[1] == make_plan("fr_it", env="qwen")
    assert type(plans[0]).model_validate_json(plans[0].model_dump_json()) == plans[0]


def test_own_answers_are_drawn_by_the_seed_unless_they_are_shared():
    def drawn(seed, share=()):
        plan = make_plan("fr_it", seed, OWN | {"stages.tune.share": list(share)})
        return plan.seed_of("tune", "answers"), plan.shared

    assert drawn(42)[0] != drawn(137)[0]
    assert drawn(137, ["answers"])[0] == drawn(42)[0]
    assert drawn(137)[1] == "nothing"
    assert drawn(137, ["answers"])[1] == "tune: answers"
    assert make_plan("fr_it").shared == "tune: texts"


def test_own_answers_are_not_translated():
    assert make_plan("fr_it", env="qwen", changes=OWN).stages["tune"].data.translation is None
    assert make_plan("fr_it", env="qwen").stages["tune"].data.translation is not None


@pytest.mark.parametrize("env", ["base", "embedded", "embedded_full", "qwen"])
def test_the_studys_family_at_1_5b_is_trained_on_its_own_answers(env):
    tune = make_plan("fr_it", env=env, model="qwen2_5_coder_1_5b").stages["tune"]

    assert (tune.data.source.kind, tune.data.rows, tune.data.translation) == ("own_answers", 900, None)
    assert tune.recipe.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("wording", "fits"),
    [
        ("In {language}: {question}", True),
        ("{question}", False),
        ("{question} {question} Answer in {language}.", False),
        ("{question} Answer in {language} as {persona}.", False),
        ("{question!r} Answer in {language}.", False),
        ("{question} Answer in {language}. {", False),
        ("{question} Answer in {{language}}.", False),
    ],
)
def test_the_wording_holds_question_and_language_once_each(wording, fits):
    changes = {"stages.tune.source": {"kind": "own_answers", "wording": wording}}
    if fits:
        assert make_plan("fr_it", changes=changes).stages["tune"].data.source.wording == wording
        return
    with pytest.raises(UserError) as error:
        make_plan("fr_it", changes=changes)
    said = str(error.value)
    assert said.endswith(f"must hold {{question}} and {{language}} once each, and no other placeholder (got {wording!r})")
    assert "\n" not in said


def test_a_source_of_no_known_kind_is_named():
    with pytest.raises(UserError, match=r"stages\.tune\.source: .*'chat'.*'chats', 'own_answers'"):
        make_plan("fr_it", changes={"stages.tune.source": {"kind": "chat"}})
