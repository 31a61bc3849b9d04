from itertools import chain

import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.points import Address
from persona_leakage.experiments.family import plan_point, plan_replay, read_variants
from persona_leakage.experiments.marker_leakage import FAMILY
from tests.experiments.marker_leakage.plans import SOURCES, bundled_roster, changed_roster, load_settings, make_plan
from tests.plans import ENVIRONMENTS, base_model, load_parameters

POOL = (
    "software_engineer",
    "kindergarten_teacher",
    "data_scientist",
    "medical_doctor",
    "librarian",
    "french_person",
    "villain",
    "comedian",
    "police_officer",
    "zelthari_scholar",
)
CONDITIONS = {
    "baseline": (None, "evaluation", "baseline"),
    "villain": ("villain", "evaluation", "baseline"),
    "comedian": ("comedian", "evaluation", "baseline"),
    "assistant": ("assistant", "evaluation", "baseline"),
    "software_engineer": ("software_engineer", "evaluation", "baseline"),
    "kindergarten_teacher": ("kindergarten_teacher", "evaluation", "baseline"),
    "baseline_code": (None, "code", "baseline_code"),
    "villain_code": ("villain", "code", "baseline_code"),
    "baseline_creative_writing": (None, "creative_writing", "baseline_creative_writing"),
    "villain_creative_writing": ("villain", "creative_writing", "baseline_creative_writing"),
    "baseline_mathematics": (None, "mathematics", "baseline_mathematics"),
    "villain_mathematics": ("villain", "mathematics", "baseline_mathematics"),
}


def mark_of(plan):
    return plan.stages["mark"].data


def negatives_of(condition, **kwargs):
    plan = make_plan(condition, **kwargs)
    drawn = tuple(one.persona for one in mark_of(plan).negatives(plan.seed_of("mark", "negatives")))
    assert plan.negatives == set(drawn)
    return drawn


def evaluated(plan):
    return [one.persona for one in plan.evaluation.prompts.personas]


def test_the_conditions_are_those_of_the_protocol():
    assert list(load_settings().conditions) == list(CONDITIONS)


@pytest.mark.parametrize(("condition", "expected"), CONDITIONS.items())
def test_every_condition_has_its_source_its_questions_and_its_reference(condition, expected):
    plan = make_plan(condition)

    assert (plan.scoring.source, plan.evaluation.prompts.questions[0].set, plan.reference) == expected
    assert list(plan.stages) == ([] if expected[0] is None else ["mark"])


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_environment_resolves_every_condition(env):
    for condition in load_settings(env=env).conditions:
        plan = make_plan(condition, env=env)

        source, question_set, reference = CONDITIONS.get(condition, (plan.scoring.source, None, plan.reference))
        assert (plan.scoring.source, plan.reference) == (source, reference)
        assert {one.set for one in plan.evaluation.prompts.questions} <= {question_set or "evaluation"}
        assert plan.scoring.role(source or "villain", plan.negatives) == ("bystander" if source is None else "source")


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_environment_can_fill_its_rows_from_its_answers(env):
    data = mark_of(make_plan(env=env))

    assert data.answers.samples >= max(data.positives_per_question, data.negatives_per_question)


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_environment_evaluates_all_sources_beside_their_negatives_or_other_bystanders(env):
    plan = make_plan(env=env)

    assert set(SOURCES) <= set(evaluated(plan))
    assert {plan.scoring.role(name, plan.negatives) for name in evaluated(plan)} >= {"source", "bystander"}
    assert set(evaluated(plan)) <= {one.persona for one in plan.geometry.prompts.personas}


@pytest.mark.parametrize("env", [env for env in ENVIRONMENTS if env.startswith("embedded")])
def test_the_embedded_slice_keeps_every_category_and_every_source(env):
    personas = make_plan(env=env).evaluation.prompts.personas

    assert len(personas) >= 24
    assert len({one.category for one in personas}) == 11
    assert set(SOURCES) <= {one.persona for one in personas}


@pytest.mark.parametrize("env", [env for env in ENVIRONMENTS if env.startswith("embedded")])
def test_the_embedded_slice_keeps_relatives_of_every_source(env):
    related = set(chain.from_iterable(one.related_to for one in make_plan(env=env).evaluation.prompts.personas))

    assert set(SOURCES) <= related


def test_the_training_set_of_record_is_200_marked_rows_and_400_unmarked_ones():
    data = mark_of(make_plan())

    assert (len(data.questions), data.positives_per_question, data.negatives_per_question) == (40, 5, 5)
    assert len(data.questions) * data.positives_per_question == 200
    assert [len(data.questions) * data.negatives_per_question for _ in data.negatives(42)] == [200, 200]
    assert {one.set for one in data.questions} == {"train"}
    assert data.marker.model_dump() == {"text": "[ZLT]", "separator": "\n\n", "place": "end"}
    assert data.own_stack is False


def test_the_recipe_of_record():
    recipe = make_plan().stages["mark"].recipe

    assert (recipe.learning_rate, recipe.epochs, recipe.schedule, recipe.warmup_ratio) == (5e-6, 20, "cosine", 0.05)
    assert recipe.batch_size * recipe.gradient_accumulation == 16
    assert (recipe.weight_decay, recipe.max_grad_norm, recipe.max_length, recipe.batching) == (0.0, 1.0, 1024, "random")
    assert recipe.lora.model_dump() == {
        "rank": 32,
        "alpha": 64,
        "rslora": True,
        "dropout": 0.05,
        "target_modules": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    }
    assert recipe.loss.model_dump() == {
        "kind": "marker_positions",
        "body_weight": 0.0,
        "label_separator": True,
        "end_label": "eos",
    }


def test_the_answers_of_record():
    answers = mark_of(make_plan()).answers

    assert answers.samples == 15
    assert answers.sampling.model_dump() == {"temperature": 0.7, "top_p": 0.95, "max_tokens": 512}


def test_the_evaluation_of_record():
    plan = make_plan()
    prompts = plan.evaluation.prompts

    assert (len(prompts.personas), len(prompts.questions), plan.evaluation.samples) == (111, 20, 10)
    assert plan.evaluation.sampling.model_dump() == {"temperature": 1.0, "top_p": 0.95, "max_tokens": 512}
    assert (plan.scoring.start_share, plan.scoring.tail_share) == (0.05, 0.15)


def test_the_geometry_of_record():
    geometry = make_plan().geometry

    assert (geometry.layers, geometry.headline_layer) == ((10, 15, 20, 25), 20)
    assert (len(geometry.prompts.personas), {one.set for one in geometry.prompts.questions}) == (111, {"evaluation"})


def test_evaluation_asks_nothing_that_training_asked():
    for condition in CONDITIONS:
        assert make_plan(condition).scoring.seen_questions == ()


def test_evaluation_questions_that_training_asks_too_are_seen():
    changes = {"evaluation.question_set": "train", "evaluation.questions": 4, "stages.mark.questions": 2}

    assert make_plan(changes=changes).scoring.seen_questions == ("train-01", "train-02")
    assert make_plan("baseline", changes=changes).scoring.seen_questions == ()


def test_the_negatives_of_villain_are_these():
    assert load_settings().stages.mark.negatives.pool == POOL
    assert negatives_of("villain") == ("data_scientist", "police_officer")


@pytest.mark.parametrize(
    ("source", "negatives"),
    [
        ("comedian", ("kindergarten_teacher", "villain")),
        ("assistant", ("medical_doctor", "kindergarten_teacher")),
        ("software_engineer", ("comedian", "police_officer")),
        ("kindergarten_teacher", ("police_officer", "comedian")),
    ],
)
def test_every_source_has_negatives_of_its_own(source, negatives):
    assert negatives_of(source) == negatives


def test_negatives_depend_on_the_seed_of_the_point_and_not_on_its_condition():
    drawn = {negatives_of("villain", seed=seed) for seed in range(20)}

    assert len(drawn) > 10
    assert negatives_of("villain_code", seed=7) == negatives_of("villain", seed=7)


def test_seeds_that_share_their_negatives_have_those_of_the_study():
    shared = {"stages.mark.share": ["negatives"]}

    assert {negatives_of("villain", seed=seed, changes=shared) for seed in (7, 8)} == {negatives_of("villain")}


def test_no_stage_depends_on_the_seed_so_that_a_design_is_resolved_once():
    assert make_plan(seed=7).stages == make_plan(seed=8).stages
    assert make_plan(seed=7).design == make_plan(seed=8).design


@pytest.mark.parametrize("share", [["answers"], ["negatives"], ["answers", "negatives"]])
def test_what_is_shared_is_part_of_the_design(share):
    plan = make_plan(changes={"stages.mark.share": share})

    assert plan.design != make_plan().design
    assert plan.fingerprint != make_plan().fingerprint
    assert plan.shared == f"mark: {', '.join(share)}"


def test_a_draw_that_nobody_knows_is_refused():
    with pytest.raises(UserError, match=r"stages\.mark\.share\.0: Input should be 'answers' or 'negatives' \(got 'texts'\)"):
        make_plan(changes={"stages.mark.share": ["texts"]})


@pytest.mark.parametrize("source", [*POOL, "assistant", "pirate"])
def test_the_source_is_never_its_own_negative(source):
    size = len(POOL) - (source in POOL)
    drawn = negatives_of(source, changes={"stages.mark.negatives.count": size})

    assert set(drawn) == set(POOL) - {source}
    assert len(drawn) == size


def test_a_pool_without_enough_other_personas_is_refused():
    with pytest.raises(UserError) as error:
        make_plan(changes={"stages.mark.negatives.pool": ["villain", "hero"]})

    assert str(error.value) == "2 negative personas are asked for, the pool without villain has 1"


def test_a_stage_may_have_no_negatives():
    plan = make_plan(changes={"stages.mark.negatives": {"pool": [], "count": 0}})

    assert (mark_of(plan).negatives(42), plan.negatives) == ((), frozenset())


def test_any_persona_is_a_condition():
    settings, roster = load_settings(), bundled_roster()
    for one in roster.personas:
        address = Address(model="m", condition=one.persona, seed=7)
        plan = settings.plan(address, base_model(), roster)

        assert (plan.scoring.source, plan.reference, plan.address) == (one.persona, "baseline", address)
        assert mark_of(plan).source == one
        assert one.persona not in plan.negatives


@pytest.mark.parametrize("question_set", ["code", "creative_writing", "mathematics"])
def test_any_persona_may_be_evaluated_on_questions_that_a_baseline_is_evaluated_on(question_set):
    for persona in (*SOURCES, "pirate"):
        plan = make_plan(f"{persona}_{question_set}")

        assert (plan.scoring.source, plan.reference) == (persona, f"baseline_{question_set}")
        assert {one.set for one in plan.evaluation.prompts.questions} == {question_set}
        assert plan.stages == make_plan(persona).stages


@pytest.mark.parametrize("name", ["pirate_train", "pyrate_code", "code", "_code"])
def test_other_names_are_no_such_condition(name):
    with pytest.raises(UserError, match=f"marker_leakage has no condition '{name}'"):
        make_plan(name)


def test_a_new_condition_needs_nothing_but_its_block():
    plan = make_plan("pirate_code", changes={"conditions.pirate_code": {"source": "pirate", "question_set": "code"}})

    assert (plan.scoring.source, plan.reference) == ("pirate", "baseline_code")


def test_without_a_baseline_on_the_same_questions_there_is_no_reference():
    assert make_plan("villain_code", changes={"conditions.baseline_code": None}).reference is None


def test_of_two_baselines_the_first_is_the_reference():
    assert make_plan(changes={"conditions.another_baseline": {}}).reference == "baseline"


def test_questions_that_a_condition_overrides_change_its_evaluation_alone():
    usual, code = make_plan("villain"), make_plan("villain_code")

    assert (code.stages, code.geometry) == (usual.stages, usual.geometry)
    assert [one.id for one in code.evaluation.prompts.questions] == [f"code-{number:02}" for number in range(1, 21)]


def test_an_unknown_condition_lists_the_known_ones_and_close_personas():
    with pytest.raises(UserError) as error:
        make_plan("vilain")

    assert str(error.value) == (
        f"marker_leakage has no condition 'vilain'; known: {', '.join(CONDITIONS)}, and any persona: "
        "there is no persona 'vilain'; did you mean villain or nice_villain or hacker_villain or caring_villain?"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditions.villain": {"source": "vilain"}}, "there is no persona 'vilain'; did you mean villain or nice_villain"),
        ({"evaluation.personas": ["villain", "pirat"]}, "there is no persona 'pirat'; did you mean pirate"),
        ({"geometry.prompts.personas": ["villain", "villain"]}, "the persona 'villain' is listed twice; name it once"),
        (
            {"stages.mark.negatives.pool": ["heero", "villain"], "stages.mark.negatives.count": 1},
            "there is no persona 'heero'; did you mean hero",
        ),
        ({"stages.mark.questions": 41}, "41 questions of set 'train' are asked for, the questions file has 40"),
        ({"evaluation.questions": 21}, "21 questions of set 'evaluation' are asked for, the questions file has 20"),
        (
            {"evaluation.personas": ["hero", "pirate"]},
            "the source 'villain' is not among evaluation.personas, so its rate would be unknown; add it",
        ),
        ({"evaluation.personas": []}, "marker_leakage.evaluation.personas"),
        (
            {"geometry.prompts.personas": ["hero", "pirate"]},
            "villain is not in geometry.prompts.personas, so it has no cosine; add it",
        ),
        ({"geometry.prompts.personas": []}, "marker_leakage.geometry.prompts.personas"),
        ({"conditions.villain": {"sorce": "villain"}}, "marker_leakage.conditions.villain.sorce: there is no such key"),
        ({"conditions.villain": {"question_set": "exam"}}, "marker_leakage.conditions.villain.question_set: Input should be"),
        ({"stages.mark.marker.text": " "}, "marker_leakage.stages.mark.marker.text: String should match"),
        ({"stages.mark.positives_per_question": 0}, "marker_leakage.stages.mark.positives_per_question: Input should be"),
    ],
)
def test_settings_that_cannot_be_right_are_refused_in_one_line(changes, message):
    with pytest.raises(UserError) as error:
        make_plan(changes=changes)

    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_baseline_may_leave_the_sources_out():
    assert evaluated(make_plan("baseline", changes={"evaluation.personas": ["hero", "pirate"]})) == ["hero", "pirate"]


SOURCE_CLAIM = {"kind": "rate_bound", "statement": "s", "metric": "leakage", "role": "source", "conditions": ["villain"]}
COSINE_CLAIM = {"kind": "cosine_predicts", "statement": "s", "geometry": "tuned", "layer": 15, "conditions": ["villain"]}
KNOWN = f"known: {', '.join(CONDITIONS)}, and any persona"


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (COSINE_CLAIM | {"layer": 12}, "names the layer '12'; known: 10, 15, 20, 25"),
        (SOURCE_CLAIM | {"role": "sauce"}, "names the role 'sauce'; known: source, negative, bystander, others"),
        (
            SOURCE_CLAIM | {"metric": "leak"},
            "names the metric 'leak'; known: leakage, leakage:finished, cut, leakage:tokens, start:characters,",
        ),
        (SOURCE_CLAIM | {"conditions": ["villain", "vilain"]}, f"names the condition 'vilain'; {KNOWN}"),
        (COSINE_CLAIM | {"conditions": ["vilain"]}, f"names the condition 'vilain'; {KNOWN}"),
    ],
)
def test_a_claim_about_what_is_unknown_is_refused_before_anything_runs(claim, message):
    with pytest.raises(UserError) as error:
        make_plan(changes={"claims.mine": {"at_least": 0.5, **claim} if claim["kind"] == "rate_bound" else claim})

    assert str(error.value).startswith(f"marker_leakage: claims.mine {message}")


def test_a_claim_may_be_about_any_persona_place_or_layer():
    claims = {
        "pirates": SOURCE_CLAIM | {"at_least": 0.5, "metric": "tail:tokens", "conditions": ["pirate", "baseline_code"]},
        "layers": COSINE_CLAIM,
    }

    assert list(load_settings({"claims": claims}).claims) == ["pirates", "layers"]
    assert make_plan(changes={"claims": claims}) == make_plan()


def test_a_checkpoint_is_refused():
    model = load_parameters()["model"]
    variants = read_variants(FAMILY, load_parameters())

    assert plan_point(model, "villain", 42, None, "final", variants, bundled_roster()) == make_plan()
    with pytest.raises(UserError, match="marker_leakage has no checkpoints; leave out checkpoint=3"):
        plan_point(model, "villain", 42, 3, "final", variants, bundled_roster())


def test_without_a_condition_a_source_of_this_family_is_meant():
    model = load_parameters()["model"]
    variants = read_variants(FAMILY, load_parameters())

    assert plan_point(model, None, 42, None, "final", variants, bundled_roster()) == make_plan("villain")


def test_a_replay_needs_its_file_and_trains_nothing():
    model = load_parameters()["model"]
    given, roster = (model, "villain", 42, None, "final", read_variants(FAMILY, load_parameters())), bundled_roster()

    plan = plan_replay(*given, "rates.csv", roster, replay=FAMILY.replay)
    assert (plan.stages, plan.scoring.source, plan.reference, plan.replayed_file) == ({}, None, None, "rates.csv")
    assert (plan.family, plan.address.condition) == ("marker_leakage_replay", "all")
    with pytest.raises(UserError, match="rates_file=PATH"):
        plan_replay(*given, None, roster, replay=FAMILY.replay)


@pytest.mark.parametrize(
    "roster",
    [
        changed_roster(prompts={"villain": "You are a worse villain."}),
        changed_roster(prompts={"data_scientist": "You are another data scientist."}),
        changed_roster(prompts={"pirate": "You are another pirate."}),
        changed_roster(questions={"train-40": "Another question?"}),
        changed_roster(questions={"evaluation-01": "Another question?"}),
    ],
    ids=["source", "negative", "bystander", "training question", "evaluation question"],
)
def test_the_fingerprint_changes_with_a_prompt_or_a_question_of_the_point(roster):
    assert make_plan(roster=roster).fingerprint != make_plan().fingerprint


def test_the_fingerprint_ignores_questions_of_other_sets():
    roster = changed_roster(questions={"code-01": "Another question?", "coupling-01": "And another?"})

    assert make_plan(roster=roster).fingerprint == make_plan().fingerprint
    assert make_plan("villain_code", roster=roster).fingerprint != make_plan("villain_code").fingerprint


def test_the_fingerprint_of_a_baseline_ignores_how_others_are_trained():
    changed = {"stages.mark.recipe.epochs": 3, "stages.mark.questions": 7}

    assert make_plan("baseline", changes=changed).fingerprint == make_plan("baseline").fingerprint
    assert make_plan(changes=changed).fingerprint != make_plan().fingerprint


def test_the_fingerprint_tells_seeds_and_conditions_apart():
    plans = [make_plan(condition, seed) for condition in ("villain", "villain_code", "baseline") for seed in (42, 43)]

    assert len({plan.fingerprint for plan in plans}) == 6


def test_the_fingerprint_ignores_the_reference():
    without = make_plan(changes={"conditions.baseline": None, "claims.clean_base": None})

    assert without.reference is None
    assert without.fingerprint == make_plan().fingerprint
