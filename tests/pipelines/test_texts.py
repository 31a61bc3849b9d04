import pytest

from persona_leakage.domain.directives import ChatSource, Translation
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.questions import Answer, Question
from persona_leakage.pipelines.data_generation.texts import judge_translations, read_texts, translate_texts
from tests.experiments.lang_inversion.plans import make_plan
from tests.scripted import ScriptedModel

LONG = "The bread rises because the yeast turns sugar into gas and the dough holds it."


def studied_plan(condition: str = "fr_it", *, languages: tuple[str, ...] = ("italian",), rows: int = 100) -> Plan:
    plan = make_plan(condition)
    named = make_plan("baseline").scoring.languages
    stage = plan.stages["tune"]
    translation = Translation(
        model="translator",
        languages=tuple(named[label] for label in languages),
        temperature=0,
        retries=2,
        retry_temperature=0.3,
        max_tokens=2048,
        judge_model="judge",
        judge_characters=20,
        gate_judged=0.95,
    )
    data = stage.data.model_copy(update={"source": ChatSource(min_characters=40), "translation": translation, "rows": rows})
    return plan.model_copy(update={"stages": {"tune": stage.model_copy(update={"data": data})}})


def chat(*turns: tuple[str, str], name: str = "a") -> dict[str, object]:
    return {"prompt_id": name, "messages": [{"role": role, "content": content} for role, content in turns]}


def test_the_first_assistant_turn_becomes_the_text_and_the_user_turn_its_question() -> None:
    row = chat(("user", "Why?"), ("assistant", LONG), ("user", "And?"), ("assistant", LONG + " Second."))
    assert read_texts([row], studied_plan(), stage="tune") == [{"id": "a", "question": "Why?", "en": LONG}]


def test_short_missing_and_foreign_turns_are_dropped_and_the_count_stops_at_rows() -> None:
    rows = [
        chat(("user", "?"), ("assistant", "Too short."), name="short"),
        chat(("user", "?"), name="missing"),
        chat(("user", "?"), ("assistant", "El pan sube porque la levadura convierte el azúcar en gas."), name="spanish"),
        *[chat(("user", "?"), ("assistant", LONG), name=f"kept-{place}") for place in range(4)],
    ]
    texts = read_texts(rows, studied_plan(rows=3), stage="tune")
    assert [row["id"] for row in texts] == ["kept-0", "kept-1", "kept-2"]


def test_a_source_that_is_no_chat_is_named() -> None:
    with pytest.raises(UserError, match="row 2 of the source has no list 'messages'"):
        read_texts([chat(("assistant", LONG)), {"text": LONG}], studied_plan(), stage="tune")


def texts(*names: str) -> list[dict[str, str]]:
    return [{"id": name, "question": "?", "en": f"{name} {LONG}"} for name in names]


def test_texts_get_the_languages_they_lack_and_keep_those_they_have() -> None:
    model = ScriptedModel(lambda question: "tradotto" if "into Italian" in question.prompt else "traducido")
    given = texts("one", "two")
    given[1]["it"] = "già qui"
    translated, skipped = translate_texts(model, given, [], studied_plan(languages=("italian", "spanish")), stage="tune")
    assert [row["it"] for row in translated] == ["tradotto", "già qui"]
    assert [row["es"] for row in translated] == ["traducido", "traducido"]
    assert skipped == []
    assert "it" not in given[0]
    assert [(question.temperature, question.attempt) for _, question in model.asked] == [(0, 0)] * 3


def refuse_until(attempt: int, name: str) -> object:
    def answer(question: Question) -> Answer | str:
        refused = f"\n{name} " in question.prompt and question.attempt < attempt
        return Answer(outcome="refused", cause="refused by the model") if refused else "tradotto"

    return answer


def test_a_refused_translation_is_tried_twice_more_at_the_retry_temperature() -> None:
    model = ScriptedModel(refuse_until(2, "two"))  # type: ignore[arg-type]
    translated, skipped = translate_texts(model, texts("one", "two"), [], studied_plan(), stage="tune")
    assert [row.get("it") for row in translated] == ["tradotto", "tradotto"]
    assert skipped == []
    assert [(question.temperature, question.attempt) for _, question in model.asked] == [(0, 0), (0, 0), (0.3, 1), (0.3, 2)]


def test_a_text_refused_in_any_language_joins_the_skip_list_of_all_conditions() -> None:
    def answer(question: Question) -> Answer | str:
        refused = "into Spanish" in question.prompt and "\ntwo " in question.prompt
        return Answer(outcome="refused", cause="refused by the model") if refused else "tradotto"

    listed = [{"id": "one", "reason": "by hand"}]
    plan = studied_plan("fr_it", languages=("italian", "spanish"))
    _, skipped = translate_texts(ScriptedModel(answer), texts("one", "two", "three"), listed, plan, stage="tune")  # type: ignore[arg-type]
    assert skipped == [*listed, {"id": "two", "reason": "Spanish: refused"}]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(Answer(outcome="answered", text="trad", truncated=True), "Italian: cut at max_tokens"), (" \n", "Italian: empty")],
)
def test_cut_and_empty_translations_are_no_translations(answer: Answer | str, reason: str) -> None:
    _, skipped = translate_texts(ScriptedModel(lambda _: answer), texts("one"), [], studied_plan(), stage="tune")
    assert skipped == [{"id": "one", "reason": reason}]


def test_an_api_error_stops_the_run_and_is_no_refusal() -> None:
    model = ScriptedModel(lambda q: Answer(outcome="api_error", cause="API error 529") if "two" in q.prompt else "tradotto")
    with pytest.raises(
        UserError, match=r"1 of 2 translations into Italian are missing \(1 x API error 529\); what was answered is"
    ):
        translate_texts(model, texts("one", "two"), [], studied_plan(), stage="tune")


def judged(verdicts: dict[str, str], names: list[str], skip: list[str]) -> dict[str, object]:
    rows = [{**row, "it": f"{row['id']} tradotto in italiano"} for row in texts(*names)]
    model = ScriptedModel(lambda question: next(said for name, said in verdicts.items() if f"\n{name} " in question.prompt))
    gates = judge_translations(model, rows, [{"id": name, "reason": ""} for name in skip], [], studied_plan(), stage="tune")
    assert len(gates) == 1
    return dict(gates[0])


def test_the_judged_gate_is_the_share_of_translations_in_use_that_are_ok() -> None:
    gate = judged({"a": "OK", "b": "LEAKED", "c": "ok.", "d": "OTHER", "e": "perhaps"}, list("abcde"), ["d"])
    assert (gate["gate"], gate["n"], gate["value"], gate["passed"]) == ("judged", 4, 0.5, False)
    assert gate["failing_ids"] == ["b", "e"]


def test_the_judged_gate_passes_at_its_threshold() -> None:
    names = [f"t{place}" for place in range(20)]
    gate = judged({name: "LEAKED" if name == "t7" else "OK" for name in names}, names, [])
    assert (gate["value"], gate["passed"]) == (0.95, True)


def test_the_judge_of_translations_sees_only_their_beginnings() -> None:
    model = ScriptedModel(lambda _: "OK")
    rows = [{"id": "a", "question": "?", "en": "x" * 50, "it": "\n" * 30 + "y" * 50}]
    judge_translations(model, rows, [], [], studied_plan(), stage="tune")
    assert "x" * 20 in model.asked[0][1].prompt
    assert "x" * 21 not in model.asked[0][1].prompt
    assert "y" * 20 in model.asked[0][1].prompt
    assert "y" * 21 not in model.asked[0][1].prompt


def test_where_every_language_is_there_nothing_is_asked() -> None:
    model = ScriptedModel(lambda _: "")
    plan = make_plan("fr_it")
    assert translate_texts(model, texts("one"), [], plan, stage="tune") == (texts("one"), [])
    assert judge_translations(model, texts("one"), [], [], plan, stage="tune") == []
    assert read_texts(texts("one"), plan, stage="tune") == texts("one")
    assert model.asked == []
