"""A language model as a second opinion on the language of a completion."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from persona_leakage.domain.frozen import expect
from persona_leakage.domain.language_scoring import LanguageScoring
from persona_leakage.domain.languages import Language
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.protocols import LanguageModel
from persona_leakage.domain.questions import Answer, Question, Respondent
from persona_leakage.domain.rows import CompletionRow, JudgementRow, LabelRow
from persona_leakage.pipelines.scoring.nodes import Comparison, cell_of, compare_labels

_BEYOND_LANGUAGES = {
    "mixed": "two or more languages, each in a substantial part",
    "other": "a language that is not in this list",
    "refusal": "the text declines to answer, in whatever language",
    "gibberish": "no language can be recognised",
}


class JudgeAgreement(Comparison):
    """The primary label against the judge's, over the completions that it labelled; `outcomes` counts every one once."""

    outcomes: dict[str, int]
    recovered: int


def judge_languages(model: LanguageModel, completions: Sequence[CompletionRow], plan: Plan) -> list[JudgementRow]:
    """Ask the judge for the language of every completion; equal questions are asked once.

    Returns:
        One row a completion, empty when the plan has no judge.
    """
    scoring = expect(plan.scoring, LanguageScoring)
    judge = scoring.judge
    if judge is None:
        return []
    labels = (*scoring.languages, *_BEYOND_LANGUAGES)
    prompts = [
        _ask_for_label(row["completion"], row["prompt"] if judge.shows_directive else None, scoring.languages)
        for row in completions
    ]
    judged = ask_labels(model, judge, prompts, labels, "judge")
    return [{**cell_of(row), **one} for row, one in zip(completions, judged, strict=True)]  # type: ignore[typeddict-item]


def measure_judge_agreement(labels: Sequence[LabelRow], judgements: Sequence[JudgementRow]) -> JudgeAgreement:
    """Compare the judge with the primary label, and count what became of each completion."""
    pairs = [
        (label["label"], judged["label"])
        for label, judged in zip(labels, judgements, strict=bool(judgements))
        if judged["label"] is not None
    ]
    return {
        "outcomes": dict(Counter(row["outcome"] for row in judgements)),
        "recovered": sum(row["recovered"] for row in judgements),
        **compare_labels(pairs),
    }


def _ask_for_label(text: str, directive: str | None, languages: Mapping[str, Language]) -> str:
    named = [f"{label}: {language.name}" for label, language in languages.items()]
    named += [f"{label}: {meaning}" for label, meaning in _BEYOND_LANGUAGES.items()]
    asked = f"The text answers this instruction: {directive}\n\n" if directive is not None else ""
    return (
        "In which language is the text between the <text> tags written? Judge the text itself, not what it talks about.\n\n"
        f"{asked}<text>\n{text}\n</text>\n\nAnswer with one JSON object: "
        '{"label": "…", "reasoning": "one short sentence"}. The label is one of:\n' + "\n".join(f"- {line}" for line in named)
    )


def ask_labels(
    model: LanguageModel, judge: Respondent, prompts: Sequence[str], labels: Sequence[str], purpose: str
) -> list[dict[str, object]]:
    """Have a judge answer every prompt with one of the labels and its reasoning.

    Returns:
        What a `JudgementRow` has beside its cell, one a prompt; a cut or malformed answer whose label is readable is recovered.
    """
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": list(labels)}, "reasoning": {"type": "string"}},
        "required": ["label", "reasoning"],
        "additionalProperties": False,
    }
    how = {name: getattr(judge, name) for name in Respondent.model_fields}
    questions = [Question(**how, prompt=prompt, json_schema=schema) for prompt in prompts]
    return [_judgement(answer, labels) for answer in model.ask(questions, purpose)]


def _judgement(answer: Answer, labels: Sequence[str]) -> dict[str, object]:
    row: dict[str, object] = {
        "outcome": answer.outcome,
        "label": None,
        "reasoning": "",
        "recovered": False,
        "cause": answer.cause,
    }
    if answer.outcome != "answered":
        return row
    try:
        given = json.loads(answer.text)
        label, reasoning, recovered = given["label"], str(given.get("reasoning", "")), False
    except (ValueError, KeyError, TypeError, AttributeError):
        found = re.search(r'"label"\s*:\s*"([a-z]+)"', answer.text)
        label, reasoning, recovered = found.group(1) if found else None, "", True
    if label not in labels:
        said = "cut before its label" if answer.truncated else f"no known label in: {answer.text:.80}"
        return row | {"outcome": "parse_error", "cause": said}
    return row | {"outcome": "label", "label": label, "reasoning": reasoning, "recovered": recovered}
