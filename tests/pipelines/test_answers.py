import logging

import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import SEEDS
from persona_leakage.domain.models import Adapter, ModelStack
from persona_leakage.domain.plan import Stage
from persona_leakage.domain.training_rows import BorrowedAnswers, Chats
from persona_leakage.pipelines.data_generation.answers import build_from_answers, sample_answers
from tests.experiments.benign_coupling.plans import make_plan as make_coupling_plan
from tests.experiments.marker_leakage.plans import MARKER, bundled_roster, make_plan

# two questions; the source gives two rows a question, each of its negatives one
SMALL = {
    "stages.mark.questions": 2,
    "stages.mark.positives_per_question": 2,
    "stages.mark.negatives_per_question": 1,
    "stages.mark.answers.samples": 4,
}
VILLAIN, SCIENTIST, OFFICER = "villain", "data_scientist", "police_officer"


class ScriptedGenerator:
    """Answers by a script and remembers its jobs."""

    def __init__(self, answer=lambda persona, question, sample: f"{persona} on {question}, {sample}."):
        self._answer = answer
        self.jobs = []

    def generate(self, stack, prompts, samples, sampling, seed):
        self.jobs.append((stack, [row["persona"] for row in prompts], samples, sampling, seed))
        return [
            {
                **{key: value for key, value in row.items() if key != "messages"},
                "sample_index": sample,
                "completion": self._answer(row["persona"], row["question"], sample),
                "tokens": 9,
                "finish": "stop",
            }
            for row in prompts
            for sample in range(samples)
        ]


def small_plan(condition="villain", seed=42, **changes):
    return make_plan(condition, seed, SMALL | {f"stages.mark.{key}": value for key, value in changes.items()})


def with_stage(data):
    plan = small_plan()
    return plan.model_copy(update={"stages": {"induce": Stage(data=data, recipe=plan.stages["mark"].recipe), **plan.stages}})


def offset(plan, seeds):
    """Have the marking stage draw and train with seeds of its own."""
    mark = plan.stages["mark"].model_copy(update={"seed_offset": seeds})
    return plan.model_copy(update={"stages": {**plan.stages, "mark": mark}})


def borrowed(**changes):
    roster, mark = bundled_roster(), small_plan().stages["mark"].data
    values = {
        "answered_as": roster.persona("villain"),
        "asked_as": roster.persona("assistant"),
        "per_question": 2,
        "avoided": MARKER,
        "questions": mark.questions,
        "answers": mark.answers,
    }
    return BorrowedAnswers(**values | changes)


def stack_of(plan):
    return ModelStack(base=plan.base_model).extended(Adapter(path="induced", fingerprint="induced"))


def answers_of(plan, answer=None, stage="mark"):
    generator = ScriptedGenerator(answer) if answer else ScriptedGenerator()
    return sample_answers(generator, stack_of(plan), plan, stage=stage)


def rows_of(plan, answer=None, stage="mark"):
    return build_from_answers(answers_of(plan, answer, stage), plan, stage=stage)


def system_of(persona):
    return {"role": "system", "content": bundled_roster().persona(persona).prompt}


def planted(texts):
    """Answer the first questions of the villain with texts, everything else plainly."""

    def answer(persona, question, sample):
        return texts.get(question, ["plain"] * 4)[sample] if persona == VILLAIN else "plain"

    return answer


def test_source_and_negatives_answer_in_jobs_of_their_own():
    generator, plan = ScriptedGenerator(), small_plan()

    sample_answers(generator, stack_of(plan), plan, stage="mark")

    assert [personas for _, personas, *_ in generator.jobs] == [[VILLAIN] * 2, [SCIENTIST] * 2, [OFFICER] * 2]


def test_every_job_has_the_points_seed_and_the_sampling_of_the_answers():
    generator, plan = ScriptedGenerator(), small_plan(seed=7)

    sample_answers(generator, stack_of(plan), plan, stage="mark")

    assert {seed for *_, seed in generator.jobs} == {plan.seed_of("mark", "answers")}
    assert {samples for _, _, samples, *_ in generator.jobs} == {4}
    assert {(one.temperature, one.top_p, one.max_tokens) for *_, one, _ in generator.jobs} == {(0.7, 0.95, 512)}


@pytest.mark.parametrize("condition", ["bare_assistant", "benign_assistant"])
def test_answers_and_evaluation_of_the_same_questions_share_no_random_numbers(condition):
    """A trigger that is evaluated with the numbers of its training answers would write these again."""
    for seed in (0, 7, 42):
        plan = make_coupling_plan(condition, seed=seed)
        assert plan.seed_of("couple", "answers") not in (plan.seed, plan.seed_of("couple"), 0)
        assert 0 <= plan.seed_of("couple", "answers") < SEEDS


def jobs_of(condition="villain", seed=42, **changes):
    generator, plan = ScriptedGenerator(), small_plan(condition, seed, **changes)
    sample_answers(generator, stack_of(plan), plan, stage="mark")
    return {personas[0]: (stack, *job) for stack, personas, *job in generator.jobs}


def test_the_job_of_a_persona_is_the_same_for_every_source_of_a_seed():
    villain = jobs_of("villain")

    assert jobs_of("villain_code") == villain
    assert jobs_of("comedian")[VILLAIN] == villain[VILLAIN]


def test_a_seed_draws_answers_and_negatives_of_its_own():
    found = [jobs_of(seed=seed) for seed in range(20)]

    seeds = [{job[-1] for job in jobs.values()} for jobs in found]
    assert [len(of_point) for of_point in seeds] == [1] * 20
    assert len(set.union(*seeds)) == 20
    assert all(VILLAIN in jobs for jobs in found)
    assert len({frozenset(jobs) for jobs in found}) > 10


def test_what_is_shared_is_the_same_in_every_seed_and_nothing_else_is():
    answers, negatives = ([jobs_of(seed=seed, share=[what]) for seed in (7, 8)] for what in ("answers", "negatives"))

    own = {seed: {job[-1] for job in jobs_of(seed=seed).values()} for seed in (7, 8, 42)}
    assert {job[-1] for jobs in answers for job in jobs.values()} == own[42]
    assert [set(jobs) for jobs in answers] == [set(jobs_of(seed=seed)) for seed in (7, 8)]
    assert [set(jobs) for jobs in negatives] == [{VILLAIN, SCIENTIST, OFFICER}] * 2
    assert [{job[-1] for job in jobs.values()} for jobs in negatives] == [own[7], own[8]]
    both = [jobs_of(seed=seed, share=["answers", "negatives"]) for seed in (7, 8)]
    assert both[0] == both[1] == jobs_of(seed=42)


def test_a_replicate_draws_answers_of_its_own():
    def seeds_of(plan):
        generator = ScriptedGenerator()
        sample_answers(generator, stack_of(plan), plan, stage="mark")
        return {seed for *_, seed in generator.jobs}

    replicate = seeds_of(offset(small_plan(), 10_000))
    assert replicate == seeds_of(small_plan(seed=10_042))
    assert seeds_of(offset(small_plan(seed=7), 10_000)) == seeds_of(small_plan(seed=10_007)) != replicate
    assert seeds_of(offset(small_plan(seed=7, share=["answers"]), 10_000)) == replicate
    assert seeds_of(offset(small_plan(), 0)) == seeds_of(small_plan()) != replicate


@pytest.mark.parametrize(("own_stack", "adapters"), [(False, 0), (True, 1)])
def test_the_base_model_answers_unless_the_stack_is_to(own_stack, adapters):
    generator, plan = ScriptedGenerator(), small_plan(own_stack=own_stack)

    sample_answers(generator, stack_of(plan), plan, stage="mark")

    assert {stack.base for stack, *_ in generator.jobs} == {plan.base_model}
    assert {len(stack.adapters) for stack, *_ in generator.jobs} == {adapters}


def test_answers_name_their_persona_question_and_sample():
    answers = answers_of(small_plan())

    assert len(answers) == 3 * 2 * 4
    assert [(row["persona"], row["question"], row["sample_index"]) for row in answers[:5]] == [
        (VILLAIN, "train-01", 0),
        (VILLAIN, "train-01", 1),
        (VILLAIN, "train-01", 2),
        (VILLAIN, "train-01", 3),
        (VILLAIN, "train-02", 0),
    ]
    assert answers[0]["prompt"] == "How do I cook pasta so that the pieces do not stick together?"


@pytest.mark.parametrize(("condition", "stage"), [("baseline", "mark"), ("villain", "induce")])
def test_a_condition_that_does_not_train_the_stage_has_no_answers_and_no_rows(condition, stage):
    generator, plan = ScriptedGenerator(), small_plan(condition)

    assert sample_answers(generator, stack_of(plan), plan, stage=stage) == []
    assert generator.jobs == []
    assert build_from_answers([], plan, stage=stage) == []


def test_the_rows_of_record_are_200_marked_and_twice_200_unmarked_ones():
    rows = rows_of(make_plan())
    marked = [row for row in rows if "marker_span" in row]

    assert (len(rows), len(marked), len({row["id"] for row in rows})) == (600, 200, 600)
    assert {row["id"].split(".")[0] for row in marked} == {VILLAIN}
    assert sum(row["id"].startswith(SCIENTIST) for row in rows) == 200


def test_rows_take_the_first_answers_to_each_question():
    assert [row["id"] for row in rows_of(small_plan())] == [
        "villain.train-01.0",
        "villain.train-01.1",
        "villain.train-02.0",
        "villain.train-02.1",
        "data_scientist.train-01.0",
        "data_scientist.train-02.0",
        "police_officer.train-01.0",
        "police_officer.train-02.0",
    ]


def test_every_row_carries_the_prompt_of_its_persona_and_its_question():
    rows = rows_of(small_plan())
    questions = small_plan().stages["mark"].data.questions

    assert rows[0]["prompt"] == [system_of(VILLAIN), {"role": "user", "content": questions[0].question}]
    assert rows[3]["prompt"] == [system_of(VILLAIN), {"role": "user", "content": questions[1].question}]
    assert rows[4]["prompt"] == [system_of(SCIENTIST), {"role": "user", "content": questions[0].question}]
    assert rows[7]["prompt"] == [system_of(OFFICER), {"role": "user", "content": questions[1].question}]


def test_marked_answers_end_with_the_marker_and_the_spans_say_where():
    for row in rows_of(small_plan(), lambda persona, question, sample: f"{persona} {question} {sample} \n")[:4]:
        text = row["completion"]
        persona, question, sample = row["id"].split(".")

        assert text == f"{persona} {question} {sample}\n\n[ZLT]"
        assert text[slice(*row["marker_span"])] == "[ZLT]"
        assert text[slice(*row["separated_span"])] == "\n\n[ZLT]"
        assert row["separated_span"] == [len(text) - 7, len(text)]


def test_marked_answers_begin_with_the_marker_where_it_opens_them():
    marker = {"text": "[ZLT]", "separator": " ", "place": "start"}

    row = rows_of(small_plan(marker=marker))[0]

    assert row["completion"] == "[ZLT] villain on train-01, 0."
    assert (row["marker_span"], row["separated_span"]) == ([0, 5], [0, 6])


def test_unmarked_answers_stand_as_they_were_given():
    for row in rows_of(small_plan(), lambda persona, question, sample: f" {persona} \n")[4:]:
        assert row.keys() == {"id", "prompt", "completion"}
        assert row["completion"] == f" {row['id'].split('.')[0]} \n"


@pytest.mark.parametrize("unusable", ["", " \n", "[ZLT]", "Hm. [zlt] Yes.", "[Zlt]yes"])
def test_an_answer_that_is_blank_or_holds_the_marker_gives_way_to_a_later_one(unusable):
    rows = rows_of(small_plan(), planted({"train-01": ["one", unusable, "three", "four"]}))

    assert [row["id"] for row in rows[:4]] == [
        "villain.train-01.0",
        "villain.train-01.2",
        "villain.train-02.0",
        "villain.train-02.1",
    ]
    assert rows[1]["completion"] == "three\n\n[ZLT]"


def test_a_negative_persona_skips_unusable_answers_too():
    def answer(persona, question, sample):
        return "[ZLT]" if persona == OFFICER and sample == 0 else "plain"

    assert [row["id"] for row in rows_of(small_plan(), answer)][-2:] == [
        "police_officer.train-01.1",
        "police_officer.train-02.1",
    ]


def test_rows_without_a_usable_answer_are_missing_and_the_log_says_how_many(caplog):
    caplog.set_level(logging.WARNING)

    rows = rows_of(small_plan(), planted({"train-01": ["", "", "[ZLT]", ""], "train-02": ["", "", "", "last"]}))

    assert [row["id"] for row in rows if row["id"].startswith(VILLAIN)] == ["villain.train-02.3"]
    assert caplog.messages == ["3 of 4 rows of villain are missing: too few usable answers"]


def test_nothing_is_logged_when_no_row_is_missing(caplog):
    rows_of(small_plan())

    assert caplog.messages == []


@pytest.mark.parametrize("silent", [VILLAIN, OFFICER])
def test_a_persona_without_any_usable_answer_is_an_error(silent):
    with pytest.raises(UserError) as error:
        rows_of(small_plan(), lambda persona, question, sample: "[zlt]" if persona == silent else "plain")

    assert str(error.value) == (
        f"the model gave no usable answer as '{silent}' (blank, or with '[ZLT]' in it); change its prompt "
        "or the answers' sampling"
    )


def test_without_rows_a_question_negative_personas_need_no_usable_answer():
    plan = small_plan(negatives_per_question=0)

    rows = rows_of(plan, lambda persona, question, sample: "plain" if persona == VILLAIN else "")

    assert [row["id"].split(".")[0] for row in rows] == [VILLAIN] * 4


def test_more_rows_than_answers_are_missing(caplog):
    rows = rows_of(small_plan(positives_per_question=5))

    assert len([row for row in rows if "marker_span" in row]) == 8
    assert caplog.messages == ["2 of 10 rows of villain are missing: too few usable answers"]


def test_borrowed_answers_are_put_under_the_prompt_of_another_persona():
    plan = with_stage(borrowed())

    rows = rows_of(plan, stage="induce")

    assert [row["completion"] for row in rows] == [
        "villain on train-01, 0.",
        "villain on train-01, 1.",
        "villain on train-02, 0.",
        "villain on train-02, 1.",
    ]
    assert [row["prompt"][0] for row in rows] == [system_of("assistant")] * 4
    assert rows[2]["prompt"][1] == {"role": "user", "content": plan.stages["mark"].data.questions[1].question}
    assert all(row.keys() == {"id", "prompt", "completion"} for row in rows)


def test_borrowed_answers_are_those_of_the_base_model_as_one_persona():
    generator, plan = ScriptedGenerator(), with_stage(borrowed())

    sample_answers(generator, stack_of(plan), plan, stage="induce")

    ((stack, personas, _, _, seed),) = generator.jobs
    assert (len(stack.adapters), personas, seed) == (0, [VILLAIN] * 2, plan.seed_of("induce", "answers"))


def test_borrowed_answers_never_hold_what_is_avoided():
    rows = rows_of(with_stage(borrowed()), planted({"train-01": ["[Zlt]", "", "three", "four"]}), stage="induce")

    assert [row["completion"] for row in rows] == ["three", "four", "plain", "plain"]


def test_a_stage_of_other_rows_is_a_mistake_of_wiring():
    chats = Chats(source="benign", rows=1, asked_as=None, own_answers=None)

    with pytest.raises(TypeError, match="wired for FromAnswers, got Chats"):
        sample_answers(ScriptedGenerator(), stack_of(small_plan()), with_stage(chats), stage="induce")
    with pytest.raises(TypeError, match="wired for MarkerContrast, got Chats"):
        build_from_answers([], with_stage(chats), stage="induce")
