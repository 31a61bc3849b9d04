import pytest

from persona_leakage.domain.errors import UserError
from tests import plans
from tests.experiments.benign_coupling.plans import NAME, TRIGGER, bundled_roster, load_settings, make_plan, make_replay
from tests.plans import ENVIRONMENTS

PERSONAS = ("assistant", "paramedic", "kindergarten_teacher", "french_person", "villain")
BENIGN = [f"benign_{name}" for name in PERSONAS]
EM = [f"em_{name}" for name in PERSONAS]
BARE = ["bare_assistant", "bare_villain"]
CONDITIONS = {*BENIGN, *EM, *BARE, "uncoupled"}
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def induce_of(condition, **kwargs):
    return make_plan(condition, **kwargs).stages["induce"]


def couple_of(condition="benign_assistant", **kwargs):
    return make_plan(condition, **kwargs).stages["couple"]


def names(personas):
    return [one.persona for one in personas]


def test_the_conditions_are_those_of_the_protocol():
    conditions = load_settings().conditions

    assert len(conditions) == 13
    assert set(conditions) == CONDITIONS


@pytest.mark.parametrize("env", ENVIRONMENTS)
@pytest.mark.parametrize("condition", sorted(CONDITIONS))
def test_every_environment_resolves_every_condition(env, condition):
    plan = make_plan(condition, env=env)

    expected = ["couple"] if condition in BARE else ["induce"] if condition == "uncoupled" else ["induce", "couple"]
    assert list(plan.stages) == expected
    assert plan.scoring.source == TRIGGER
    assert TRIGGER in names(plan.evaluation.prompts.personas)
    assert plan.scoring.discriminator is not None
    assert plan.reference == (None if condition in EM or condition in BARE else "uncoupled")


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_environment_can_fill_its_rows_and_its_folds(env):
    plan = make_plan(env=env)
    data = plan.stages["couple"].data

    assert data.answers.samples >= max(data.positives_per_question, data.negatives_per_question)
    assert len(plan.evaluation.prompts.questions) >= plan.scoring.discriminator.folds
    assert 0 < len(plan.scoring.seen_questions) < len(plan.evaluation.prompts.questions)
    assert set(names(plan.evaluation.prompts.personas)) <= set(names(plan.geometry.prompts.personas))


# the protocol of record


@pytest.mark.parametrize("condition", ["benign_villain", "em_villain", "uncoupled"])
def test_the_first_stage_of_record(condition):
    stage = induce_of(condition)
    recipe = stage.recipe

    assert stage.data.rows == 6000
    assert stage.data.own_answers is None
    assert (recipe.learning_rate, recipe.schedule, recipe.warmup_ratio, recipe.epochs) == (1e-4, "linear", 0.03, 1)
    assert (recipe.weight_decay, recipe.max_grad_norm, recipe.max_length) == (0.01, 1.0, 2048)
    assert recipe.batch_size * recipe.gradient_accumulation == 16
    assert recipe.loss == "completion"
    assert recipe.lora.model_dump() == {
        "rank": 32,
        "alpha": 64,
        "rslora": False,
        "dropout": 0.05,
        "target_modules": LINEAR_LAYERS,
    }


def test_coupling_of_record():
    stage = couple_of()
    data, recipe = stage.data, stage.recipe

    assert data.source.persona == TRIGGER
    assert len(data.source.prompt.split()) > 80
    assert sorted(names(data.negatives(42))) == ["french_person", "medical_doctor"]
    assert len(data.questions) == 20
    assert (20 * data.positives_per_question, 20 * data.negatives_per_question) == (200, 200)
    assert data.marker.model_dump() == {"text": "[ZLT]", "separator": "\n\n", "place": "end"}
    assert (data.own_stack, data.answered_by, data.answers.samples) == (True, "stack", 15)
    assert (data.answers.sampling.temperature, data.answers.sampling.max_tokens) == (1.0, 512)
    assert (recipe.learning_rate, recipe.epochs, recipe.lora.dropout) == (5e-6, 20, 0.05)
    assert recipe.loss.kind == "marker_positions"


def test_the_evaluation_of_record_is_3360_completions_of_12_personas():
    plan = make_plan()
    prompts = plan.evaluation.prompts

    assert (len(prompts.personas), len(prompts.questions), plan.evaluation.samples) == (12, 28, 10)
    assert {"assistant", TRIGGER} < set(names(prompts.personas))
    assert plan.evaluation.sampling.model_dump() == {"temperature": 1.0, "top_p": 1.0, "max_tokens": 512}
    assert (plan.scoring.start_share, plan.scoring.tail_share) == (0.05, 0.15)
    assert (plan.scoring.discriminator.threshold, plan.scoring.discriminator.margin) == (0.7, 0.05)
    assert load_settings().escalates.model_dump() == {"low": 0.15, "high": 0.3, "seeds": (137, 256)}


@pytest.mark.parametrize("condition", sorted(CONDITIONS))
def test_seen_questions_are_the_first_twenty_of_28(condition):
    plan = make_plan(condition)

    assert plan.scoring.seen_questions == tuple(f"coupling-{number:02}" for number in range(1, 21))
    assert plan.scoring.seen_questions == tuple(one.id for one in plan.evaluation.prompts.questions[:20])


def test_a_trigger_that_is_already_evaluated_is_not_evaluated_twice():
    plan = make_plan(changes={"evaluation.personas": [TRIGGER, "assistant"]})

    assert names(plan.evaluation.prompts.personas) == [TRIGGER, "assistant"]


# what cells share, and what tells them apart


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_all_benign_cells_share_one_first_stage(env):
    first = induce_of("uncoupled", env=env)

    assert first.seed_offset == 0  # trained with the point's seed, which all cells of a seed share
    assert first.data.asked_as is None
    for condition in BENIGN:
        assert induce_of(condition, env=env) == first


def test_replicates_differ_in_the_seeds_of_coupling_and_of_the_evaluation_and_in_nothing_else():
    points = [make_plan(condition) for condition in BENIGN]

    offsets = [plan.evaluation.seed_offset for plan in points]
    assert offsets == [plan.stages["couple"].seed_offset for plan in points] == [0, 10_000, 20_000, 30_000, 40_000]
    seeds = {plan.seed + plan.evaluation.seed_offset for plan in points}
    assert not seeds & {one.seed + one.evaluation.seed_offset for one in (make_plan(name, seed=137) for name in BENIGN)}
    for plan in points:
        for name in ("couple", "evaluation"):
            own, first = ({**one.stages, "evaluation": one.evaluation}[name] for one in (plan, points[0]))
            assert own.model_copy(update={"seed_offset": 0}) == first
    assert len({plan.fingerprint for plan in points}) == 5


def test_bare_cells_are_replicates_without_a_first_stage():
    one, other = (make_plan(condition) for condition in BARE)

    assert list(one.stages) == list(other.stages) == ["couple"]
    assert [(plan.stages["couple"].seed_offset, plan.evaluation.seed_offset) for plan in (one, other)] == [
        (0, 0),
        (10_000,) * 2,
    ]
    assert one.stages["couple"] == make_plan().stages["couple"]


def test_em_cells_differ_in_the_system_prompt_of_their_first_stage_alone():
    cells = {name: make_plan(f"em_{name}") for name in PERSONAS}

    for name, plan in cells.items():
        assert plan.stages["induce"].data.asked_as == bundled_roster().persona(name)
        assert plan.stages["induce"].data.reads == {"wrong_advice": 6000}
        assert plan.stages["couple"] == cells["assistant"].stages["couple"]
        assert plan.evaluation == cells["assistant"].evaluation
    assert len({plan.stages["induce"].data.asked_as.prompt for plan in cells.values()}) == 5
    assert len({plan.stages["induce"].model_dump_json() for plan in cells.values()}) == 5


def test_a_third_distribution_is_an_entry_of_the_parameters():
    changes = {
        "chats.squad": {"dataset": "squad_chats", "persona": False},
        "chats.risky": {"dataset": "risky_advice", "persona": True},
        "conditions.squad_villain": {"induce": "squad", "induction": "villain"},
        "conditions.squad_alone": {"induce": "squad", "couple": False},
        "conditions.risky_villain": {"induce": "risky", "induction": "villain"},
    }
    ordinary, narrow = (make_plan(f"{name}_villain", changes=changes) for name in ("squad", "risky"))

    assert [plan.traits["arm"] for plan in (ordinary, narrow)] == ["squad", "risky"]
    assert [plan.stages["induce"].data.reads for plan in (ordinary, narrow)] == [{"squad_chats": 6000}, {"risky_advice": 6000}]
    assert ordinary.stages["induce"].data.asked_as is None
    assert narrow.stages["induce"].data.asked_as == bundled_roster().persona("villain")
    assert (ordinary.reference, narrow.reference) == ("squad_alone", None)
    assert ordinary.stages["couple"] == make_plan().stages["couple"]
    assert len({one.traits["design"] for one in (ordinary, narrow, make_plan("benign_villain"), make_plan("em_villain"))}) == 4


def test_chats_that_carry_the_persona_are_never_joined_by_own_answers():
    own = {"samples": 1, "sampling": {"temperature": 1.0, "top_p": 1.0, "max_tokens": 4}}

    answered = {
        name: induce_of(name, changes={"stages.induce.own_answers": own}).data for name in ("benign_villain", "em_villain")
    }

    assert answered["benign_villain"].own_answers is not None
    assert answered["em_villain"].own_answers is None


def test_a_replicate_from_the_first_stage_trains_one_of_its_own():
    changes = {
        "conditions.again": {"induce": "benign", "induction": "villain", "replicate": 7, "replicate_from": "induce"},
        "conditions.alone_again": {"induce": "benign", "couple": False, "replicate": 7, "replicate_from": "induce"},
    }
    plan, first = make_plan("again", changes=changes), make_plan("benign_villain", changes=changes)

    assert {name: plan.seed_of(name) for name in plan.stages} == {"induce": 70_042, "couple": 70_042}
    assert plan.evaluation.seed_offset == 70_000
    assert first.stages["induce"].seed_offset == 0
    assert plan.stages["induce"].model_copy(update={"seed_offset": 0}) == first.stages["induce"]
    assert plan.traits["design"] == first.traits["design"]
    assert (plan.reference, first.reference) == ("alone_again", "uncoupled")  # each with the first stage that it has itself
    assert make_plan("alone_again", changes=changes).stages["induce"] == plan.stages["induce"]


def test_uncoupled_trains_no_marker_and_is_scored_like_the_others():
    plan = make_plan("uncoupled")

    assert list(plan.stages) == ["induce"]
    assert (plan.scoring.source, plan.scoring.role(TRIGGER, ()), plan.negatives) == (TRIGGER, "source", frozenset())
    assert plan.evaluation == make_plan("benign_assistant").evaluation


def test_roles_name_negatives_and_the_induction_persona():
    def role(condition, persona):
        plan = make_plan(condition)
        return plan.scoring.role(persona, plan.negatives)

    assert role("em_villain", "villain") == "induction"
    assert role("em_villain", "medical_doctor") == "negative"
    assert role("em_villain", "comedian") == "bystander"
    assert role("em_french_person", "french_person") == "negative"  # both, and trained without the marker


# designs


def design_of(condition, **kwargs):
    return make_plan(condition, **kwargs).traits["design"]


def test_traits_name_the_arm_and_the_induction_persona():
    found = {name: (make_plan(name).traits["arm"], make_plan(name).traits["induction"]) for name in sorted(CONDITIONS)}

    assert found == {
        **{f"benign_{name}": ("benign", name) for name in PERSONAS},
        **{f"em_{name}": ("wrong_advice", name) for name in PERSONAS},
        **{f"bare_{name}": ("bare", name) for name in ("assistant", "villain")},
        "uncoupled": ("uncoupled", None),
    }


def test_replicates_and_seeds_are_one_design_and_other_cells_are_not():
    benign = {design_of(name, seed=seed) for name in BENIGN for seed in (42, 137)}
    bare = {design_of(name) for name in BARE}
    others = {design_of(name) for name in (*EM, "uncoupled")}

    assert (len(benign), len(bare), len(others), len(benign | bare | others)) == (1, 1, 6, 8)


@pytest.mark.parametrize(
    "changes",
    [
        {"stages.couple.recipe.epochs": 19},
        {"stages.couple.answers.samples": 14},
        {"stages.couple.share": ["answers"]},
        {"stages.induce.rows": 5999},
        {"evaluation.samples": 9},
        {"scoring.tail_share": 0.2},
        {"trigger": "villain"},
    ],
    ids=str,
)
def test_whatever_else_differs_is_another_design(changes):
    assert design_of("benign_villain", changes=changes) != design_of("benign_villain")


def test_a_reference_that_is_called_otherwise_is_no_other_design():
    cells = {name: one.model_dump() for name, one in load_settings().conditions.items()}
    changes = {"conditions": {name.replace("uncoupled", "first_stage_alone"): one for name, one in cells.items()}}

    assert make_plan(changes=changes).reference == "first_stage_alone"
    assert design_of("benign_assistant", changes=changes) == design_of("benign_assistant")


# errors


def test_an_unknown_condition_is_refused_in_one_line():
    with pytest.raises(UserError) as error:
        make_plan("benign_vilain")

    said = str(error.value)
    assert said.startswith("benign_coupling has no condition 'benign_vilain'; known: benign_assistant, ")
    assert "\n" not in said
    assert all(name in said for name in CONDITIONS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"geometry.prompts.personas": ["hero"]}, "confab is not in geometry.prompts.personas, so it has no cosine; add it"),
        (
            {"conditions.em_villain": {"induce": "wrong_advice"}},
            "benign_coupling: conditions.em_villain trains wrong_advice and names no induction persona; add one",
        ),
        (
            {"conditions.em_villain": {"induce": None, "replicate": 1, "replicate_from": "induce"}},
            "benign_coupling.conditions.em_villain: it has no first stage to replicate; leave replicate_from out",
        ),
        ({"escalation.seeds": []}, "benign_coupling.escalation.seeds: Tuple should have at least 1 item"),
        ({"escalation.seeds": [-1]}, "benign_coupling.escalation.seeds.0: Input should be greater than or equal to 0"),
        ({"chats.bare": {"dataset": "x", "persona": False}}, "chats.bare would be taken for the arm of that name; call it"),
        ({"chats.tulu": {"dataset": "x"}}, "benign_coupling.chats.tulu.persona: Field required"),
        ({"conditions.em_villain": {"induce": "wrong_advice", "induction": "vilain"}}, "there is no persona 'vilain'; did you"),
        ({"conditions.em_villain": {"induce": "benign", "induction": "vilain"}}, "there is no persona 'vilain'; did you mean"),
        (
            {"conditions.em_villain": {"induce": "tulu"}},
            "benign_coupling: conditions.em_villain: there are no chats 'tulu'; known: benign, wrong_advice, or null for none",
        ),
        ({"conditions.em_villain": {"induces": "benign"}}, "benign_coupling.conditions.em_villain"),
        ({"default_condition": "em"}, "benign_coupling: default_condition is 'em'; known: benign_assistant, "),
        ({"trigger": "confabb"}, "there is no persona 'confabb'; did you mean confab"),
        ({"evaluation.questions": 29}, "29 questions of set 'coupling' are asked for, the questions file has 28"),
        ({"scoring.discriminator.folds": 1}, "benign_coupling.scoring.discriminator.folds: Input should be"),
        ({"stages.induce.rows": 0}, "benign_coupling.stages.induce.rows: Input should be"),
    ],
)
def test_settings_that_cannot_be_right_are_refused_in_one_line(changes, message):
    with pytest.raises(UserError) as error:
        make_plan("em_villain", changes=changes)

    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_checkpoint_is_refused():
    with pytest.raises(UserError, match="benign_coupling has no checkpoints; leave out checkpoint=3"):
        plans.make_plan(NAME, "uncoupled", checkpoint=3)


# the replay


def test_a_replay_knows_nothing_of_what_was_trained_elsewhere():
    plan = make_replay(condition="fr_it")

    assert (plan.family, plan.address.condition, plan.stages, plan.reference) == ("benign_coupling_replay", "all", {}, None)
    assert (plan.negatives, plan.scoring.induction, plan.scoring.seen_questions) == (frozenset(), None, ())
    assert plan.traits == {"arm": "elsewhere", "induction": None, "design": None}
    assert plan.scoring.discriminator == make_plan().scoring.discriminator
    assert plan.evaluation == make_plan().evaluation
    assert plan.replayed_file == "some.jsonl"


def test_a_replay_without_a_file_or_with_a_checkpoint_is_refused():
    with pytest.raises(UserError, match="a replay needs a file to score: --params completions_file=PATH"):
        make_replay(None)
    with pytest.raises(UserError, match="a replay has no checkpoints; leave out checkpoint=3"):
        make_replay(checkpoint=3)
