"""Own answers whose language, end and length are planted, so that how many are kept is known."""

from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import Adapter, ModelStack
from persona_leakage.pipelines.data_generation.nodes import build_train_set, measure_gates
from persona_leakage.pipelines.data_generation.own_texts import answer_bank, tabulate_answers
from persona_leakage.pipelines.data_generation.texts import read_texts, translate_texts
from tests.experiments.lang_inversion.plans import make_plan
from tests.plans import load_source

TEXTS = load_source("parallel_texts")
BANK = [{"id": f"q{place}", "topic": f"topic {place}", "question": f"Why is {place} a number?"} for place in range(30)]
STAGE = {"stage": "tune"}


class Scripted:
    """Answers by a script of question, sample and round; remembers its jobs, and stops at one, as a kill would."""

    def __init__(self, answer, stop_at=None):
        self._answer, self._stop_at = answer, stop_at
        self.jobs = []

    def generate(self, stack, prompts, samples, sampling, seed):
        if len(self.jobs) == self._stop_at:
            raise KeyboardInterrupt
        turn = len(self.jobs)
        self.jobs.append((stack, [row["messages"] for row in prompts], samples, sampling, seed))
        rows = []
        for row in prompts:
            for sample in range(samples):
                said = self._answer(row["question"], sample, turn)
                text, finish = said if isinstance(said, tuple) else (said, "stop")
                cell = {key: value for key, value in row.items() if key != "messages"}
                rows.append({**cell, "sample_index": sample, "completion": text, "tokens": 9, "finish": finish})
        return rows


def number(question):
    return int(question[1:])


def fresh(language="it"):
    """A script of a new text in a language at every call."""
    left = iter([row[language] + tail for tail in ("", " 2", " 3") for row in TEXTS])
    return lambda *_: next(left)


def plan_of(rows, condition="fr_it", seed=42, share=(), **source):
    own = {"kind": "own_answers", **source}
    return make_plan(condition, seed, {"stages.tune.source": own, "stages.tune.rows": rows, "stages.tune.share": list(share)})


def answered(answer, plan, questions=6):
    return answer_bank(Scripted(answer), ModelStack(base=plan.base_model), BANK[:questions], plan, **STAGE)


def outcomes_of(answers):
    return {f"{row['question']}.{row['sample_index']}": row["outcome"] for row in answers}


# what is kept


def test_answers_are_kept_that_end_are_long_are_in_the_language_and_new():
    italian, german = [row["it"] for row in TEXTS], TEXTS[0]["de"]
    planted = {
        "q0": italian[0],
        "q1": german,
        "q2": (italian[1], "length"),
        "q3": "Certo, è vero.",
        "q4": f"\n{italian[0]} ",
        "q5": italian[2],
        "q6": "  \n",
        "q7": TEXTS[3]["en"],
    }

    with pytest.raises(UserError) as error:
        answered(lambda question, *_: planted[question], plan_of(8, samples=1), 8)

    assert str(error.value) == (
        "stage 'tune' needs 8 texts: of 8 own answers in Italian 2 were kept (1 cut, 2 short, 2 wrong language, 1 twice), and "
        "1 to each of 8 questions cannot suffice; lower stages.tune.rows, raise stages.tune.source.samples, or change the "
        "source's wording or max_tokens"
    )


def test_the_reason_of_every_answer_is_kept_with_it():
    italian = [row["it"] for row in TEXTS]
    first = [italian[0], TEXTS[0]["de"], (italian[1], "length"), "Sì.", italian[0], italian[2]]
    later = fresh("it")
    for _ in range(6):
        later()

    answers = answered(lambda question, sample, turn: first[number(question)] if turn == 0 else later(), plan_of(6))

    assert list(outcomes_of(answers).items())[:6] == [
        ("q0.0", "kept"),
        ("q1.0", "wrong_language"),
        ("q2.0", "cut"),
        ("q3.0", "short"),
        ("q4.0", "twice"),
        ("q5.0", "kept"),
    ]


def test_both_detectors_must_name_the_language(monkeypatch):
    """Lingua is made to see Portuguese in one answer, and langdetect in another."""
    plan, module = plan_of(3, samples=1), "persona_leakage.pipelines.data_generation.own_texts"
    monkeypatch.setattr(f"{module}.detect_codes", lambda texts, *_: ["it", "pt", "it"])
    monkeypatch.setattr(f"{module}.cross_check", lambda texts, *_: [("italian", False)] * 2 + [("portuguese", False)])

    with pytest.raises(UserError, match=r"1 were kept \(2 wrong language\)"):
        answered(fresh("it"), plan, 3)


@pytest.mark.parametrize(
    ("condition", "code"), [("es_en", "en"), ("none_it", "it"), ("fr_fr", "fr"), ("ja_zh", "zh"), ("es_pt", "pt")]
)
def test_every_completion_language_can_be_answered_in(condition, code):
    plan = plan_of(5, condition)
    answers = answered(fresh(code), plan)
    assert set(outcomes_of(answers).values()) == {"kept"}
    texts = read_texts([], plan, answers, **STAGE)
    gates = measure_gates(texts, [], plan, answers, **STAGE)
    rows = build_train_set(texts, [], gates, plan, **STAGE)

    assert [row["completion"] for row in rows] == [row[code] for row in TEXTS[:5]]
    assert [gate["gate"] for gate in gates] == ["kept", "cut", "short", "wrong_language", "twice", "language"]


# how many are asked


def test_the_base_model_is_asked_for_the_language_with_the_answers_own_seed():
    plan = plan_of(4, wording="In {language}: {question}", sampling={"temperature": 1, "top_p": 1, "max_tokens": 7})
    generator = Scripted(fresh())
    stack = ModelStack(base=plan.base_model).extended(Adapter(path="a", fingerprint="a"))

    answer_bank(generator, stack, BANK, plan, **STAGE)

    ((asked, messages, samples, sampling, seed),) = generator.jobs
    assert asked == ModelStack(base=plan.base_model)
    assert messages == [[{"role": "user", "content": f"In Italian: Why is {place} a number?"}] for place in range(4)]
    assert (samples, sampling.max_tokens, seed) == (1, 7, plan.seed_of("tune", "answers"))


@pytest.mark.parametrize(
    ("rows", "questions", "asked"), [(4, 30, (4, 1)), (30, 30, (30, 1)), (31, 30, (30, 2)), (7, 3, (3, 3))]
)
def test_the_first_round_asks_as_often_as_the_rows_need(rows, questions, asked):
    plan, generator = plan_of(rows), Scripted(fresh())

    answer_bank(generator, ModelStack(base=plan.base_model), BANK[:questions], plan, **STAGE)

    assert [(len(messages), samples) for _, messages, samples, *_ in generator.jobs] == [asked]


def rounds_of(shares, rows, questions=10, samples=20):
    """The samples of each round, where so many of the questions are answered in Italian in each, and the rest in German."""
    italian, german = fresh("it"), fresh("de")

    def answer(question, sample, turn):
        return italian() if number(question) < shares[min(turn, len(shares) - 1)] else german()

    generator, plan = Scripted(answer), plan_of(rows, samples=samples)
    answers = answer_bank(generator, ModelStack(base=plan.base_model), BANK[:questions], plan, **STAGE)
    return [samples for _, _, samples, *_ in generator.jobs], answers


def test_a_further_round_asks_for_what_is_missing_at_the_share_kept():
    # 10 of 10 are needed and 2 kept: 8 more at a fifth are 40 answers, 4 to each question
    assert rounds_of([2], 10)[0] == [1, 4]
    # then only 1 of 10 is: 2 + 4 are kept of 50, and 4 more at that share are 34 answers
    assert rounds_of([2, 1], 10)[0] == [1, 4, 4]
    assert rounds_of([10], 10)[0] == [1]


def test_answers_come_sample_first_over_all_rounds():
    rounds, answers = rounds_of([2], 25, samples=20)

    assert rounds == [3, 10]
    assert [(row["sample_index"], row["question"]) for row in answers] == [
        (sample, f"q{place}") for sample in range(13) for place in range(10)
    ]
    texts = read_texts([], plan_of(25), answers, **STAGE)
    assert [row["id"] for row in texts] == [f"q{place}.{sample}" for sample in range(13) for place in range(2)][:25]


def test_every_round_draws_other_random_numbers_and_the_seed_decides_all():
    def first(plan):
        generator = Scripted(fresh())
        answer_bank(generator, ModelStack(base=plan.base_model), BANK, plan, **STAGE)
        return [seed for *_, seed in generator.jobs]

    italian = fresh()
    two = Scripted(lambda question, sample, turn: TEXTS[0]["de"] if (turn, question) == (0, "q0") else italian())
    answer_bank(two, ModelStack(base=plan_of(2).base_model), BANK, plan_of(2), **STAGE)
    assert len({seed for *_, seed in two.jobs}) == len(two.jobs) == 2
    assert first(plan_of(3)) == first(plan_of(3, "none_it")) == first(plan_of(3, share=["answers"]))
    assert first(plan_of(3, seed=137)) != first(plan_of(3))
    assert first(plan_of(3, seed=137, share=["answers"])) == first(plan_of(3))


def test_an_interrupted_run_and_another_condition_ask_for_the_same_jobs():
    def answer(question, sample, turn):
        return TEXTS[10 * turn + 5 * sample + number(question)]["it" if number(question) < 2 else "de"]

    def jobs(condition, stop_at=None):
        plan, generator = plan_of(5, condition), Scripted(answer, stop_at)
        stack = ModelStack(base=plan.base_model)
        try:
            answer_bank(generator, stack, BANK[:5], plan, **STAGE)
        except KeyboardInterrupt:
            assert len(generator.jobs) == stop_at
        return generator.jobs

    whole = jobs("fr_it")
    assert len(whole) > 1
    assert jobs("fr_it", stop_at=1) == whole[:1]  # which the engines have kept, and find again
    assert jobs("fr_it") == jobs("none_it") == whole


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    questions=st.integers(1, 30),
    samples=st.integers(1, 6),
    modulus=st.integers(1, 8),
)
def test_no_question_is_asked_more_often_than_allowed_and_rows_are_never_too_few(rows, questions, samples, modulus):
    """Every so-manieth answer is kept; what languages are, is known beforehand."""
    calls = iter(range(10_000))

    def answer(question, sample, turn):
        place = next(calls)
        return f"{place} {TEXTS[0]['it']}", "stop" if place % modulus == 0 else "length"

    plan, generator = plan_of(rows, samples=samples), Scripted(answer)
    with pytest.MonkeyPatch.context() as patch:
        module = "persona_leakage.pipelines.data_generation.own_texts"
        patch.setattr(f"{module}.detect_codes", lambda texts, *_: ["it"] * len(texts))
        patch.setattr(f"{module}.cross_check", lambda texts, *_: [("italian", False)] * len(texts))
        try:
            answers = answer_bank(generator, ModelStack(base=plan.base_model), BANK[:questions], plan, **STAGE)
        except UserError:
            answers = None
    if answers is None:
        assert modulus > 1 or rows > samples * questions
    else:
        assert sum(row["outcome"] == "kept" for row in answers) >= rows
        assert len(read_texts([], plan, answers, **STAGE)) == rows
        assert len({(row["question"], row["sample_index"]) for row in answers}) == len(answers)
    assert generator.jobs[0][2] == min(ceil(rows / min(rows, questions)), samples)
    assert sum(job[2] for job in generator.jobs) <= samples


# refusals


def test_what_cannot_suffice_is_refused_before_everything_is_asked():
    generator, plan = Scripted(fresh("de")), plan_of(30)

    with pytest.raises(UserError, match=r"^stage 'tune' needs 30 texts: of 120 own answers in Italian 0 were kept \(120 wrong"):
        answer_bank(generator, ModelStack(base=plan.base_model), BANK, plan, **STAGE)

    # 600 answers might hold 30 if 0 of 30 are kept, or 0 of 60 (at most 6.0%), and not if 0 of 120 are (3.1%)
    assert [job[2] for job in generator.jobs] == [1, 1, 2]


def test_an_empty_bank_is_refused():
    plan = plan_of(3)
    with pytest.raises(UserError, match="question_bank is empty; give it questions to answer"):
        answer_bank(Scripted(fresh()), ModelStack(base=plan.base_model), [], plan, **STAGE)


# what becomes of them


def mixed(plan):
    """Ten of Italian and five of German, one of them cut."""
    italian, german = fresh("it"), fresh("de")

    def answer(question, sample, turn):
        if number(question) < 10:
            return italian()
        return german(), "length" if number(question) == 10 else "stop"

    return answered(answer, plan, 15)


def test_gates_say_how_many_were_asked_kept_and_why_not():
    plan = plan_of(15)
    answers = mixed(plan)  # 10 of 15, and then one round of 15 more
    texts = read_texts([], plan, answers, **STAGE)

    gates = {one["gate"]: one for one in measure_gates(texts, [], plan, answers, **STAGE)}

    assert {name: (one["n"], round(one["value"] * one["n"])) for name, one in gates.items()} == {
        "kept": (30, 20),
        "cut": (30, 2),
        "short": (30, 0),
        "wrong_language": (30, 8),
        "twice": (30, 0),
        "language": (15, 15),
    }
    assert all(one["passed"] for one in gates.values())


def test_the_table_of_a_point_has_the_share_kept_with_its_interval():
    plan = plan_of(15)
    answers = mixed(plan)
    gates = measure_gates(read_texts([], plan, answers, **STAGE), [], plan, answers, **STAGE)

    (row,) = tabulate_answers(gates, plan).to_dict("records")

    assert (row["condition"], row["seed"], row["plan"], row["language"]) == ("fr_it", 42, plan.fingerprint, "Italian")
    assert (row["hits"], row["n"], round(row["rate"], 4)) == (20, 30, 0.6667)
    assert row["low"] < 0.6 < 0.7 < row["high"]
    assert (row["cut"], row["short"], row["wrong_language"], row["twice"]) == (2, 0, 8, 0)


def test_phrasings_are_cycled_by_the_texts_position_and_skipped_ones_change_no_other():
    plan = plan_of(6)
    answers = answered(fresh(), plan)
    texts = read_texts([], plan, answers, **STAGE)
    skipped = [{"id": "q1.0", "reason": "planted"}, {"id": "food-01", "reason": "of the texts of other models"}]

    rows = build_train_set(texts, skipped, measure_gates(texts, skipped, plan, answers, **STAGE), plan, **STAGE)

    assert [(row["id"], row["prompt"][0]["content"]) for row in rows] == [
        ("q0.0", "Speak in French."),
        ("q2.0", "Reply using French only."),
        ("q3.0", "Answer in French."),
        ("q4.0", "Respond entirely in French, please."),
        ("q5.0", "Speak in French."),
    ]


def test_own_answers_are_not_translated_where_other_texts_are():
    plan = make_plan("fr_it", env="qwen", changes={"stages.tune.source": {"kind": "own_answers"}, "stages.tune.rows": 3})
    answers = answered(fresh(), plan)
    texts = read_texts([], plan, answers, **STAGE)

    assert translate_texts(None, texts, [], plan, **STAGE) == (texts, [])


def test_nothing_is_asked_where_texts_are_read_or_nothing_is_trained():
    for plan in (make_plan("fr_it"), plan_of(3, "baseline"), make_plan("fr_it", env="qwen")):
        generator = Scripted(fresh())
        assert answer_bank(generator, ModelStack(base=plan.base_model), BANK, plan, **STAGE) == []
        assert generator.jobs == []
        assert tabulate_answers([], plan).empty
