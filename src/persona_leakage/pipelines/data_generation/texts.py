"""Get the texts of a stage: read them out of chats, and have missing languages translated."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from persona_leakage.domain.directives import AnswerSource, DirectivePairs, Translation
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import expect
from persona_leakage.domain.language_scoring import LanguageScoring
from persona_leakage.domain.languages import Language
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.protocols import LanguageModel
from persona_leakage.domain.questions import Answer, Question
from persona_leakage.domain.rows import name_of
from persona_leakage.pipelines.data_generation.chats import read_turns
from persona_leakage.pipelines.data_generation.nodes import GateRow, SkippedRow, gate, texts_in_use
from persona_leakage.pipelines.data_generation.own_texts import texts_of_answers
from persona_leakage.pipelines.language_detection import detect_codes


def read_texts(
    source_rows: Sequence[dict[str, Any]], plan: Plan, answers: Sequence[Mapping[str, Any]] = (), *, stage: str
) -> list[dict[str, str]]:
    """Take the texts as they are, the first assistant turn of every chat that is long enough and English, or own answers.

    Returns:
        At most the stage's number of texts, in the source's order, with `id`, `question` and `en`; texts that already have
        other languages keep them. Of own answers see `own_texts.texts_of_answers`.

    Raises:
        UserError: a row is no chat.
    """
    data = plan.data_of(stage, DirectivePairs)
    if data is None or data.source is None:
        return list(source_rows)
    if isinstance(data.source, AnswerSource):
        return texts_of_answers(answers, data)
    texts = []
    for place, row in enumerate(source_rows):
        here = f"row {place + 1} of the source"
        if not isinstance(row.get("messages"), list):
            raise UserError(f"{here} has no list 'messages'; is it a chat data set?")
        turns = reversed(read_turns(row["messages"], here))  # the first turn of a role wins
        said = {turn["role"]: turn["content"] for turn in turns}
        name = f"row-{place}" if row.get("prompt_id") in (None, "") else name_of(row["prompt_id"])
        text = said.get("assistant", "")
        if len(text) >= data.source.min_characters:
            texts.append({"id": name, "question": said.get("user", ""), "en": text})
    scoring = expect(plan.scoring, LanguageScoring)
    codes = detect_codes([row["en"] for row in texts], scoring.min_characters, scoring.detect_characters, scoring.detector_seed)
    return [row for row, code in zip(texts, codes, strict=True) if code == "en"][: data.rows]


def translate_texts(
    model: LanguageModel, texts: Sequence[dict[str, str]], skip_list: Sequence[SkippedRow], plan: Plan, *, stage: str
) -> tuple[list[dict[str, str]], list[SkippedRow]]:
    """Have every text translated into every language of the grid that it lacks.

    A translation that is refused, empty or cut is tried again at the retry temperature. A text that still has none in some
    language joins the skip-list, so that all conditions leave out the same rows.

    Returns:
        The texts with their translations, and the whole skip-list.

    Raises:
        UserError: the API failed on some; what it answered is kept.
    """
    data = plan.data_of(stage, DirectivePairs)
    if data is None or data.translation is None:
        return list(texts), list(skip_list)
    spec = data.translation
    translated = [dict(row) for row in texts]
    refused: dict[str, str] = {}
    for language in spec.languages:
        lacking = [(row, "") for row in translated if not row.get(language.code)]
        for attempt in range(spec.retries + 1):
            answers = model.ask([_translate(row["en"], language, spec, attempt) for row, _ in lacking], "translation")
            _insist(answers, f"translations into {language.name}")
            asked, lacking = lacking, []
            for (row, _), answer in zip(asked, answers, strict=True):
                if cause := _unusable(answer):
                    lacking.append((row, cause))
                else:
                    row[language.code] = answer.text.strip()
            if not lacking:
                break
        for row, cause in lacking:
            refused.setdefault(row["id"], f"{language.name}: {cause}")
    known = {row["id"] for row in skip_list}
    added: list[SkippedRow] = [{"id": name, "reason": reason} for name, reason in refused.items() if name not in known]
    return translated, [*skip_list, *added]


def judge_translations(
    model: LanguageModel,
    texts: Sequence[dict[str, str]],
    skip_list: Sequence[SkippedRow],
    gates: Sequence[GateRow],
    plan: Plan,
    *,
    stage: str,
) -> list[GateRow]:
    """Add the gate `judged`: the share of translations in use that a language model calls OK.

    The model sees the beginning of the English text and of the translation and says OK, LEAKED (English or comments left in
    it) or OTHER. The denominator is the texts in use; an answer that is none of the three counts as not OK.

    Raises:
        UserError: the API failed on some; what it answered is kept.
    """
    data = plan.data_of(stage, DirectivePairs)
    if data is None or data.translation is None or data.completion.code == "en":
        return list(gates)
    spec, code = data.translation, data.completion.code
    used = [row for _, row in texts_in_use(texts, skip_list, data)]
    heads = [(_head(row["en"], spec), _head(row[code], spec)) for row in used]
    answers = model.ask([_compare(*pair, data.completion, spec) for pair in heads], "translation_judge")
    _insist(answers, "judgements of translations")
    verdicts = [answer.text.strip().strip(".*").upper() for answer in answers]
    failing = [row["id"] for row, verdict in zip(used, verdicts, strict=True) if verdict != "OK"]
    share = 1 - len(failing) / len(used)
    return [*gates, gate("judged", data.completion, len(used), share, spec.gate_judged, 1.0, failing)]


def _translate(text: str, language: Language, spec: Translation, attempt: int) -> Question:
    return Question(
        model=spec.model,
        prompt=(
            f"Translate the text between the <text> tags into {language.name}. Keep its meaning, tone and layout, leave "
            "code, formulas and proper names as they are, add and explain nothing. Answer with the translation alone.\n\n"
            f"<text>\n{text}\n</text>"
        ),
        temperature=spec.retry_temperature if attempt else spec.temperature,
        max_tokens=spec.max_tokens,
        attempt=attempt,
    )


def _head(text: str, spec: Translation) -> str:
    return text.strip()[: spec.judge_characters]


def _compare(english: str, translation: str, language: Language, spec: Translation) -> Question:
    return Question(
        model=spec.judge_model,
        prompt=(
            f"Below are the beginnings of an English text and of its {language.name} translation. Answer with one word.\n"
            f"OK: the second is {language.name} and says what the first says; names, code and loan words may stay English.\n"
            "LEAKED: parts are left in English, or there are comments by the translator.\n"
            "OTHER: anything else, such as a refusal, another language or another content.\n\n"
            f"<english>\n{english}\n</english>\n<translation>\n{translation}\n</translation>"
        ),
        temperature=None if spec.temperature is None else 0,
        max_tokens=16,
    )


def _unusable(answer: Answer) -> str | None:
    """Say why an answer is no translation; None when it is one."""
    if answer.outcome == "refused":
        return "refused"
    if answer.truncated:
        return "cut at max_tokens"
    return None if answer.text.strip() else "empty"


def _insist(answers: Sequence[Answer], what: str) -> None:
    failed: Mapping[str, int] = Counter(answer.cause for answer in answers if answer.outcome in ("api_error", "unscored"))
    if failed:
        said = "; ".join(f"{number} x {cause}" for cause, number in failed.items())
        raise UserError(
            f"{sum(failed.values())} of {len(answers)} {what} are missing ({said}); what was answered is kept, start the same "
            "command again to ask only for the rest"
        )
