import math

import pytest

from persona_leakage.domain.language_scoring import Judge
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.questions import Answer, Question
from persona_leakage.pipelines.scoring.judge import judge_languages, measure_judge_agreement
from persona_leakage.pipelines.scoring.nodes import rate_cells
from tests.experiments.lang_inversion.plans import make_plan
from tests.scripted import ScriptedModel


def judged_plan(*, shows_directive: bool = False, condition: str = "fr_it") -> Plan:
    plan = make_plan(condition)
    judge = Judge(model="judge", temperature=0, max_tokens=512, shows_directive=shows_directive)
    return plan.model_copy(update={"scoring": plan.scoring.model_copy(update={"judge": judge})})


def completion(text: str, language: str = "spanish", sample: int = 0) -> dict[str, object]:
    cell = {"directive_language": language, "phrasing": "Speak in {language}.", "prompt": f"Speak in {language.title()}."}
    return {**cell, "sample_index": sample, "completion": text}


def judge_one(answer: Answer | str) -> dict[str, object]:
    (row,) = judge_languages(ScriptedModel(lambda _: answer), [completion("Hola")], judged_plan())  # type: ignore[list-item]
    return {key: row[key] for key in ("outcome", "label", "recovered", "cause")}  # type: ignore[literal-required]


@pytest.mark.parametrize(
    ("answer", "outcome", "label", "recovered"),
    [
        ('{"label": "spanish", "reasoning": "words"}', "label", "spanish", False),
        ('{"reasoning": "two", "label": "mixed"}', "label", "mixed", False),
        ('```json\n{"label": "italian", "reasoning": "words"}\n```', "label", "italian", True),
        (Answer(outcome="answered", text='{"label": "french", "reasoning": "it st', truncated=True), "label", "french", True),
        (Answer(outcome="answered", text='{"reasoning": "it st', truncated=True), "parse_error", None, False),
        ('{"label": "klingon", "reasoning": "?"}', "parse_error", None, False),
        ("It is Spanish.", "parse_error", None, False),
        ('["spanish"]', "parse_error", None, False),
        (Answer(outcome="refused", cause="refused by the model"), "refused", None, False),
        (Answer(outcome="api_error", cause="API error 529 overloaded_error after 9 attempts"), "api_error", None, False),
        (Answer(outcome="unscored", cause="spend ceiling reached"), "unscored", None, False),
    ],
)
def test_every_answer_becomes_its_own_outcome(answer: Answer | str, outcome: str, label: str | None, recovered: bool) -> None:
    row = judge_one(answer)
    assert (row["outcome"], row["label"], row["recovered"]) == (outcome, label, recovered)
    assert (row["cause"] == "") == (outcome == "label")


def test_the_judge_sees_the_text_alone_unless_told_otherwise() -> None:
    model = ScriptedModel(lambda _: '{"label": "spanish", "reasoning": ""}')
    judge_languages(model, [completion("Hola a todos")], judged_plan())  # type: ignore[list-item]
    judge_languages(model, [completion("Hola a todos")], judged_plan(shows_directive=True))  # type: ignore[list-item]
    alone, with_directive = (question.prompt for _, question in model.asked)
    assert "Hola a todos" in alone
    assert "Speak in" not in alone
    assert "Speak in Spanish." in with_directive


def test_the_judge_is_asked_with_the_label_set_of_the_plan_at_temperature_zero() -> None:
    model = ScriptedModel(lambda _: '{"label": "spanish", "reasoning": ""}')
    judge_languages(model, [completion("Hola")], judged_plan())  # type: ignore[list-item]
    ((purpose, question),) = model.asked
    labels = question.json_schema["properties"]["label"]["enum"]  # type: ignore[index]
    assert labels == [
        *("english", "spanish", "french", "italian", "portuguese", "german", "mandarin"),
        *("mixed", "other", "refusal", "gibberish"),
    ]
    assert (purpose, question.temperature, question.max_tokens) == ("judge", 0, 512)


def test_without_a_judge_nothing_is_asked() -> None:
    model = ScriptedModel(lambda _: "")
    assert judge_languages(model, [completion("Hola")], make_plan("fr_it")) == []  # type: ignore[list-item]
    assert model.asked == []


def by_text(question: Question) -> Answer | str:
    if "<text>\ndown\n</text>" in question.prompt:
        return Answer(outcome="api_error", cause="API error 429")
    return (
        '{"label": "italian", "reasoning": ""}'
        if "<text>\nciao\n</text>" in question.prompt
        else '{"label": "spanish", "reasoning": ""}'
    )


def test_what_the_judge_did_not_label_leaves_the_denominator_and_is_counted_apart() -> None:
    plan = judged_plan()
    rows = [completion(text, sample=place) for place, text in enumerate(["ciao", "hola", "hola", "down"])]
    judgements = judge_languages(ScriptedModel(by_text), rows, plan)  # type: ignore[arg-type]
    labels = [{**row, "label": "spanish", "cross_check": "spanish", "mixed": False} for row in rows]
    rates = rate_cells(labels, judgements, plan)  # type: ignore[arg-type]
    cell = rates[(rates["directive_language"] == "spanish") & (rates["phrasing"] == "all")].set_index("metric")
    assert tuple(cell.loc["judge:contamination", ["hits", "n"]]) == (1, 3)
    assert tuple(cell.loc["judge:following", ["hits", "n"]]) == (2, 3)
    assert tuple(cell.loc["judge:unlabelled", ["hits", "n"]]) == (1, 4)
    assert tuple(cell.loc["contamination", ["hits", "n"]]) == (0, 4)
    empty = rates[(rates["directive_language"] == "german") & (rates["metric"] == "judge:following")]
    assert set(empty["n"]) == {0}
    assert all(math.isnan(rate) for rate in empty["rate"])


def test_agreement_is_over_labelled_rows_and_outcomes_over_all() -> None:
    plan = judged_plan()
    rows = [completion(text, sample=place) for place, text in enumerate(["ciao", "hola", "hola", "down"])]
    judgements = judge_languages(ScriptedModel(by_text), rows, plan)  # type: ignore[arg-type]
    primary = ["italian", "spanish", "italian", "spanish"]
    labels = [{**row, "label": label, "cross_check": label, "mixed": False} for row, label in zip(rows, primary, strict=True)]
    agreement = measure_judge_agreement(labels, judgements)  # type: ignore[arg-type]
    assert agreement["outcomes"] == {"label": 3, "api_error": 1}
    assert (agreement["n"], agreement["agree"]) == (3, 2)
    assert agreement["confusion"] == {"italian": {"italian": 1, "spanish": 1}, "spanish": {"spanish": 1}}
    # observed 2/3, expected (2/3 x 1/3) + (1/3 x 2/3) = 4/9
    assert agreement["kappa"] == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))


def test_agreement_without_a_judge_is_empty_and_has_no_kappa() -> None:
    labels = [{**completion("x"), "label": "spanish", "cross_check": "spanish", "mixed": False}]
    agreement = measure_judge_agreement(labels, [])  # type: ignore[arg-type]
    assert (agreement["n"], agreement["kappa"], agreement["outcomes"]) == (0, None, {})
